"""Paired measurements: contestants take turns in one run, and ratios are taken round by round.

Shared machines drift; a ratio inside one round holds when absolute figures do not. One warm-up
round is dropped, and every second round goes in reverse order.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.builders.servers import ROOT
from tests.builders.tools import find_tool

Measure = Callable[[int], float]  # round number → figure; round 0 is the warm-up


@dataclass
class Row:
    """The result of one contest: figures of each contestant by round."""

    title: str
    unit: str
    figures: dict[str, list[float]]
    us: str  # the contestant that the others are compared with
    more_is_better: bool
    notes: list[str] = field(default_factory=list)
    #: The ratio that is asked for, by peer.
    targets: Mapping[str, float] = field(default_factory=dict)
    #: The most that our own figure may be; 0 is no bound.
    bound: float = 0

    def median(self, name: str) -> float:
        return statistics.median(self.figures[name])

    def ratio(self, peer: str) -> float:
        """How many times better we are than the peer: the median of the rounds' ratios."""
        pairs = zip(self.figures[self.us], self.figures[peer], strict=True)
        return statistics.median(a / b if self.more_is_better else b / a for a, b in pairs)

    def spread(self, peer: str) -> tuple[float, float]:
        pairs = list(zip(self.figures[self.us], self.figures[peer], strict=True))
        ratios = [a / b if self.more_is_better else b / a for a, b in pairs]
        return min(ratios), max(ratios)


def contest(
    title: str,
    contestants: Mapping[str, Measure],
    *,
    unit: str,
    rounds: int,
    more_is_better: bool,
    warm_up: bool = True,
    targets: Mapping[str, float] | None = None,
) -> Row:
    """Run every contestant once a round; the first is us."""
    names = list(contestants)
    figures: dict[str, list[float]] = {name: [] for name in names}
    for number in range(0 if warm_up else 1, rounds + 1):
        for name in names if number % 2 else reversed(names):
            figure = contestants[name](number)
            if number:
                figures[name].append(figure)
            _progress(f"{title}: round {number}/{rounds}, {name} {figure:.4g} {unit}")
    row = Row(title, unit, figures, names[0], more_is_better, targets=targets or {})
    _progress("")
    print_row(row)
    return row


def print_row(row: Row) -> None:
    parts = [f"{name} {row.median(name):.4g}" for name in row.figures]
    ratios = []
    for peer in list(row.figures)[1:]:
        low, high = row.spread(peer)
        target = f", target {row.targets[peer]:g}x" if peer in row.targets else ""
        ratios.append(f"{row.ratio(peer):.2f}x {peer} ({low:.2f}-{high:.2f}{target})")
    if row.bound:
        ratios.append(f"at most {row.bound:g} {row.unit}")
    print(f"{row.title:<46} {', '.join(parts)} {row.unit}   => {', '.join(ratios)}", flush=True)
    for note in row.notes:
        print(f"    {note}")


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def summary(rows: Sequence[Row]) -> str:
    """A table in Markdown: the title, our median, and each peer's with the ratio."""
    lines = [
        "| measured | pyreg | against | theirs | ratio (min-max) | target |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        for peer in list(row.figures)[1:]:
            low, high = row.spread(peer)
            target = f"{row.targets[peer]:g}x" if peer in row.targets else ""
            if row.bound:
                target = f"at most {row.bound:g} {row.unit}"
            lines.append(
                f"| {row.title} | {row.median(row.us):.4g} {row.unit} | {peer} "
                f"| {row.median(peer):.4g} | **{row.ratio(peer):.2f}x** ({low:.2f}-{high:.2f}) "
                f"| {target} |"
            )
    return "\n".join(lines)


def compiled(name: str) -> str:
    """The C client `name`.c beside this file, built once; empty without a compiler."""
    compiler = find_tool("cc") or find_tool("gcc")
    source, program = ROOT / f"tests/benchmarks/{name}.c", ROOT / f"build/bench/{name}"
    if not compiler:
        return ""
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        program.parent.mkdir(parents=True, exist_ok=True)
        words = [compiler, "-O2", "-D_GNU_SOURCE", "-Wall", "-pthread"]
        subprocess.run([*words, "-o", str(program), str(source)], check=True)
    return str(program)
