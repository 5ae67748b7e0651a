"""What a person or a program sees: results on stdout, everything else on stderr."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import TextIO


class Console:
    """The two output streams, and the questions to ask of them."""

    def __init__(self, stdout: TextIO | None = None, stderr: TextIO | None = None) -> None:
        self.stdout = stdout or sys.stdout
        self.stderr = stderr or sys.stderr

    @property
    def is_terminal(self) -> bool:
        """Is a person reading the results?"""
        return self.stdout.isatty()

    @property
    def width(self) -> int:
        """Columns of the terminal; 80 when there is none."""
        try:
            return os.get_terminal_size(self.stderr.fileno()).columns or 80
        except (OSError, ValueError):
            return 80

    def out(self, text: str = "") -> None:
        """One result line."""
        print(text, file=self.stdout, flush=self.is_terminal)

    def raw(self, text: str) -> None:
        """Result text as it is, with no newline added."""
        self.stdout.write(text)

    def note(self, text: str) -> None:
        """One line that is not a result: progress, advice."""
        print(text, file=self.stderr, flush=True)

    def warn(self, text: str) -> None:
        self.note(f"WARNING: {text}")

    def error(self, text: str, hint: str = "") -> None:
        """What went wrong, and what to try; parts of both may be words of a peer."""
        self.note(_plain_lines(f"pyreg: {text}"))
        if hint:
            self.note(_plain_lines(f"       {hint}"))

    def table(self, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Left-aligned columns three blanks apart, as docker prints them."""
        self.raw(format_table(headings, rows))

    def ask(self, question: str) -> str:
        """A line from the person at the terminal; empty if they end the input (Ctrl-D)."""
        self.stderr.write(question)
        self.stderr.flush()
        line = sys.stdin.readline()
        if not line:
            self.note("")  # no end of line was typed: what follows would stand behind the question
        return line.rstrip("\r\n")

    def ask_secret(self, question: str) -> str:
        """The same without echo. Raises EOFError if they end the input."""
        import getpass

        try:
            return getpass.getpass(question, stream=self.stderr)
        except EOFError:
            self.note("")  # as above
            raise


def format_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The text of a table; control characters in cells are made harmless."""
    cells = [list(headings), *([_plain(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(headings))]
    lines = (
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )
    return "\n".join(lines) + "\n"


def _plain_lines(text: str) -> str:
    return "\n".join(_plain(line) for line in text.split("\n"))


def _plain(text: str) -> str:
    """Names and labels come from images: an escape sequence must not reach the terminal."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)
