"""Sessions: refresh tokens, what `docker login` keeps instead of the password. One for a device.

Random, so nothing to forge; stored as a hash, so a copy of the database logs nobody in. They end by
expiry, by a new password, by disabling or removing the account, by logging out, or by taking them
back alone; the access tokens that came of them end with them.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import time
from collections.abc import Callable

from registry.errors import Unavailable
from registry.metadata.base import SESSION_ID, Account, Credentials, RefreshToken

DEFAULT_LIFETIME_S = 90 * 24 * 3600

# So that secret scanners and people recognise one.
_PREFIX = "pyreg_refresh_"
_MAX_CHARACTERS = 256
_MAX_CLIENT_ID = 200

# The last use is kept to this, so that using one costs no write.
_USED_S = 600


class RefreshTokens:
    def __init__(
        self,
        credentials: Credentials,
        *,
        lifetime_s: int = DEFAULT_LIFETIME_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._credentials = credentials
        self._lifetime_s = lifetime_s
        self._clock = clock

    async def issue(
        self, account: str, client_id: str, user_agent: str = ""
    ) -> tuple[str, RefreshToken]:
        """A new token for one device of an account, and its session. Raises: AccountUnknown."""
        text = _PREFIX + secrets.token_urlsafe(32)
        hashed, now = _hash(text), int(self._clock())
        token = RefreshToken(
            account,
            _shown(client_id),
            now,
            now + self._lifetime_s,
            _shown(user_agent),
            id=hashed[:SESSION_ID],
        )
        await self._credentials.add_refresh_token(hashed, token)
        return text, token

    async def redeem(self, text: str) -> RefreshToken | None:
        """Whose token this is; None if it is not one, or not any more. It stays valid."""
        if not _may_be(text):
            return None
        hashed = _hash(text)
        token = await self._credentials.find_refresh_token(hashed)
        if token is not None:
            last = token.last_used_at
            if last is None or self._clock() - last > _USED_S:
                # A registry that cannot write any more still lets people in.
                with contextlib.suppress(Unavailable):
                    await self._credentials.used_refresh_token(hashed)
        return token

    async def holder(self, session: str) -> Account | None:
        """Who has the session of this id, with the session; None if it has ended."""
        return await self._credentials.session_holder(session)

    async def revoke(self, text: str) -> bool:
        """End one by showing it, as logging out does; False if there is nothing to end."""
        if not _may_be(text) or await self._credentials.find_refresh_token(_hash(text)) is None:
            return False
        return await self._credentials.revoke_refresh_token(_hash(text))


def _may_be(text: str) -> bool:
    return len(text) <= _MAX_CHARACTERS and text.startswith(_PREFIX)


def _shown(text: str) -> str:
    """What a device says of itself, fit for a listing."""
    return "".join(c for c in text[:_MAX_CLIENT_ID] if c.isprintable() and ord(c) < 0x2028)


def _hash(text: str) -> str:
    # The token has 256 random bits: nothing to guess, so no slow hash is needed.
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
