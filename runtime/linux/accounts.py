"""Who a container's process is: `--user` looked up in the image's passwd and group files.

Pure: the bytes of the files come in as arguments (read them with `safeopen.read_in_root` and
MAX_BYTES), no name service is asked, since that would run the image's code as us.

The image wrote those files, so they may lie about names but never about numbers:

- digits are always an id, never a name (CVE-2016-3697: a line `1000:x:0:0` made user 1000 root);
- an id is 0 to 2^31-1, and what looks like a number in another way (`-1`, `+1000`, ` 0`, `0x0`,
  4294967296) is an error, not something that wraps to 0 (CVE-2024-40635, CVE-2026-46680);
- a user without a group gets the group of their passwd line, and 0 without such a line, as Docker
  does (CVE-2026-30892 read `1` as 0:0);
- the primary group is always among the supplementary ones too (CVE-2022-36109).
"""

from __future__ import annotations

from ocispec.value import value
from runtime.errors import EngineError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAX_BYTES = 8 * 1024 * 1024  # of a passwd or group file; a hundred thousand users fit
MAX_ID = (1 << 31) - 1
MAX_GROUPS = 65536  # NGROUPS_MAX


class AccountUnknown(EngineError):
    """The image has no such user or group."""

    exit_status = 126  # what docker run ends with


class InvalidAccount(EngineError):
    """A `--user` that is no name and no id."""

    exit_status = 126


@value
class PasswdEntry:
    name: str
    uid: int
    gid: int
    home: str
    shell: str


@value
class GroupEntry:
    name: str
    gid: int
    members: tuple[str, ...]


@value
class Identity:
    """What to become. `groups` is sorted as found, without repetition, `gid` first."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str  # "/" if the image does not say
    name: str  # "" if the image has no line for the uid


def parse_passwd(content: bytes) -> tuple[PasswdEntry, ...]:
    """The lines that are well formed; others, comments and NIS lines are passed over."""
    entries = []
    for name, fields in _lines(content):
        if len(fields) < 7:
            continue
        uid, gid = _id(fields[2]), _id(fields[3])
        if uid is not None and gid is not None:
            entries.append(PasswdEntry(name, uid, gid, fields[5], fields[6]))
    return tuple(entries)


def parse_group(content: bytes) -> tuple[GroupEntry, ...]:
    """The lines that are well formed; others, comments and NIS lines are passed over."""
    entries = []
    for name, fields in _lines(content):
        if len(fields) < 4:
            continue
        gid = _id(fields[2])
        if gid is not None:
            members = tuple(member for member in fields[3].split(",") if member)
            entries.append(GroupEntry(name, gid, members))
    return tuple(entries)


def _lines(content: bytes) -> Iterable[tuple[str, list[str]]]:
    for line in content[:MAX_BYTES].decode("utf-8", "surrogateescape").split("\n"):
        fields = line.strip().split(":")
        if fields[0] and fields[0][0] not in "#+-":
            yield fields[0], fields


def _id(text: str) -> int | None:
    """The number if it is written in ASCII digits and in range, else None."""
    if not _is_digits(text) or len(text) > 10:
        return None
    number = int(text)
    return number if number <= MAX_ID else None


def _is_digits(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _id_or_name(text: str, what: str) -> int | None:
    """The id that the text writes, None if it is a name. Raises: InvalidAccount for traps."""
    if _is_digits(text):
        number = _id(text.lstrip("0") or "0")
        if number is None:
            raise InvalidAccount(
                f"{what} {text} is out of range", hint=f"ids go from 0 to {MAX_ID}"
            )
        return number
    looks_numeric = text[:1] in "+-" or (text[:2].lower() == "0x")
    if looks_numeric or any(c.isspace() or c in ":," or ord(c) < 32 for c in text):
        raise InvalidAccount(
            f"{text!r} is neither the name nor the number of a {what}",
            hint="write name, uid, name:group or uid:gid",
        )
    return None


def resolve(
    user: str,
    passwd: Sequence[PasswdEntry],
    group: Sequence[GroupEntry],
    additional: Sequence[str] = (),
) -> Identity:
    """The identity that `user[:group]` means in an image; "" is root.

    `additional` are the names and ids of `--group-add`. With an explicit group the user's other
    groups do not apply. The first matching line wins.

    Raises: AccountUnknown for a name the image does not have, InvalidAccount for what is neither a
    name nor an id.
    """
    user_text, colon, group_text = user.partition(":")
    if ":" in group_text or (colon and not group_text and not user_text):
        raise InvalidAccount(f"{user!r} is not user, user:group or :group")
    wanted = _id_or_name(user_text, "user") if user_text else 0
    entry = next(
        (e for e in passwd if (e.uid == wanted if wanted is not None else e.name == user_text)),
        None,
    )
    if entry is None and wanted is None:
        raise AccountUnknown(
            f"unable to find user {user_text}: no matching entries in passwd file",
            hint="use a numeric id, or a user that the image has in /etc/passwd",
        )
    uid = entry.uid if entry is not None else wanted or 0
    gid = entry.gid if entry is not None else 0
    groups: list[int] = []
    if group_text:
        gid = group_id(group_text, group)
    elif entry is not None:
        groups = [g.gid for g in group if entry.name in g.members]
    groups = [gid, *groups, *(group_id(text, group) for text in additional)]
    unique = tuple(dict.fromkeys(groups))
    if len(unique) > MAX_GROUPS:
        raise InvalidAccount(f"user {user!r} is in more than {MAX_GROUPS} groups")
    home = entry.home if entry is not None and entry.home.startswith("/") else "/"
    return Identity(uid, gid, unique, home, entry.name if entry is not None else "")


def group_id(text: str, group: Sequence[GroupEntry]) -> int:
    """The id of a group by name or number. Raises: AccountUnknown, InvalidAccount."""
    number = _id_or_name(text, "group")
    if number is not None:
        return number
    for entry in group:
        if entry.name == text:
            return entry.gid
    raise AccountUnknown(
        f"unable to find group {text}: no matching entries in group file",
        hint="use a numeric id, or a group that the image has in /etc/group",
    )
