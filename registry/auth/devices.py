"""Codes of devices that wait for a person to confirm their login. Spec: RFC 8628.

Both codes are random and stored as hashes. The device's has 256 bits; the person's has eight
letters of twenty (RFC 8628, 6.1), which is enough as whoever tries one must log in each time.
"""

from __future__ import annotations

import hashlib
import re
import secrets

LIFETIME_S = 600

_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"
_PREFIX = "pyreg_device_"


def new_codes() -> tuple[str, str]:
    """(of the device, of the person as `XXXX-XXXX`)."""
    code = "".join(secrets.choice(_LETTERS) for _ in range(8))
    return _PREFIX + secrets.token_urlsafe(32), f"{code[:4]}-{code[4:]}"


def hash_of_device(text: str) -> str:
    return hashlib.sha256(b"device:" + text[:256].encode("utf-8", "surrogateescape")).hexdigest()


def hash_of_user_code(text: str) -> str:
    """As people type it: small letters, blanks and dashes do not matter."""
    bare = re.sub(r"[^A-Z]", "", text[:64].upper())
    return hashlib.sha256(b"user:" + bare.encode()).hexdigest()
