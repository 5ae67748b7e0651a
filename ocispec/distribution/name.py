"""Repository names and tags."""

from __future__ import annotations

import re

from ocispec import grammar
from ocispec.errors import InvalidName
from ocispec.value import value


@value
class RepositoryName:
    """The path of a repository inside its registry, such as `omrisiri/wget`.

    text: components of lower-case letters, digits and single separators, at most 255 characters
    together; the registry's host is not part of it and not counted.

    The constructor checks like `parse`. Spec: distribution-spec, "Pulling manifests", `<name>`.
    """

    text: str

    def __post_init__(self) -> None:
        _check_repository(self.text)

    @classmethod
    def parse(cls, text: str) -> RepositoryName:
        """Raises: InvalidName"""
        return cls(text)

    @property
    def components(self) -> tuple[str, ...]:
        return tuple(self.text.split("/"))

    def __str__(self) -> str:
        return self.text


@value
class Tag:
    """A name for one manifest at a time. Case matters.

    text: 1 to 128 letters, digits, `_`, `.` and `-`, not starting with `.` or `-`.

    The constructor checks like `parse`. Spec: distribution-spec, "Pulling manifests", `<tag>`.
    """

    text: str

    def __post_init__(self) -> None:
        if not re.fullmatch(grammar.TAG, self.text):
            raise InvalidName(
                f"{shorten(self.text)} is not a tag",
                hint="a tag has 1 to 128 letters, digits, '_', '.' or '-', "
                "and does not start with '.' or '-'",
            )

    @classmethod
    def parse(cls, text: str) -> Tag:
        """Raises: InvalidName"""
        return cls(text)

    def __str__(self) -> str:
        return self.text


def shorten(text: str) -> str:
    """Input as it may be shown in a message: quoted, escaped, not endless."""
    return ascii(text if len(text) <= 100 else text[:100] + "...")


def _check_repository(text: str) -> None:
    if len(text) > grammar.NAME_MAX:
        raise InvalidName(
            f"repository name {shorten(text)} has {len(text)} characters, "
            f"the limit is {grammar.NAME_MAX}"
        )
    if re.fullmatch(grammar.NAME, text):
        return
    if not text:
        raise InvalidName("the repository name is empty")
    if re.fullmatch(grammar.NAME, text.lower()):
        raise InvalidName(
            f"repository name {shorten(text)} must be lowercase", hint=f"write {text.lower()}"
        )
    raise InvalidName(
        f"{shorten(text)} is not a repository name",
        hint="components of a-z and 0-9, joined inside by '.', '_', '__' or '-', separated by '/'",
    )
