"""What can be wrong with input written in the words of the specs.

SpecError                 base; `hint` says what to try
├── InvalidDigest         not `algorithm:hex`, or an algorithm we do not know
├── InvalidName           a repository, tag or reference outside the grammar
├── InvalidMediaType
├── InvalidDocument       JSON of a manifest, index, config or layout breaks its schema
├── InvalidHeader         Range, Content-Range, Link, WWW-Authenticate
├── InvalidScope
└── DigestMismatch        bytes do not hash to what they were said to be
"""

from __future__ import annotations


class SpecError(ValueError):
    """Input that the specs do not allow. `str(error)` is one line for a person."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class InvalidDigest(SpecError):
    pass


class InvalidName(SpecError):
    pass


class InvalidMediaType(SpecError):
    pass


class InvalidDocument(SpecError):
    """`problems` lists everything found wrong, not only the first."""

    def __init__(self, message: str, *, problems: tuple[str, ...] = (), hint: str = "") -> None:
        super().__init__(f"{message}: {'; '.join(problems)}" if problems else message, hint=hint)
        self.problems = problems


class InvalidHeader(SpecError):
    pass


class InvalidScope(SpecError):
    pass


class DigestMismatch(SpecError):
    """Bytes that are not what they were said to be."""

    def __init__(self, *, expected: object, found: object, what: str = "content") -> None:
        super().__init__(f"{what} has digest {found}, expected {expected}")
        self.expected = expected
        self.found = found
