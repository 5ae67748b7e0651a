"""The list of attacks names tests that exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
TOP = HERE.parents[1]
NAMED = sorted(set(re.findall(r"`(tests/[^`]+\.py)::(\w+)`", (HERE / "README.md").read_text())))


@cache
def names_in(path: str) -> set[str]:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    tree = ast.parse((TOP / path).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, functions)}


@pytest.mark.parametrize(("path", "name"), NAMED, ids=[name for _, name in NAMED])
def test_the_test_of_an_attack_exists(path: str, name: str) -> None:
    assert name in names_in(path)


def test_every_row_that_applies_names_a_test() -> None:
    applies = (HERE / "README.md").read_text().partition("## What does not")[0]
    rows = [line for line in applies.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 20
    assert [row for row in rows if not re.search(r"`tests/\S+::test_\w+`", row)] == []
