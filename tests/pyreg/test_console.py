"""What reaches the two streams."""

from __future__ import annotations

import io

from pyreg.console import Console, format_table


def test_results_and_messages_go_their_own_ways() -> None:
    out, err = io.StringIO(), io.StringIO()
    console = Console(out, err)
    console.out("a result")
    console.error("it broke", "mend it")
    assert out.getvalue() == "a result\n"
    assert err.getvalue() == "pyreg: it broke\n       mend it\n"


def test_an_escape_sequence_of_a_peer_never_reaches_the_terminal() -> None:
    err = io.StringIO()
    Console(io.StringIO(), err).error("it says \x1b]0;owned\x07", "two\nlines\r\x9b31m")
    assert err.getvalue() == "pyreg: it says ?]0;owned?\n       two\nlines??31m\n"
    assert "\x1b" not in format_table(["NAME"], [["\x1b[2J"]])
