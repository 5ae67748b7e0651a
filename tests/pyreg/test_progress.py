"""The display of a transfer: its lines, its redrawing, its silence."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client import progress as states
from ocispec.digest import Digest
from pyreg.console import Console
from pyreg.progress import Bars, Lines, display, picture

A, B = Digest.of(b"a"), Digest.of(b"b")


def test_a_bar_looks_like_dockers() -> None:
    assert picture("a1b2c3d4e5f6", states.DOWNLOADING, 25, 100, 100) == (
        "a1b2c3d4e5f6: Downloading [============>                                     ]  25B/100B"
    )
    assert picture("a1b2c3d4e5f6", states.PULLED, 0, 0, 100) == "a1b2c3d4e5f6: Pull complete"
    assert "[" + "=" * 50 + "]" in picture("a1b2c3d4e5f6", states.DOWNLOADING, 9, 9, 120)


@given(
    st.integers(0, 10**12), st.integers(0, 10**12), st.integers(1, 300),
    st.sampled_from([states.DOWNLOADING, states.PUSHING, states.PULLED]),
)  # fmt: skip
def test_a_line_never_wraps(done: int, total: int, width: int, state: str) -> None:
    assert len(picture("a1b2c3d4e5f6", state, done, total, width)) < max(width, 2)


def test_a_log_has_a_line_for_each_state_and_none_for_each_megabyte() -> None:
    err = io.StringIO()
    lines = Lines(Console(io.StringIO(), err))
    for done in range(0, 100, 10):
        lines.step(A, states.DOWNLOADING, done, 100)
    for state in (states.VERIFYING, states.DOWNLOADED, states.PULLED, states.PULLED):
        lines.step(A, state)
    short = A.encoded[:12]
    assert err.getvalue().splitlines() == [
        f"{short}: Verifying Checksum", f"{short}: Download complete", f"{short}: Pull complete"
    ]  # fmt: skip


def test_what_exists_already_is_not_pulled_as_well() -> None:
    err = io.StringIO()
    lines = Lines(Console(io.StringIO(), err))
    lines.step(A, states.EXISTS)
    lines.step(A, states.PULLED)
    assert err.getvalue().splitlines() == [f"{A.encoded[:12]}: Already exists"]


def screen(text: str) -> list[str]:
    """What a terminal would show: only what our two escape sequences mean."""
    rows: list[str] = []
    for part in re.split(r"(\x1b\[\d+A\r\x1b\[J)", text):
        if part.startswith("\x1b"):
            up = int(re.findall(r"\d+", part)[0])
            del rows[len(rows) - up :]
        else:
            rows += part.splitlines()
    return rows


def test_bars_are_redrawn_in_the_images_order() -> None:
    err = io.StringIO()
    bars = Bars(Console(io.StringIO(), err))
    bars.announce([A, B])
    bars.step(B, states.DOWNLOADING, 5, 10)
    bars.step(A, states.EXISTS)
    bars.step(B, states.PULLED)
    bars.close()
    assert screen(err.getvalue()) == [
        f"{A.encoded[:12]}: Already exists", f"{B.encoded[:12]}: Pull complete"
    ]  # fmt: skip


def test_more_layers_than_lines_never_scroll_the_picture_away() -> None:
    err = io.StringIO()
    bars = Bars(Console(io.StringIO(), err))
    digests = [Digest.of(str(number).encode()) for number in range(200)]
    bars.announce(digests)
    for digest in digests:
        bars.step(digest, states.PULLED)
    assert max(int(up) for up in re.findall(r"\x1b\[(\d+)A", err.getvalue())) < 24
    bars.close()
    assert len(screen(err.getvalue())) == 200


@pytest.mark.parametrize("terminal", [True, False])
def test_the_display_follows_where_messages_go(terminal: bool) -> None:
    class Stream(io.StringIO):
        def isatty(self) -> bool:
            return terminal

    console = Console(io.StringIO(), Stream())
    assert isinstance(display(console, "xterm"), Bars if terminal else Lines)
    assert isinstance(display(console, "dumb"), Lines)  # it cannot draw over a line


def test_the_bars_of_all_lines_are_equally_long() -> None:
    first, second = (
        picture("a" * 12, states.DOWNLOADING, 1, total, 80) for total in (10**9, 160_500_000)
    )
    assert first.index("]") == second.index("]")
