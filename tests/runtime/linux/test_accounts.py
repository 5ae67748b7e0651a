"""`--user` against passwd and group files that an attacker wrote."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import EngineError
from runtime.linux import accounts
from runtime.linux.accounts import AccountUnknown, Identity, InvalidAccount

PASSWD = accounts.parse_passwd(
    b"""root:x:0:0:root:/root:/bin/sh
daemon:x:1:1::/usr/sbin:/usr/sbin/nologin
www:x:33:34:web:/var/www:/bin/false
1000:x:0:0:trap:/root:/bin/sh
big:x:4294967296:0:wraps:/:/bin/sh
half:x:2147483648:0:wraps:/:/bin/sh
negative:x:-1:0::/:/bin/sh
wordy:x:zero:0::/:/bin/sh
empty:x:::::
short:x:7:7
twice:x:50:50::/first:/bin/sh
twice:x:51:51::/second:/bin/sh
relative:x:60:60::home:/bin/sh
+nis:x:0:0::/:/bin/sh
# comment:x:0:0::/:/bin/sh
"""
)
GROUP = accounts.parse_group(
    b"""root:x:0:
daemon:x:1:www
web:x:34:www
staff:x:50:www,other,twice
2000:x:0:
wheel:x:10:root
huge:x:4294967295:www
"""
)


@pytest.mark.parametrize(
    ("user", "uid", "gid", "groups", "home"),
    [
        ("", 0, 0, (0, 10), "/root"),
        ("root", 0, 0, (0, 10), "/root"),
        ("0", 0, 0, (0, 10), "/root"),
        ("daemon", 1, 1, (1,), "/usr/sbin"),
        ("1", 1, 1, (1,), "/usr/sbin"),  # CVE-2026-30892
        ("www", 33, 34, (34, 1, 50), "/var/www"),  # CVE-2022-36109: its own group is in the list
        ("33", 33, 34, (34, 1, 50), "/var/www"),
        ("www:staff", 33, 50, (50,), "/var/www"),
        ("www:50", 33, 50, (50,), "/var/www"),
        ("33:777", 33, 777, (777,), "/var/www"),
        ("1000", 1000, 0, (0,), "/"),  # CVE-2016-3697: digits are never a name
        ("1000:2000", 1000, 2000, (2000,), "/"),
        ("twice", 50, 50, (50,), "/first"),
        ("60", 60, 60, (60,), "/"),
        ("2147483647", 2147483647, 0, (0,), "/"),
        ("007", 7, 0, (0,), "/"),
        (":staff", 0, 50, (50,), "/root"),
        ("www:", 33, 34, (34, 1, 50), "/var/www"),
    ],
)
def test_the_matrix(user: str, uid: int, gid: int, groups: tuple[int, ...], home: str) -> None:
    found = accounts.resolve(user, PASSWD, GROUP)
    assert (found.uid, found.gid, found.groups, found.home) == (uid, gid, groups, home)


@pytest.mark.parametrize(
    "user",
    [
        "4294967296", "2147483648", "99999999999999999999", "9" * 5000,  # CVE-2024-40635
        "-1", "+1000", " 0", "0 ", "0x0", "0X10", "1000\n", "\t1",  # CVE-2026-46680
        "a:b:c", "1:-1", "1:4294967296", "1:0x1", ":",
    ],
)  # fmt: skip
def test_what_looks_like_a_number_but_is_none_is_an_error(user: str) -> None:
    with pytest.raises(InvalidAccount):
        accounts.resolve(user, PASSWD, GROUP)


@pytest.mark.parametrize(
    "user",
    ["nobody", "big", "half", "negative", "wordy", "empty", "short", "nis", "www:nope", "1:huge",
     "١٠٠"],
)  # fmt: skip
def test_unknown_or_malformed_entries_are_not_found(user: str) -> None:
    with pytest.raises(AccountUnknown):
        accounts.resolve(user, PASSWD, GROUP)


def test_without_files_numbers_still_work_and_root_is_the_default() -> None:
    assert accounts.resolve("", (), ()) == Identity(0, 0, (0,), "/", "")
    assert accounts.resolve("12:34", (), ()) == Identity(12, 34, (34,), "/", "")


def test_group_add_by_name_and_number() -> None:
    found = accounts.resolve("1", PASSWD, GROUP, ["staff", "777", "1"])
    assert found.groups == (1, 50, 777)
    with pytest.raises(AccountUnknown):
        accounts.resolve("1", PASSWD, GROUP, ["nope"])


def test_errors_are_dockers_exit_status() -> None:
    assert AccountUnknown.exit_status == InvalidAccount.exit_status == 126


def test_only_a_bounded_part_of_a_file_is_parsed() -> None:
    content = b"a:x:1:1::/:/bin/sh\n" + b"x" * accounts.MAX_BYTES + b"\nb:x:2:2::/:/bin/sh\n"
    assert [entry.name for entry in accounts.parse_passwd(content)] == ["a"]


@given(st.binary(max_size=400), st.binary(max_size=400), st.text(max_size=20))
def test_arbitrary_bytes_raise_only_engine_errors_and_never_leave_the_range(
    passwd: bytes, group: bytes, user: str
) -> None:
    try:
        found = accounts.resolve(user, accounts.parse_passwd(passwd), accounts.parse_group(group))
    except EngineError:
        return
    assert all(0 <= n <= accounts.MAX_ID for n in (found.uid, found.gid, *found.groups))
    assert found.gid == found.groups[0]


names = st.text("abcdefgh_-", min_size=1, max_size=8).filter(lambda n: n[0] not in "-_")


@given(st.dictionaries(names, st.integers(0, accounts.MAX_ID), max_size=8))
def test_every_well_formed_line_is_found(users: dict[str, int]) -> None:
    content = "".join(f"{name}:x:{uid}:5::/h:/s\n" for name, uid in users.items()).encode()
    parsed = accounts.parse_passwd(content)
    for name, uid in users.items():
        assert accounts.resolve(name, parsed, ()).uid == uid
