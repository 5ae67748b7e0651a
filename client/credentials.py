"""Who we are at a registry, and where that is written down.

Asked in this order, the first answer wins: the text of DOCKER_AUTH_CONFIG; docker's config.json
(its `credHelpers` and `credsStore` before its `auths`); podman's auth.json files. A credential is
found by the registry's exact name; podman's files may narrow it to a path below, longest first.
Nothing is ever looked up under another registry's name, and a helper that fails is an error, not a
reason to look elsewhere (CVE-2021-41092).
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import json
import os

from client.errors import CredentialsError
from client.helper import Helper
from ocispec.image.layout import write_file_atomically
from ocispec.value import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Protocol

    from client.options import ClientOptions

    class Keychain(Protocol):
        def find(self, registry: str, repository: str = "") -> Credential | None:
            """The credential for a repository of a registry; None to stay anonymous."""


MAX_FILE_BYTES = 4 << 20
DOCKER_IO = "https://index.docker.io/v1/"  # docker.io's key in every one of these files


@value
class Credential:
    """A password, or a token that stands for one.

    username: empty with a bare token
    password: used for Basic and to ask for tokens
    identity_token: an OAuth2 refresh token; the password is empty then
    registry_token: a bearer token to send as it is
    """

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""

    def __repr__(self) -> str:
        return f"Credential(username={self.username!r}, …)"  # secrets stay out of every trace

    @property
    def basic(self) -> str:
        """The value of a Basic Authorization header."""
        word = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
        return f"Basic {word}"


class FixedKeychain:
    """One credential for everything asked, for `login` before anything is stored."""

    def __init__(self, credential: Credential | None) -> None:
        self._credential = credential

    def find(self, registry: str, repository: str = "") -> Credential | None:
        return self._credential


class FileKeychain:
    """Credentials in the files that docker and podman keep. Reads them at every question."""

    def __init__(self, options: ClientOptions) -> None:
        self._options = options
        self._path = os.path.join(options.docker_config, "config.json")

    def find(self, registry: str, repository: str = "") -> Credential | None:
        """Raises: CredentialsError if a file or helper that is configured cannot be used."""
        if self._options.docker_auth_config:
            document = _parse(self._options.docker_auth_config.encode(), "DOCKER_AUTH_CONFIG")
            found = _in_auths(document, registry, "", "DOCKER_AUTH_CONFIG")
            if found is not None:
                return found
        if self._options.docker_config:
            document = _read(self._path)
            helper = self._helper(document, registry)
            if helper is not None:
                found = helper.get(_key(registry))
            else:
                found = _in_auths(document, registry, repository, self._path)
            if found is not None:
                return found
        for path in self._options.auth_files:
            document = _read(path)
            helper = self._helper(document, registry)
            if helper is not None:
                found = helper.get(_key(registry))
            else:
                found = _in_auths(document, registry, repository, path)
            if found is not None:
                return found
        return None

    def store(self, registry: str, credential: Credential) -> str:
        """Keep a credential where docker would; say where, for the person.

        Raises: CredentialsError if it could not be written; nothing is changed then.
        """
        helper = self._helper(_read(self._path), registry)
        entry: dict[str, str] = {}
        if helper is not None:
            helper.store(_key(registry), credential)
        else:
            word = f"{credential.username}:{credential.password}".encode()
            entry["auth"] = base64.b64encode(word).decode()
            if credential.identity_token:
                entry["identitytoken"] = credential.identity_token
            if credential.registry_token:
                entry["registrytoken"] = credential.registry_token

        def change(document: dict[str, Any]) -> bool:
            auths = document.setdefault("auths", {})
            if not isinstance(auths, dict):
                raise CredentialsError(f"{self._path}: 'auths' is not an object")
            auths[_key(registry)] = entry  # empty with a helper: docker marks it like this
            return True

        self._rewrite(change)
        return f"the credential helper {helper.program}" if helper else self._path

    def erase(self, registry: str) -> bool:
        """Forget a registry's credential; False if there was none in docker's file."""
        document = _read(self._path)
        helper = self._helper(document, registry)
        present = [key for key in _auths(document, self._path) if _host(key) == _host(registry)]
        if not present and helper is None:
            return False
        known = bool(present) or (helper is not None and helper.get(_key(registry)) is not None)
        if helper is not None and known:
            helper.erase(_key(registry))

        def change(document: dict[str, Any]) -> bool:
            auths = _auths(document, self._path)
            for key in [key for key in auths if _host(key) == _host(registry)]:
                del auths[key]
            return bool(present)

        self._rewrite(change)
        return known

    def _helper(self, document: dict[str, Any], registry: str) -> Helper | None:
        helpers = document.get("credHelpers")
        name: Any = ""
        if isinstance(helpers, dict):
            name = next((n for key, n in helpers.items() if _host(key) == _host(registry)), "")
        name = name or document.get("credsStore", "")
        if not name:
            return None
        return Helper(str(name), self._options.helper_environment)

    def _rewrite(self, change: Callable[[dict[str, Any]], bool]) -> None:
        # A link in a dotfiles directory stays a link: its target is what is replaced.
        path = os.path.realpath(self._path)
        directory = os.path.dirname(path)
        try:
            os.makedirs(directory, mode=0o700, exist_ok=True)
            guard = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(guard, fcntl.LOCK_EX)  # two logins at once must not lose one
                document = _read(path)
                if change(document):
                    raw = json.dumps(document, indent="\t", ensure_ascii=False).encode()
                    write_file_atomically(path, raw, mode=0o600)
            finally:
                os.close(guard)
        except OSError as error:
            raise CredentialsError(
                f"cannot write {path}: {error.strerror}", hint="set DOCKER_CONFIG to another place"
            ) from error


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise CredentialsError(f"cannot read {path}: {error.strerror}") from error
    return _parse(raw, path)


def _parse(raw: bytes, where: str) -> dict[str, Any]:
    try:
        document = json.loads(raw) if len(raw) <= MAX_FILE_BYTES else None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise CredentialsError(f"{where} is not a JSON object", hint="repair it or move it away")
    return document


def _auths(document: dict[str, Any], where: str) -> dict[str, Any]:
    auths = document.get("auths") or {}
    if not isinstance(auths, dict):
        raise CredentialsError(f"{where}: 'auths' is not an object")
    return auths


def _in_auths(
    document: dict[str, Any], registry: str, repository: str, where: str
) -> Credential | None:
    auths = _auths(document, where)
    for wanted in _paths(registry, repository):
        for key, entry in auths.items():
            if _normal(key) == wanted and isinstance(entry, dict):
                found = _credential(entry, f"{where}: entry for {wanted}")
                if found is not None:
                    return found
    return None


def _paths(registry: str, repository: str) -> Iterator[str]:
    """`host/a/b`, `host/a`, `host`: the most particular first."""
    host = _host(registry)
    parts = repository.split("/") if repository else []
    for count in range(len(parts), 0, -1):
        yield "/".join((host, *parts[:count]))
    yield host


def _credential(entry: dict[str, Any], where: str) -> Credential | None:
    username, password = str(entry.get("username") or ""), str(entry.get("password") or "")
    if entry.get("auth"):
        try:
            pair = base64.b64decode(str(entry["auth"]), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise CredentialsError(f"{where} is damaged", hint="log in again") from None
        username, _, password = pair.rstrip("\0").partition(":")
    found = Credential(
        username=username,
        password=password,
        identity_token=str(entry.get("identitytoken") or ""),
        registry_token=str(entry.get("registrytoken") or ""),
    )
    return found if password or found.identity_token or found.registry_token else None


def _key(registry: str) -> str:
    return DOCKER_IO if _host(registry) == "docker.io" else registry


def _host(key: str) -> str:
    """The registry a key is about, whatever form it was written in."""
    return _normal(key).partition("/")[0]


def _normal(key: str) -> str:
    """`host[:port][/path]` of a key that may be a URL of docker's old API."""
    _, scheme, rest = key.partition("://")
    text = (rest if scheme else key).strip("/")
    host, _, path = text.partition("/")
    if path in ("v1", "v2"):
        path = ""
    if host in ("index.docker.io", "registry-1.docker.io"):
        host = "docker.io"
    return f"{host}/{path}" if path else host
