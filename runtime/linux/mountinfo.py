"""The mount table of a process: /proc/PID/mountinfo as values (proc_pid_mountinfo(5))."""

from __future__ import annotations

import os

from ocispec.value import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# The kernel allows 100,000 mounts a namespace (fs.mount-max); 64 MiB hold them with long names.
MAX_BYTES = 64 * 1024 * 1024


class InvalidMountinfo(ValueError):
    """A line that is not one of mountinfo."""


@value
class Mount:
    """One line. Paths are decoded; bytes outside UTF-8 are kept as surrogates."""

    id: int
    parent: int
    device: tuple[int, int]  # major, minor
    root: str  # the part of the file system that is mounted: "/" or a bind source
    target: str  # where, seen from the root of the process
    options: tuple[str, ...]  # of this mount: ro, nosuid, relatime …
    tags: tuple[str, ...]  # shared:N, master:N, propagate_from:N, unbindable
    fstype: str
    source: str
    super_options: tuple[str, ...]  # of the file system

    @property
    def is_shared(self) -> bool:
        return any(tag.startswith("shared:") for tag in self.tags)

    @property
    def is_read_only(self) -> bool:
        return "ro" in self.options


def parse_line(line: str) -> Mount:
    """Raises: InvalidMountinfo."""
    fields = line.split(" ")
    try:
        dash = fields.index("-", 6)
        fstype, source, super_options = fields[dash + 1 : dash + 4]
        major, _, minor = fields[2].partition(":")
        return Mount(
            id=int(fields[0]),
            parent=int(fields[1]),
            device=(int(major), int(minor)),
            root=unescape(fields[3]),
            target=unescape(fields[4]),
            options=tuple(fields[5].split(",")),
            tags=tuple(fields[6:dash]),
            fstype=unescape(fstype),
            source=unescape(source),
            super_options=tuple(unescape(super_options).split(",")),
        )
    except (ValueError, IndexError) as error:
        raise InvalidMountinfo(f"not a line of mountinfo: {line[:200]!r}") from error


def parse(text: str) -> tuple[Mount, ...]:
    """All lines, in the kernel's order: a mount comes after the one it is on."""
    return tuple(parse_line(line) for line in text.split("\n") if line)


def read(path: str = "/proc/self/mountinfo") -> tuple[Mount, ...]:
    with open(path, "rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise InvalidMountinfo(f"{path} is longer than {MAX_BYTES} bytes")
    return parse(os.fsdecode(content))


def unescape(field: str) -> str:
    r"""Undo the kernel's octal escapes: `\040` is a space; other backslashes stay."""
    first, *rest = field.split("\\")
    if not rest:
        return field
    out = [first]
    for part in rest:
        code = part[:3]
        if len(code) == 3 and all(digit in "01234567" for digit in code) and int(code, 8) < 128:
            out += chr(int(code, 8)), part[3:]
        else:
            out += "\\", part
    return "".join(out)


def at(mounts: Iterable[Mount], target: str) -> Mount | None:
    """The topmost mount exactly at `target`, if any."""
    found = None
    for mount in mounts:
        if mount.target == target:
            found = mount
    return found


def holding(mounts: Iterable[Mount], path: str) -> Mount | None:
    """The mount that an absolute path without links lies on: the longest target, the latest one."""
    found = None
    for mount in mounts:
        inside = path == mount.target or path.startswith(mount.target.rstrip("/") + "/")
        if inside and (found is None or len(mount.target) >= len(found.target)):
            found = mount
    return found


def below(mounts: Iterable[Mount], path: str) -> tuple[Mount, ...]:
    """The mounts at or under an absolute path, the latest first: the order to unmount in."""
    prefix = path.rstrip("/") + "/"
    found = [m for m in mounts if m.target == path or m.target.startswith(prefix)]
    return tuple(reversed(found))
