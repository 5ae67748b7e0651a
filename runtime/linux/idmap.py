"""Which user and group ids a user namespace has, and writing that down for the kernel.

A plain user may map only themself, to one id. More needs a range that the administrator set aside
in /etc/subuid and /etc/subgid, and the setuid programs newuidmap and newgidmap to write it. Where
either is missing we fall back to the single map and say what that costs.
"""

from __future__ import annotations

import os

from ocispec.value import value
from runtime.errors import EngineError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAX_RANGES = 340  # the kernel's limit of lines since 4.15
MAX_SUBID_BYTES = 1024 * 1024
_IDS = 1 << 32


class MappingFailed(EngineError):
    """The kernel or newuidmap refused a map."""


@value
class IdRange:
    """`count` ids from `inside` on are `outside` and following in the parent namespace."""

    inside: int
    outside: int
    count: int

    def __post_init__(self) -> None:
        if self.inside < 0 or self.outside < 0 or self.count < 1:
            raise MappingFailed(f"invalid id range {self.inside}:{self.outside}:{self.count}")
        if self.inside + self.count > _IDS or self.outside + self.count > _IDS:
            raise MappingFailed(f"id range {self.inside}:{self.outside}:{self.count} is too long")


@value
class IdMaps:
    """Both maps of a namespace and how they can be written."""

    uids: tuple[IdRange, ...]
    gids: tuple[IdRange, ...]
    by_helper: bool  # newuidmap and newgidmap have to write them
    note: str = ""  # a sentence for the user on what is missing; "" if nothing is

    @property
    def is_single(self) -> bool:
        return all(sum(r.count for r in ranges) == 1 for ranges in (self.uids, self.gids))


def parse_subids(content: bytes, name: str, number: int) -> tuple[tuple[int, int], ...]:
    """(first id, count) of a user's lines in subuid(5) or subgid(5), by name or uid; bad lines are
    passed over."""
    found = []
    for line in content.decode("utf-8", "replace").split("\n"):
        fields = line.strip().split(":")
        if len(fields) != 3 or fields[0] not in (name, str(number)):
            continue
        if not all(f.isascii() and f.isdigit() and len(f) <= 10 for f in fields[1:]):
            continue
        first, count = int(fields[1]), int(fields[2])
        if count and first + count <= _IDS:
            found.append((first, count))
    return tuple(found)


def single(uid: int, gid: int, note: str = "") -> IdMaps:
    """Root inside is this user outside, and nobody else exists."""
    return IdMaps((IdRange(0, uid, 1),), (IdRange(0, gid, 1),), by_helper=False, note=note)


def plan_rootless(
    uid: int,
    gid: int,
    subuids: Sequence[tuple[int, int]],
    subgids: Sequence[tuple[int, int]],
    *,
    helpers: bool,
) -> IdMaps:
    """The maps for an ordinary user: root is themself, 1 and up are their subordinate ids."""
    missing = []
    if not helpers:
        missing.append("the programs newuidmap and newgidmap (Debian: package uidmap)")
    if not subuids or not subgids:
        missing.append("a range in /etc/subuid and /etc/subgid")
    if missing:
        return single(
            uid,
            gid,
            f"only one user and group exist in the container: this host lacks "
            f"{' and '.join(missing)}; files of other owners in the image belong to root",
        )
    return IdMaps(_from_one(uid, subuids), _from_one(gid, subgids), by_helper=True)


def _from_one(own: int, ranges: Sequence[tuple[int, int]]) -> tuple[IdRange, ...]:
    out = [IdRange(0, own, 1)]
    inside = 1
    for first, count in ranges[: MAX_RANGES - 1]:
        out.append(IdRange(inside, first, count))
        inside += count
    return tuple(out)


def of_this_user(name: str) -> IdMaps:
    """`plan_rootless` with what this host has; `name` is the login name, for /etc/subuid."""
    uid, gid = os.getuid(), os.getgid()
    return plan_rootless(
        uid,
        gid,
        parse_subids(_read("/etc/subuid"), name, uid),
        parse_subids(_read("/etc/subgid"), name, uid),
        helpers=all(find_helper(program) for program in ("newuidmap", "newgidmap")),
    )


def of_caller() -> IdMaps | None:
    """The maps for containers of this process's user; None for root, who needs no namespace."""
    if os.geteuid() == 0:
        return None
    import pwd

    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = ""
    return of_this_user(name)


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(MAX_SUBID_BYTES)
    except OSError:
        return b""


def find_helper(program: str) -> str:
    """The path of newuidmap or newgidmap in the system's directories, "" if absent.

    PATH is not asked: the program is setuid root and belongs to the system.
    """
    for directory in ("/usr/bin", "/usr/local/bin", "/bin", "/usr/sbin"):
        path = f"{directory}/{program}"
        if os.access(path, os.X_OK):
            return path
    return ""


def format_map(ranges: Iterable[IdRange]) -> str:
    """The text of /proc/PID/uid_map."""
    return "".join(f"{r.inside} {r.outside} {r.count}\n" for r in ranges)


def write(pid: int, maps: IdMaps) -> None:
    """Give the new user namespace of a process its maps; once, before it uses any id.

    Called from outside the namespace. Raises: MappingFailed.
    """
    if maps.by_helper:
        _run_helper("newuidmap", pid, maps.uids)
        _run_helper("newgidmap", pid, maps.gids)
        return
    directory = f"/proc/{pid}"
    try:
        if maps.is_single and os.geteuid() != 0:
            # Without it a user could leave a group that is there to forbid them something.
            _write_file(f"{directory}/setgroups", "deny")
        _write_file(f"{directory}/uid_map", format_map(maps.uids))
        _write_file(f"{directory}/gid_map", format_map(maps.gids))
    except OSError as error:
        raise MappingFailed(
            f"cannot map ids into the user namespace: {error}",
            hint="more than one id needs root, or newuidmap and a range in /etc/subuid",
        ) from error


def _write_file(path: str, text: str) -> None:
    """In one write, as the kernel demands of maps."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode("ascii"))
    finally:
        os.close(fd)


def _run_helper(program: str, pid: int, ranges: Iterable[IdRange]) -> None:
    path = find_helper(program)
    if not path:
        raise MappingFailed(f"{program} is not installed", hint="Debian: apt install uidmap")
    numbers = [str(n) for r in ranges for n in (r.inside, r.outside, r.count)]
    child = os.posix_spawn(path, [program, str(pid), *numbers], {})
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status != 0:
        raise MappingFailed(
            f"{program} failed with status {status}",
            hint="compare its message above with /etc/subuid and /etc/subgid",
        )
