"""The root of every error that the registry declares."""

from __future__ import annotations


class RegistryError(Exception):
    """`str(error)` is one line for a person; `hint` says what to try, or is empty."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
