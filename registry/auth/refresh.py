"""Refresh tokens: what `docker login` keeps instead of the password.

Random, so nothing to forge; stored as a hash, so a copy of the database logs nobody in. They end by
expiry, by a new password, by disabling or removing the account, or by revoking them.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable

from registry.metadata.base import Credentials, RefreshToken

DEFAULT_LIFETIME_S = 90 * 24 * 3600

# So that secret scanners and people recognise one.
_PREFIX = "pyreg_refresh_"
_MAX_CHARACTERS = 256
_MAX_CLIENT_ID = 200


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

    async def issue(self, account: str, client_id: str) -> str:
        """A new token for one device of an account. Raises: AccountUnknown."""
        text = _PREFIX + secrets.token_urlsafe(32)
        now = int(self._clock())
        token = RefreshToken(account, client_id[:_MAX_CLIENT_ID], now, now + self._lifetime_s)
        await self._credentials.add_refresh_token(_hash(text), token)
        return text

    async def redeem(self, text: str) -> RefreshToken | None:
        """Whose token this is; None if it is not one, or not any more. It stays valid."""
        if len(text) > _MAX_CHARACTERS or not text.startswith(_PREFIX):
            return None
        return await self._credentials.find_refresh_token(_hash(text))


def _hash(text: str) -> str:
    # The token has 256 random bits: nothing to guess, so no slow hash is needed.
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
