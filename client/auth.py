"""Answers to a registry's 401: a Basic header, or a bearer token from the realm it names.

The challenge comes from the peer, so it decides nothing about where secrets go. Credentials are
sent to a realm only if it is the registry's own host, or https and a host of the same owner, see
`is_trusted_realm`; otherwise the realm is asked anonymously. A realm's redirect loses them, as any
redirect does. Tokens live in memory, per registry and set of scopes.

Spec: distribution "Token Authentication", RFC 6750, RFC 7617.
"""

from __future__ import annotations

import json
import threading
import time
from urllib.parse import urlencode

from client.errors import ProtocolError, RegistryError, Unauthorized
from client.origin import Origin, may_be_plain
from client.transport import fail
from ocispec.distribution.challenge import parse_challenges
from ocispec.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from client.credentials import Credential, Keychain
    from client.transport import Response, Transport

MAX_TOKEN_ANSWER_BYTES = 1 << 20
MAX_TOKEN_BYTES = 64 << 10  # as a header line; servers refuse far less
CLIENT_ID = "pyreg"
DEFAULT_LIFETIME_S = 60  # when the answer does not say, by the specification
EARLY_S = 5.0  # a token that ends this soon is not used for a new request

# registry host → hosts of its tokens that the rule below would not find
KNOWN_REALMS = {"docker.io": ("auth.docker.io",), "registry-1.docker.io": ("auth.docker.io",)}

# Below these, neighbours are strangers: one customer must not name another's host.
SHARED_SUFFIXES = frozenset(
    [
        "amazonaws.com",
        "azurecr.io",
        "azurewebsites.net",
        "cloudapp.net",
        "cloudfront.net",
        "run.app",
        "appspot.com",
        "web.app",
        "firebaseapp.com",
        "github.io",
        "gitlab.io",
        "pages.dev",
        "workers.dev",
        "r2.dev",
        "fly.dev",
        "vercel.app",
        "netlify.app",
        "herokuapp.com",
        "onrender.com",
        "ngrok.io",
        "ngrok.app",
        "ngrok-free.app",
        "trycloudflare.com",
        "duckdns.org",
        "nip.io",
        "sslip.io",
        "jfrog.io",
        "cloudsmith.io",
        "hf.space",
        "replit.dev",
    ]
)

# co.uk, com.au, ac.jp and their like: registries of names below a country's.
SECOND_LEVEL = frozenset(
    [
        "ac",
        "asn",
        "biz",
        "co",
        "com",
        "edu",
        "gen",
        "go",
        "gob",
        "gouv",
        "gov",
        "govt",
        "gv",
        "id",
        "in",
        "info",
        "ltd",
        "me",
        "mil",
        "ne",
        "net",
        "nhs",
        "nom",
        "or",
        "org",
        "plc",
        "sch",
        "web",
    ]
)


class RegistryAuth:
    """The Authorization of one registry's requests. Safe with threads.

    `repository` narrows which credential is asked for, where a file has one for a path.
    """

    def __init__(
        self,
        registry: str,
        origin: Origin,
        transport: Transport,
        keychain: Keychain,
        *,
        repository: str = "",
    ) -> None:
        self.registry = registry
        self._origin = origin
        self._transport = transport
        self._keychain = keychain
        self._repository = repository
        self._lock = threading.RLock()
        self._scheme = ""  # "", "basic" or "bearer": what the last challenge asked for
        self._realm = ""
        self._service = ""
        self._tokens: dict[frozenset[str], tuple[str, float]] = {}
        self._credential: Credential | None = None
        self._asked = False
        self.identity_token = ""  # given by the realm to whoever asked for offline access
        self.offline = False
        self.withheld = ""  # the realm that was not given the credentials, for the message

    @property
    def account(self) -> str:
        """Whom the realm gave its tokens to; empty for anonymous ones, and before any."""
        with self._lock:
            known = self._credential if self._scheme == "bearer" and self._tokens else None
            return (known.username or "this account") if known is not None else ""

    def header(self, scopes: frozenset[str]) -> str | None:
        """What to send with a request, None before the first challenge.

        Raises: Unauthorized if the realm refuses the credentials.
        """
        with self._lock:
            if self._scheme == "basic":
                credential = self._find()
                return credential.basic if credential else None
            if self._scheme == "bearer":
                return f"Bearer {self._token(scopes)}"
            return None

    def answer(self, challenges: Iterable[str], scopes: frozenset[str], sent: str | None) -> bool:
        """Take in a 401. False if the same request would be refused again."""
        with self._lock:
            offered: dict[str, Mapping[str, str]] = {}
            for header in challenges:
                try:
                    for challenge in parse_challenges(header):
                        offered.setdefault(challenge.scheme.lower(), challenge.parameters)
                except SpecError as error:
                    raise ProtocolError(
                        f"{self.registry} sent a challenge that cannot be read: {error}",
                        registry=self.registry,
                        status=401,
                    ) from error
            bearer = offered.get("bearer")
            if bearer is not None and bearer.get("realm"):
                return self._answer_bearer(dict(bearer), scopes, sent)
            if "basic" in offered:
                self._scheme = "basic"
                return sent is None and self._find() is not None
            return False

    def _answer_bearer(
        self, parameters: dict[str, str], scopes: frozenset[str], sent: str | None
    ) -> bool:
        self._scheme = "bearer"
        self._realm = parameters["realm"]
        self._service = parameters.get("service", "")
        wanted = scopes | frozenset(_split_scopes(parameters.get("scope", "")))
        # What was sent was refused: expired, or too narrow. Whoever sent nothing, or an older
        # token, only has to try with the one that another thread has got meanwhile.
        for known, (token, _) in list(self._tokens.items()):
            if sent == f"Bearer {token}":
                del self._tokens[known]
        if self._held(scopes) is not None:
            return True
        self._fetch(scopes, wanted)
        return True

    def _token(self, scopes: frozenset[str]) -> str:
        return self._held(scopes) or self._fetch(scopes, scopes)

    def _held(self, scopes: frozenset[str]) -> str | None:
        for known, (token, ends) in self._tokens.items():
            if scopes <= known and time.monotonic() < ends - EARLY_S:
                return token
        return None

    def _fetch(self, scopes: frozenset[str], wanted: frozenset[str]) -> str:
        token, lifetime = self._ask_realm(sorted(wanted))
        ends = time.monotonic() + lifetime
        self._tokens[scopes] = (token, ends)
        if wanted != scopes:
            self._tokens[wanted] = (token, ends)
        return token

    def revoke(self, identity_token: str) -> None:
        """End an identity token at the registry that gave it, where its realm is the registry's
        own host and knows how; elsewhere nothing happens, as nobody could be told.

        Spec: RFC 7009, at `revoke` below the realm. Raises: RegistryError.
        """
        from ocispec.distribution.endpoints import BASE

        with self._transport.request("GET", self._origin, BASE, attempts=1) as response:
            headers = response.all("WWW-Authenticate") if response.status == 401 else []
            response.finish()
        realms = [
            challenge.parameters.get("realm", "")
            for header in headers
            for challenge in parse_challenges(header)
        ]
        for realm in filter(None, realms):
            try:
                origin, target = Origin.parse(realm)
            except ValueError:
                continue
            if origin != self._origin or "?" in target:
                continue
            with self._transport.request(
                "POST",
                origin,
                f"{target.rstrip('/')}/revoke",
                headers={"Content-Type": "application/x-www-form-urlencoded"},
                body=urlencode({"token": identity_token, "client_id": CLIENT_ID}).encode(),
                follow=False,
                attempts=1,
            ) as response:
                if response.status not in (200, 400, 404, 405):
                    raise fail(response, f"logout from {self.registry}", self.registry)
                response.finish()
            return

    def _find(self) -> Credential | None:
        if not self._asked:
            self._credential = self._keychain.find(self.registry, self._repository)
            self._asked = True
        return self._credential

    def _ask_realm(self, scopes: list[str]) -> tuple[str, float]:
        try:
            origin, target = Origin.parse(self._realm)
        except ValueError as error:
            raise self._bad(f"names an unusable token realm: {error}") from error
        credential = self._find()
        if origin.scheme == "http" and not may_be_plain(origin, self._transport.options):
            raise self._bad(f"wants tokens fetched from {origin} without TLS")
        trusted = is_trusted_realm(
            self._origin, self.registry, origin, self._transport.options.trusted_realms
        )
        if credential is not None and not trusted:
            self.withheld = str(origin)
            credential = None
        if credential is not None and credential.registry_token:
            return credential.registry_token, 3600.0
        if credential is not None and credential.identity_token:
            response = self._post(origin, target, scopes, credential)
        else:
            response = self._get(origin, target, scopes, credential)
        if response.status != 200:
            raise self._refused(response, origin, credential)
        raw = response.read(MAX_TOKEN_ANSWER_BYTES, "a token", 60.0)
        return self._read_token(raw, origin)

    def _get(
        self, origin: Origin, target: str, scopes: list[str], credential: Credential | None
    ) -> Response:
        query = [("service", self._service)] if self._service else []
        query += [("scope", scope) for scope in scopes]
        query.append(("client_id", CLIENT_ID))
        if credential is not None:
            query.append(("account", credential.username))
            if self.offline:
                query.append(("offline_token", "true"))
        target += ("&" if "?" in target else "?") + urlencode(query)
        basic = credential.basic if credential is not None else None
        return self._transport.request("GET", origin, target, authorization=basic)

    def _post(
        self, origin: Origin, target: str, scopes: list[str], credential: Credential
    ) -> Response:
        form = {
            "grant_type": "refresh_token",
            "service": self._service,
            "client_id": CLIENT_ID,
            "scope": " ".join(scopes),
            "refresh_token": credential.identity_token,
        }
        # Not followed: a redirect would carry the body, and the secret in it, elsewhere.
        return self._transport.request(
            "POST",
            origin,
            target,
            headers={"Content-Type": "application/x-www-form-urlencoded"},
            body=urlencode(form).encode(),
            follow=False,
        )

    def _read_token(self, raw: bytes, origin: Origin) -> tuple[str, float]:
        try:
            document = json.loads(raw)
            token = document.get("token") or document.get("access_token")
            lifetime = document.get("expires_in") or DEFAULT_LIFETIME_S
            refresh = document.get("refresh_token") or ""
        except (ValueError, AttributeError, RecursionError) as error:
            raise self._bad(f"has a token service at {origin} that sent no JSON object") from error
        if not isinstance(token, str) or not _is_token(token):
            raise self._bad(f"has a token service at {origin} that sent no token")
        if isinstance(refresh, str) and _is_token(refresh):
            self.identity_token = refresh
        if isinstance(lifetime, bool) or not isinstance(lifetime, (int, float)):
            lifetime = DEFAULT_LIFETIME_S
        return token, min(max(float(lifetime), DEFAULT_LIFETIME_S), 86400.0)

    def _refused(
        self, response: Response, origin: Origin, credential: Credential | None
    ) -> RegistryError:
        error = fail(response, f"token from {origin}", self.registry)
        if response.status not in (400, 401, 403):
            return error
        if credential is not None:
            return Unauthorized(
                f"{self.registry}: incorrect username or password",
                registry=self.registry,
                status=response.status,
                hint=f"log in again: pyreg login {self.registry}",
            )
        hint = f"log in first: pyreg login {self.registry}"
        if self.withheld:
            hint = self.explain_withheld()
        return Unauthorized(
            f"{self.registry}: authentication required",
            registry=self.registry,
            status=response.status,
            hint=hint,
        )

    def explain_withheld(self) -> str:
        """Why credentials that exist were not used."""
        return (
            f"the registry names {self.withheld} for tokens, which is another host: "
            "your credentials were not sent there"
        )

    def _bad(self, what: str) -> ProtocolError:
        return ProtocolError(f"{self.registry} {what}", registry=self.registry, status=401)


def is_trusted_realm(
    origin: Origin, registry: str, realm: Origin, extra: Iterable[str] = ()
) -> bool:
    """May credentials for the registry at `origin` be sent to this realm?

    The registry's own host may: by TLS, or by the scheme the registry itself is spoken to with.
    So may, by TLS only: hosts the user listed, docker.io's known one, a host below or directly
    above the registry's, and a neighbour under the same parent. Addresses have no neighbours, and
    a parent that many owners share makes none.
    """
    if realm.host == origin.host:
        return realm.scheme == "https" or origin.scheme == "http"
    if realm.is_loopback and origin.is_loopback:
        return True
    if realm.scheme != "https":
        return False
    if realm.host in tuple(extra) or realm.host in KNOWN_REALMS.get(registry, ()):
        return True
    if _is_address(realm.host) or _is_address(origin.host):
        return False
    if realm.host.endswith("." + origin.host):
        return True
    parent = origin.host.partition(".")[2]
    if _is_shared(parent):
        return False
    return realm.host == parent or realm.host.partition(".")[2] == parent


def _is_address(host: str) -> bool:
    return ":" in host or host.rpartition(".")[2].isdigit()


def _is_shared(parent: str) -> bool:
    labels = parent.split(".")
    if len(labels) < 2 or parent in SHARED_SUFFIXES:
        return True
    if len(labels) == 2 and len(labels[1]) == 2 and labels[0] in SECOND_LEVEL:
        return True
    return any(parent.endswith("." + suffix) for suffix in SHARED_SUFFIXES)


def _split_scopes(text: str) -> list[str]:
    return [scope for scope in text.split(" ") if scope and scope.isprintable()][:20]


def _is_token(text: str) -> bool:
    """Printable ASCII without blanks: anything else could smuggle a header."""
    return 0 < len(text) <= MAX_TOKEN_BYTES and all("!" <= c <= "~" for c in text)
