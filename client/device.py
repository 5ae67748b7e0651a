"""A login that a person confirms in a browser. Spec: RFC 8628."""

from __future__ import annotations

import json
import time
from urllib.parse import urlencode

from client.auth import CLIENT_ID
from client.credentials import Credential, FileKeychain, FixedKeychain
from client.errors import ProtocolError, Unauthorized
from client.login import LoggedIn
from client.remote import Registry
from client.transport import fail
from ocispec.value import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from client.transport import Transport

GRANT = "urn:ietf:params:oauth:grant-type:device_code"
MAX_ANSWER = 1 << 20


@value
class DeviceCode:
    """What the person is told: the page, and the code that it must show."""

    page: str
    code: str


def login_by_device(
    registry: str,
    transport: Transport,
    keychain: FileKeychain,
    tell: Callable[[DeviceCode], None],
    sleep: Callable[[float], None] = time.sleep,
) -> LoggedIn:
    """Wait until a person confirmed, then store the identity token.

    Raises: Unauthorized if nobody did; RegistryUnavailable; ProtocolError; CredentialsError.
    """
    remote = Registry(registry, transport, FixedKeychain(None))
    begun = _ask(remote, "/token/device", {"client_id": CLIENT_ID})
    try:
        told = DeviceCode(
            page=_text(begun, "verification_uri_complete"), code=_text(begun, "user_code")
        )
        interval, lasts = float(begun["interval"]), float(begun["expires_in"])
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError(f"{registry} sent no device code", registry=registry) from error
    interval, lasts = min(max(interval, 1.0), 60.0), min(lasts, 3600.0)
    tell(told)
    form = {
        "grant_type": GRANT,
        "device_code": str(begun.get("device_code", "")),
        "client_id": CLIENT_ID,
    }
    waited = 0.0
    while waited < lasts:
        sleep(interval)
        waited += interval
        answer = _ask(remote, "/token", form)
        problem = answer.get("error")
        if problem == "slow_down":
            interval += 5
        elif problem is None:
            token = Credential(
                username=_text(answer, "account"), identity_token=_text(answer, "refresh_token")
            )
            return LoggedIn(where=keychain.store(registry, token), is_token=True)
        elif problem != "authorization_pending":
            break
    raise Unauthorized(f"{registry}: the login was not confirmed", registry=registry)


def _ask(remote: Registry, path: str, form: dict[str, str]) -> dict[str, Any]:
    with remote.transport.request(
        "POST",
        remote.origin,
        path,
        headers={"Content-Type": "application/x-www-form-urlencoded"},
        body=urlencode(form).encode(),
        follow=False,
        attempts=1,
    ) as response:
        if response.status not in (200, 400):
            raise fail(response, f"login to {remote.name}", remote.name)
        raw = response.read(MAX_ANSWER, "a login", 60.0)
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or (response.status == 400 and "error" not in document):
        raise ProtocolError(
            f"{remote.name} knows no login by device", registry=remote.name, status=response.status
        )
    return document


def _text(document: dict[str, Any], name: str) -> str:
    text = document.get(name)
    if not isinstance(text, str) or not text.isascii() or not text.isprintable() or not text:
        raise ProtocolError(f"the registry's answer has no usable {name}")
    return text
