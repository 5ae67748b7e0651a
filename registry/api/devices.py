"""`/token/device`: a login that a person confirms in a browser. Spec: RFC 8628.

The page asks for the code, the user name and the password in one form, so that nothing a browser
sends by itself confirms anything; a token in a cookie and in the form keeps other sites out too.
"""

from __future__ import annotations

import hmac
import html
import re
import secrets
from typing import TYPE_CHECKING
from urllib.parse import quote

from registry.api.params import Query
from registry.api.problems import Refusal
from registry.auth.devices import LIFETIME_S, hash_of_device, hash_of_user_code, new_codes
from registry.auth.policy import ANONYMOUS
from registry.metadata.devices import APPROVED, DENIED, EXPIRED, INTERVAL_S, PENDING, SLOW_DOWN

if TYPE_CHECKING:
    from registry.api.exchange import Exchange
    from registry.metadata.base import Account

PATH = "/token/device"
VERIFY = "/token/device/verify"
GRANT = "urn:ietf:params:oauth:grant-type:device_code"
MAX_FORM = 8 * 1024

_COOKIE = "pyreg_device"
_ERRORS = {
    PENDING: "authorization_pending",
    SLOW_DOWN: "slow_down",
    EXPIRED: "expired_token",
    DENIED: "access_denied",
}
_PAGE_HEADERS = [
    (b"content-type", b"text/html; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (
        b"content-security-policy",
        b"default-src 'none'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    ),
]


async def begin(exchange: Exchange) -> None:
    """Codes for a device, and where its person goes with them."""
    form = await _form(exchange)
    services, address = exchange.services, exchange.client_address()
    services.limits.spend(ANONYMOUS.name, address)
    device, user = new_codes()
    client = f"{form.first('client_id') or ''} {exchange.header_text(b'user-agent')}".strip()
    await services.metadata.devices.begin(
        hash_of_device(device),
        hash_of_user_code(user),
        client="".join(c for c in client[:200] if c.isprintable()),
        address=address,
        lifetime_s=LIFETIME_S,
    )
    page = exchange.base_url() + VERIFY
    document = {
        "device_code": device,
        "user_code": user,
        "verification_uri": page,
        "verification_uri_complete": f"{page}?user_code={quote(user)}",
        "expires_in": LIFETIME_S,
        "interval": INTERVAL_S,
    }
    await exchange.reply_json(200, document, [(b"cache-control", b"no-store")])


async def redeem(exchange: Exchange, form: Query) -> Account | None:
    """Who confirmed the device; None if that has been answered with what it must hear."""
    exchange.services.limits.spend(ANONYMOUS.name, exchange.client_address())
    code = hash_of_device(form.first("device_code") or "")
    state, account = await exchange.services.metadata.devices.poll(code)
    if state == APPROVED and account is not None:
        return account
    document = {"error": _ERRORS[state]}
    await exchange.reply_json(400, document, [(b"cache-control", b"no-store")])
    return None


async def show(exchange: Exchange) -> None:
    """The form; with a code that waits, what asks."""
    code = (exchange.query.first("user_code") or "")[:64]
    await _show_form(exchange, code)


async def decide(exchange: Exchange) -> None:
    """What the person said, if they are who they say."""
    form = await _form(exchange)
    code, sent = form.first("user_code") or "", form.first("csrf") or ""
    found = re.search(rf"(?:^|;\s*){_COOKIE}=([A-Za-z0-9_-]{{43}})", _cookies(exchange))
    if found is None or not hmac.compare_digest(found[1].encode(), sent.encode()):
        raise Refusal(403, "DENIED", "the form is not ours, or cookies are off: load it again")
    decision = form.first("decision")
    if decision not in ("confirm", "refuse"):
        raise Refusal(400, "UNSUPPORTED", "the form says neither confirm nor refuse")
    name, password = form.first("username") or "", form.first("password") or ""
    services = exchange.services
    account = None
    if len(name) <= 255 and "\0" not in name + password:
        account = await services.logins.log_in(name, password, exchange.client_address())
    if account is None or account.token is not None or account.trusted is not None:
        # A session would outlive the token it came from, and know nothing of its limits.
        return await _show_form(exchange, code, "The user name or password is wrong.", 401)
    exchange.about.subject = account.name
    done = await services.metadata.devices.decide(
        hash_of_user_code(code), account.name, decision == "confirm"
    )
    if not done:
        return await _show_form(exchange, "", "No device waits with this code.", 404)
    said = "The device is logged in." if decision == "confirm" else "The device was refused."
    await exchange.reply(200, _PAGE_HEADERS, _page(f"<p>{said} You can close this page.</p>"))


async def _show_form(exchange: Exchange, code: str, problem: str = "", status: int = 200) -> None:
    secret = secrets.token_urlsafe(32)
    waiting = None
    if code:
        exchange.services.limits.spend(ANONYMOUS.name, exchange.client_address())
        waiting = await exchange.services.metadata.devices.waiting(hash_of_user_code(code))
    asks = ""
    if waiting is not None:
        client, address = html.escape(waiting.client), html.escape(waiting.address)
        asks = f"<p>This wants to log in: <b>{client}</b> from <b>{address}</b></p>"
    body = f"""<p>{html.escape(problem)}</p>{asks}
<p>Confirm only a login that you began yourself, and whose code is the same.</p>
<form method="post" action="{VERIFY}">
<input type="hidden" name="csrf" value="{secret}">
<p><label>Code <input name="user_code" value="{html.escape(code)}" autocomplete="off"></label></p>
<p><label>User <input name="username" autocomplete="username"></label></p>
<p><label>Password <input name="password" type="password"></label></p>
<p><button name="decision" value="confirm">Confirm</button>
<button name="decision" value="refuse">Refuse</button></p>
</form>"""
    secure = "; Secure" if exchange.base_url().startswith("https:") else ""
    kept = f"{_COOKIE}={secret}; Path={PATH}; HttpOnly; SameSite=Strict; Max-Age=600{secure}"
    headers = [*_PAGE_HEADERS, (b"set-cookie", kept.encode())]
    await exchange.reply(status, headers, _page(body))


def _page(body: str) -> bytes:
    return f'<!doctype html><html lang="en"><title>pyreg login</title><body>{body}'.encode()


def _cookies(exchange: Exchange) -> str:
    return exchange.header_text(b"cookie")[:8192]


async def _form(exchange: Exchange) -> Query:
    raw = await exchange.read_body(MAX_FORM)
    if raw is None:
        raise Refusal(413, "UNSUPPORTED", f"the form is longer than {MAX_FORM} bytes")
    return Query(raw, limit=MAX_FORM)
