"""Platforms: which manifest of an index fits a machine."""

from __future__ import annotations

import re

from ocispec.errors import InvalidName
from ocispec.value import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Protocol

    from ocispec.descriptor import Descriptor
    from ocispec.jsondoc import Fields

    class HasManifests(Protocol):
        """An image index, as far as choosing from it goes."""

        @property
        def manifests(self) -> tuple[Descriptor, ...]: ...


# Other names for Go's GOARCH values, as `uname -m` and Debian say them: (architecture, variant).
_ALIASES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "arm64v8": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armv7l": ("arm", "v7"),
    "armv8l": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv6l": ("arm", "v6"),
    "armv5l": ("arm", "v5"),
    "armv5tel": ("arm", "v5"),
    "i386": ("386", ""),
    "i486": ("386", ""),
    "i586": ("386", ""),
    "i686": ("386", ""),
    "loongarch64": ("loong64", ""),
    "ppc64el": ("ppc64le", ""),
}
# What a variant left out means, and so what may be left out.
_USUAL_VARIANT = {"arm": "v7", "arm64": "v8", "amd64": "v1"}
_PART = r"[A-Za-z0-9_.-]{1,64}"


@value
class Platform:
    """What a manifest runs on. Spec: image-spec image-index.md, "platform".

    os, architecture: in Go's words (`linux`, `amd64`).
    variant: of the processor, such as `v7` for arm; "" if the architecture has one usual kind.
    os_version, os_features: only Windows images use them; not part of `str`.

    The constructor takes anything, since documents hold anything; `parse` checks.
    """

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Read `os/architecture[/variant]` as people type it: `linux/aarch64` becomes arm64.

        Raises: InvalidName
        """
        parts = text.split("/") if len(text) <= 200 else []
        if not 2 <= len(parts) <= 3 or not all(re.fullmatch(_PART, part) for part in parts):
            raise InvalidName(
                f"{text[:80]!r} is not a platform",
                hint="write os/architecture or os/architecture/variant, such as linux/arm64",
            )
        os, architecture, *rest = (part.lower() for part in parts)
        architecture, variant = _ALIASES.get(architecture, (architecture, ""))
        return cls(os, architecture, rest[0] if rest else variant)

    @classmethod
    def of_machine(cls, machine: str) -> Platform:
        """The Linux platform of a machine named as `uname -m` does."""
        return cls("linux", *_ALIASES.get(machine, (machine, "")))

    @classmethod
    def read(cls, fields: Fields) -> Platform:
        return cls(
            os=fields.text("os"),
            architecture=fields.text("architecture"),
            variant=fields.text("variant"),
            os_version=fields.text("os.version"),
            os_features=fields.texts("os.features"),
        )

    def to_json(self) -> dict[str, object]:
        document: dict[str, object] = {"architecture": self.architecture, "os": self.os}
        if self.os_version:
            document["os.version"] = self.os_version
        if self.os_features:
            document["os.features"] = list(self.os_features)
        if self.variant:
            document["variant"] = self.variant
        return document

    def matches(self, other: Platform) -> bool:
        """Whether both say the same processor and system, said differently or not.

        `linux/arm64` and `linux/arm64/v8` match. A version of the system counts if both have one.
        """
        if self.os_version and other.os_version and self.os_version != other.os_version:
            return False
        return _key(self) == _key(other)

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


def select(index: HasManifests, wanted: Platform) -> Descriptor | None:
    """The entry of an index that a machine should run; None if none fits.

    The best match wins, and the first of equals: the same variant, then older variants of the
    same architecture from new to old, then the 32-bit architecture the processor also runs. If
    no entry names a platform that fits, a single entry that names none at all is taken.
    """
    for candidate in _preferences(wanted):
        for entry in index.manifests:
            if entry.platform is not None and candidate.matches(entry.platform):
                return entry
    unnamed = [entry for entry in index.manifests if entry.platform is None]
    return unnamed[0] if len(unnamed) == 1 and len(index.manifests) == 1 else None


def _preferences(wanted: Platform) -> Iterator[Platform]:
    os, architecture, variant = _key(wanted)
    yield wanted
    older = int(variant[1:]) if re.fullmatch(r"v[1-9]", variant) else 0
    if architecture == "arm":
        for number in range(older - 1, 4, -1):
            yield Platform(os, "arm", f"v{number}", wanted.os_version)
    elif architecture == "arm64":
        for number in range(older - 1, 7, -1):
            yield Platform(os, "arm64", f"v{number}", wanted.os_version)
        for number in (8, 7, 6, 5):
            yield Platform(os, "arm", f"v{number}", wanted.os_version)
    elif architecture == "amd64":
        for number in range(older - 1, 0, -1):
            yield Platform(os, "amd64", f"v{number}", wanted.os_version)
        yield Platform(os, "386", "", wanted.os_version)


def _key(platform: Platform) -> tuple[str, str, str]:
    architecture, variant = platform.architecture.lower(), platform.variant.lower()
    architecture, implied = _ALIASES.get(architecture, (architecture, ""))
    variant = variant or implied or _USUAL_VARIANT.get(architecture, "")
    if variant.isdigit():  # some builders write `8` for `v8`
        variant = f"v{variant}"
    return platform.os.lower(), architecture, variant
