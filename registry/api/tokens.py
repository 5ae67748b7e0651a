"""`/token`: where clients exchange a password or refresh token for an access token.

GET with Basic credentials or none, and POST in the form of OAuth 2. Asking for more than one may do
is no error: the token allows what is allowed. Spec: distribution, "Token Authentication".

`/token/revoke` ends a refresh token (RFC 7009), `/token/jwks` is for others who verify (RFC 7517).
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from ocispec.distribution.scope import format_scopes, parse_scopes
from registry.api import devices
from registry.api.params import Query
from registry.api.problems import Refusal
from registry.auth.access_tokens import expiry_warning
from registry.auth.guard import MAX_AUTHORIZATION, parse_basic
from registry.auth.login import credential_of
from registry.auth.policy import ANONYMOUS, subject_of
from registry.auth.trust import is_external
from registry.errors import Unauthenticated

if TYPE_CHECKING:
    from registry.api.exchange import Exchange
    from registry.metadata.base import Account

MAX_FORM = 64 * 1024

# What everybody sees who asks for a token with a wrong password.
_BASIC = [(b"www-authenticate", b'Basic realm="pyreg"')]

_ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
_SUBJECT_TOKENS = (
    "urn:ietf:params:oauth:token-type:jwt",
    "urn:ietf:params:oauth:token-type:id_token",
)

_NEVER_KEPT = [(b"cache-control", b"no-store"), (b"pragma", b"no-cache")]


async def token_by_get(exchange: Exchange) -> None:
    """With Basic credentials an account's token, without any an anonymous one."""
    query = exchange.query
    header = exchange.header_text(b"authorization")
    account: Account | None = None
    if header:
        scheme, _, credentials = header.partition(" ")
        if scheme.lower() != "basic" or len(header) > MAX_AUTHORIZATION:
            raise _wrong_credentials()
        try:
            name, password = parse_basic(credentials.strip())
        except Unauthenticated:
            raise _wrong_credentials() from None
        account = await _log_in(exchange, name, password)
    wants_refresh = query.first("offline_token") == "true"
    await _grant(exchange, query, account, wants_refresh=wants_refresh)


async def token_by_post(exchange: Exchange) -> None:
    """grant_type password or refresh_token."""
    raw = await exchange.read_body(MAX_FORM)
    if raw is None:
        raise Refusal(413, "UNSUPPORTED", f"the form is longer than {MAX_FORM} bytes")
    form = Query(raw, limit=MAX_FORM)
    match form.first("grant_type"):
        case "password":
            name, password = form.first("username") or "", form.first("password") or ""
            account = await _log_in(exchange, name, password)
            wants_refresh = form.first("access_type") == "offline"
            await _grant(exchange, form, account, wants_refresh=wants_refresh)
        case "refresh_token":
            given = form.first("refresh_token") or ""
            services = exchange.services
            token = await services.refresh_tokens.redeem(given)
            holder = await services.refresh_tokens.holder(token.id) if token else None
            if holder is None:
                message = "this login has ended, or is not one: log in again"
                raise Refusal(401, "UNAUTHORIZED", message, headers=_BASIC)
            await _grant(exchange, form, holder, refresh_token=given)
        case devices.GRANT:
            confirmed = await devices.redeem(exchange, form)
            if confirmed is not None:
                more = {"token_type": "Bearer", "account": confirmed.name}
                await _grant(exchange, form, confirmed, wants_refresh=True, more=more)
        case "urn:ietf:params:oauth:grant-type:token-exchange":
            await _exchange(exchange, form)
        case _:
            raise Refusal(400, "UNSUPPORTED", "grant_type must be password or refresh_token")


async def _exchange(exchange: Exchange, form: Query) -> None:
    """A token of another issuer for one of ours, by a robot's trust rules. Spec: RFC 8693."""
    if form.first("subject_token_type") not in _SUBJECT_TOKENS:
        kinds = " or ".join(_SUBJECT_TOKENS)
        raise Refusal(400, "UNSUPPORTED", f"subject_token_type must be {kinds}")
    name, text = form.first("username") or "", form.first("subject_token") or ""
    exchange.services.limits.spend(ANONYMOUS.name, exchange.client_address())
    account = None
    if is_external(text) and len(name) <= 255 and "\0" not in name:
        logins = exchange.services.logins
        account = await logins.by_external(name, text, exchange.client_address())
    if account is None:
        raise Refusal(401, "UNAUTHORIZED", "no robot here trusts this token", headers=_BASIC)
    more = {"issued_token_type": _ACCESS_TOKEN, "token_type": "Bearer"}
    await _grant(exchange, form, account, more=more)


async def revoke(exchange: Exchange) -> None:
    """End the refresh token in the form, and what came of it. Also fine if it had ended before."""
    raw = await exchange.read_body(MAX_FORM)
    if raw is None:
        raise Refusal(413, "UNSUPPORTED", f"the form is longer than {MAX_FORM} bytes")
    given = Query(raw, limit=MAX_FORM).first("token") or ""
    if not given:
        raise Refusal(400, "UNSUPPORTED", "the form has no token")
    exchange.services.limits.spend(ANONYMOUS.name, exchange.client_address())
    await exchange.services.refresh_tokens.revoke(given)
    await exchange.reply(200, _NEVER_KEPT, b"")


async def jwks(exchange: Exchange) -> None:
    """The public keys of access tokens, current before the answer is made."""
    await exchange.services.policy.now()
    document = json.dumps(exchange.services.tokens.jwks()).encode()
    kept = (b"cache-control", b"public, max-age=60")
    await exchange.reply(200, [(b"content-type", b"application/jwk-set+json"), kept], document)


async def _log_in(exchange: Exchange, name: str, password: str) -> Account:
    address = exchange.client_address()
    account = await exchange.services.logins.log_in(name, password, address)
    if account is None:
        raise _wrong_credentials()
    return account


async def _grant(
    exchange: Exchange,
    parameters: Query,
    account: Account | None,
    *,
    wants_refresh: bool = False,
    refresh_token: str = "",
    more: Mapping[str, str] | None = None,
) -> None:
    services = exchange.services
    subject = subject_of(account) if account is not None else ANONYMOUS
    services.limits.spend(subject.name, exchange.client_address())
    exchange.about.subject = subject.name
    # Clients repeat the parameter, or join scopes with blanks, or both.
    requested = parse_scopes(" ".join(parameters.all("scope")))
    granted = (await services.policy.now()).grant(subject, requested)
    # A refresh token would outlive the access token it came from, and know nothing of its limits.
    lasts = account is not None and account.token is None and account.trusted is None
    if wants_refresh and account is not None and lasts:
        client, agent = parameters.first("client_id") or "", exchange.header_text(b"user-agent")
        refresh_token, session = await services.refresh_tokens.issue(subject.name, client, agent)
        account = replace(account, session=session.id)
    credential = credential_of(account) if account is not None else ""
    token = services.tokens.issue(subject.name, granted, credential=credential)
    document: dict[str, object] = {
        "token": token.text,
        "access_token": token.text,
        "expires_in": token.expires_in_s,
        "issued_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(token.issued_at)),
        "scope": format_scopes(granted),
        **(more or {}),
    }
    if refresh_token:
        document["refresh_token"] = refresh_token
    headers = [(b"content-type", b"application/json"), *_NEVER_KEPT, *warnings_of(account)]
    await exchange.reply(200, headers, json.dumps(document).encode())


def warnings_of(account: Account | None) -> list[tuple[bytes, bytes]]:
    """A header that says that the access token ends soon, if it does. Spec: RFC 7234, 5.5."""
    text = expiry_warning(account, time.time())
    return [(b"warning", f'299 - "{text}"'.encode("ascii"))] if text else []


def _wrong_credentials() -> Refusal:
    return Refusal(401, "UNAUTHORIZED", "the user name or password is wrong", headers=_BASIC)
