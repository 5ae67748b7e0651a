"""The words between a container's init and the process that started it."""

from __future__ import annotations

import os

import pytest

from runtime.container.channel import EXEC, GO, READY, Channel, Failure, PeerLost


@pytest.fixture
def channel():
    made = Channel()
    yield made
    for fd in (made.report_read, made.report_write, made.order_read, made.order_write):
        try:
            os.close(fd)
        except OSError:
            pass


def test_reports_and_orders(channel: Channel) -> None:
    channel.report(READY)
    assert channel.next_report(READY) is None
    channel.order(GO)
    channel.wait_for(GO)


def test_a_failure_arrives_whole(channel: Channel) -> None:
    failure = Failure("MountRoot", 22, "Invalid argument: ü")
    channel.report_failure(failure)
    assert channel.next_report(READY) == failure


def test_a_huge_failure_is_cut(channel: Channel) -> None:
    channel.report_failure(Failure("AttachSource", 2, "x" * 100_000))
    found = channel.next_report(READY)
    assert found is not None
    assert 1000 < len(found.message) <= 16 << 10


def test_a_dead_peer_is_noticed_on_both_sides(channel: Channel) -> None:
    os.close(channel.report_write)
    with pytest.raises(PeerLost):
        channel.next_report(EXEC)
    os.close(channel.order_write)
    with pytest.raises(PeerLost):
        channel.wait_for(GO)
