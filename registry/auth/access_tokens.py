"""Personal access tokens: what people and robots log in with from scripts.

256 random bits behind a prefix that secret scanners and people recognise. Only a hash is stored;
the secret is shown once. A token never allows more than its owner may at the time it is used.
"""

from __future__ import annotations

import hashlib
import secrets
import time

from registry.auth.rules import Limit
from registry.errors import PolicyInvalid
from registry.metadata.base import AccessToken, AccessTokens, Account

PREFIX = "pyreg_pat_"
_MAX_CHARACTERS = 256

# How long before its end whoever uses a token is told.
WARN_BEFORE_S = 7 * 24 * 3600


def is_access_token(text: str) -> bool:
    """Whether a password, or a bearer token, is meant as one."""
    return text.startswith(PREFIX)


def hash_of(text: str) -> str:
    """What is stored. Nothing can be guessed of so many random bits: no slow hash is needed."""
    return hashlib.sha256(text[:_MAX_CHARACTERS].encode("utf-8", "surrogateescape")).hexdigest()


async def create(
    tokens: AccessTokens,
    account: str,
    *,
    label: str = "",
    limit: Limit | None = None,
    expires_in_s: int | None = None,
) -> tuple[str, AccessToken]:
    """A new token, and its secret, which is never shown again.

    Raises: AccountUnknown; PolicyInvalid.
    """
    if expires_in_s is not None and expires_in_s <= 0:
        raise PolicyInvalid("a token expires in the future", hint="say in how many days")
    text = PREFIX + secrets.token_urlsafe(32)
    expires_at = None if expires_in_s is None else int(time.time()) + expires_in_s
    token = await tokens.add(
        account, hash_of(text), label=label, limit=limit or Limit(), expires_at=expires_at
    )
    return text, token


def expiry_warning(account: Account | None, now: float) -> str:
    """What to tell somebody whose access token ends soon, in ASCII without quotes; or empty."""
    token = account.token if account is not None else None
    if token is None or token.expires_at is None or token.expires_at - now > WARN_BEFORE_S:
        return ""
    until = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(token.expires_at))
    return f"access token {token.id} of {token.account} ends at {until}: make another one"
