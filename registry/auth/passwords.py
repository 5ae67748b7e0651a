"""Password hashing: argon2id, in threads, with the same cost for users that do not exist."""

from __future__ import annotations

import asyncio
import secrets
from concurrent.futures import ThreadPoolExecutor

import bcrypt
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from registry.errors import AccountInvalid

MIN_CHARACTERS = 8
# Long passphrases are fine; megabytes would only keep a thread busy.
MAX_CHARACTERS = 1024

# OWASP's first choice of parameters. Memory counts here: each thread needs this much at a time.
_MEMORY_KIB = 19 * 1024
_ROUNDS = 2
_LANES = 1

# Bounds the memory and the processors that a flood of logins can take.
_THREADS = 2


def check_password(password: str) -> str:
    """A password as somebody chose it. Raises: AccountInvalid, without repeating it."""
    if not MIN_CHARACTERS <= len(password) <= MAX_CHARACTERS:
        raise AccountInvalid(
            f"a password has {MIN_CHARACTERS} to {MAX_CHARACTERS} characters, "
            f"this one has {len(password)}"
        )
    try:
        password.encode()
    except UnicodeEncodeError:
        raise AccountInvalid("a password must be UTF-8 text") from None
    return password


def random_password() -> str:
    """120 random bits in letters and digits that survive copying."""
    return secrets.token_urlsafe(15)


class Passwords:
    """Hashes and verifies. Closing waits for what runs; harmless twice."""

    def __init__(
        self, *, memory_kib: int = _MEMORY_KIB, rounds: int = _ROUNDS, threads: int = _THREADS
    ) -> None:
        self._hasher = PasswordHasher(time_cost=rounds, memory_cost=memory_kib, parallelism=_LANES)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="passwords")
        self._nobody = ""

    async def hash(self, password: str) -> str:
        """The password's hash in the PHC string format, with a salt of its own."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._hasher.hash, password)

    async def verify(self, stored: str | None, password: str) -> bool:
        """Whether the password has this hash. With None, takes as long and says no."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._verify, stored, password)

    def is_outdated(self, stored: str) -> bool:
        """Whether the hash was made with other parameters than new ones are."""
        return is_bcrypt(stored) or self._hasher.check_needs_rehash(stored)

    def close(self) -> None:
        self._threads.shutdown()

    def _verify(self, stored: str | None, password: str) -> bool:
        if len(password) > MAX_CHARACTERS:
            return False
        if stored is not None and is_bcrypt(stored):
            return _verify_bcrypt(stored, password)
        try:
            self._hasher.verify(stored or self._nobodys_hash(), password)
        except (VerificationError, InvalidHashError):  # wrong, or the row holds no hash of ours
            return False
        return stored is not None

    def _nobodys_hash(self) -> str:
        # Made once, with today's parameters, of a password that nobody knows.
        if not self._nobody:
            self._nobody = self._hasher.hash(secrets.token_hex(32))
        return self._nobody


def is_bcrypt(stored: str) -> bool:
    """Whether a hash came from a htpasswd file; the next login replaces it."""
    return stored.startswith(("$2a$", "$2b$", "$2y$"))


def _verify_bcrypt(stored: str, password: str) -> bool:
    # bcrypt looks at 72 bytes, which is what the program did that made the hash.
    raw = password.encode("utf-8", "surrogateescape")
    if b"\0" in raw:
        return False
    try:
        return bcrypt.checkpw(raw[:72], stored.encode("ascii"))
    except ValueError:  # the row holds something else
        return False
