from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.linux import flags, netlink, syscalls
from runtime.linux.netlink import InvalidMessage
from tests.runtime.linux.forked import in_child


def test_the_bytes_that_switch_loopback_on() -> None:
    assert netlink.link_up(1) == bytes.fromhex(
        "20000000 1000 0500 00000000 00000000"  # 32 bytes, RTM_NEWLINK, REQUEST|ACK
        "00 00 0000 01000000 01000000 01000000"  # interface 1, flags UP, change UP
    )


def test_attributes_are_padded_but_say_their_true_length() -> None:
    assert netlink.text(3, "eth0") == struct.pack("=HH", 9, 3) + b"eth0\0" + bytes(3)
    assert netlink.number(4, 1500) == struct.pack("=HHI", 8, 4, 1500)
    inner = netlink.text(1, "veth")
    assert netlink.nested(18, inner) == struct.pack("=HH", 16, 18 | 0x8000) + inner


def test_cve_2021_43784_a_long_attribute_is_an_error_instead_of_wrapping() -> None:
    with pytest.raises(InvalidMessage, match="too long"):
        netlink.text(3, "x" * 70_000)
    with pytest.raises(InvalidMessage):
        netlink.text(3, "a\0b")


@given(st.lists(st.tuples(st.integers(0, 0xFFFF), st.binary(max_size=50), st.integers(0, 99))))
def test_what_is_built_is_parsed_back(some: list[tuple[int, bytes, int]]) -> None:
    data = b"".join(netlink.message(kind, 0, body, number) for kind, body, number in some)
    assert netlink.parse(data) == tuple((kind, number, body) for kind, body, number in some)


@given(st.binary(max_size=100))
def test_arbitrary_bytes_raise_only_the_declared_error(data: bytes) -> None:
    try:
        netlink.parse(data)
    except InvalidMessage:
        pass


def _flags_of(interface: str) -> int:
    return int(Path(f"/sys/class/net/{interface}/flags").read_text(), 16)


@pytest.mark.root
def test_loopback_in_a_new_namespace_comes_up() -> None:
    def inside() -> tuple[bool, bool]:
        syscalls.unshare(flags.CLONE_NEWNET | flags.CLONE_NEWNS)
        syscalls.mount("none", "/", "", flags.MS_REC | flags.MS_PRIVATE)
        syscalls.mount("sysfs", "/sys", "sysfs")
        before = _flags_of("lo") & netlink.IFF_UP
        netlink.loopback_up()
        return bool(before), bool(_flags_of("lo") & netlink.IFF_UP)

    assert in_child(inside) == (False, True)


@pytest.mark.root
def test_a_batch_with_a_pair_of_interfaces_and_an_error_that_says_what_was_asked() -> None:
    peer = netlink.link_header() + netlink.text(netlink.IFLA_IFNAME, "inner0")
    veth = (
        netlink.link_header()
        + netlink.text(netlink.IFLA_IFNAME, "outer0")
        + netlink.nested(
            netlink.IFLA_LINKINFO,
            netlink.text(netlink.IFLA_INFO_KIND, "veth"),
            netlink.nested(netlink.IFLA_INFO_DATA, netlink.nested(1, peer)),
        )
    )
    create = netlink.message(
        netlink.RTM_NEWLINK, netlink.NLM_F_ACK | netlink.NLM_F_CREATE | netlink.NLM_F_EXCL, veth
    )

    def inside() -> tuple[list[str], str, int]:
        syscalls.unshare(flags.CLONE_NEWNET | flags.CLONE_NEWNS)
        syscalls.mount("none", "/", "", flags.MS_REC | flags.MS_PRIVATE)
        syscalls.mount("sysfs", "/sys", "sysfs")
        with netlink.RouteSocket() as route:
            route.request("make a pair", [create, netlink.link_up(1)])
            names = sorted(os.listdir("/sys/class/net"))
            try:
                route.request("make it again", [create])
            except OSError as error:
                return names, str(error), len(os.listdir("/proc/self/fd"))
        return names, "", 0

    names, message, _ = in_child(inside)
    assert {"inner0", "lo", "outer0"} <= set(names)
    assert "make it again: File exists" in message
