"""The rules that keep the code readable are tests, not wishes."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyreg import cli
from pyreg.registration import COMMANDS, GROUPS
from tests.builders.servers import ROOT

PACKAGES = ("ocispec", "client", "registry", "runtime", "pyreg", "migrations")
# Names that say nothing about what is inside.
EMPTY_NAMES = {"utils", "util", "helpers", "helper_functions", "common", "misc", "manager"}


def sources(*packages: str) -> Iterator[Path]:
    for package in packages or PACKAGES:
        yield from sorted((ROOT / package).rglob("*.py"))


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


@pytest.mark.parametrize("path", list(sources()), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_what_it_is(path: Path) -> None:
    if not path.read_text().strip() or path.parent.name == "versions":
        return
    assert ast.get_docstring(parsed(path)), "the first line of a module says its one purpose"


def test_no_module_has_an_empty_name() -> None:
    assert [path for path in sources() if path.stem in EMPTY_NAMES] == []


def test_only_pyreg_reads_the_environment_and_the_command_line() -> None:
    """Everything below gets settings as arguments, so that a library user has no surprises."""
    found = []
    for path in sources("ocispec", "client", "registry", "runtime"):
        for node in ast.walk(parsed(path)):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and (node.value.id, node.attr)
                in {("os", "environ"), ("os", "getenv"), ("os", "environb"), ("sys", "argv")}
            ):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == []


def test_ocispec_uses_the_standard_library_only() -> None:
    import sys

    found = []
    for path in sources("ocispec"):
        for node in ast.walk(parsed(path)):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            for name in names:
                top = name.split(".")[0]
                if top not in sys.stdlib_module_names and top != "ocispec":
                    found.append(f"{path.relative_to(ROOT)}: {name}")
    assert found == []


def test_no_foreign_archive_extraction() -> None:
    """`tarfile`'s extract functions were bypassed again and again: layers go through our own."""
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sources()
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Attribute) and node.attr in ("extractall", "unpack_archive")
    ]
    assert found == []


def test_no_shell() -> None:
    starters = {"run", "Popen", "call", "check_call", "check_output", "system", "popen"}
    found = []
    for path in sources():
        for node in ast.walk(parsed(path)):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if isinstance(node.func.value, ast.Name) and node.func.value.id in ("os", "subprocess"):
                shells = node.func.attr in ("system", "popen")
                shells |= any(keyword.arg == "shell" for keyword in node.keywords)
                if node.func.attr in starters and shells:
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == []


def test_errors_are_never_swallowed_whole() -> None:
    """No `except:` and no `except Exception: pass`."""
    found = []
    for path in sources():
        for node in ast.walk(parsed(path)):
            if not isinstance(node, ast.ExceptHandler):
                continue
            broad = node.type is None or (
                isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException")
            )
            if broad and all(isinstance(step, ast.Pass) for step in node.body):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == []


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_help_and_a_place_in_the_readme(name: str) -> None:
    module_name, summary = COMMANDS[name]
    module = importlib.import_module(f"pyreg.commands.{module_name}")
    nested = getattr(module, "SUBCOMMANDS", None)
    commands = [command for command, _ in nested.values()] if nested else [module.COMMAND]
    for command in commands:
        text = cli.help_text(command)
        assert text.startswith(f"Usage:  pyreg {command.name}")
        assert all(flag.help for flag in command.flags), command.name
        longs = [flag.name for flag in command.flags]
        shorts = [flag.short for flag in command.flags if flag.short]
        assert len(set(longs)) == len(longs)
        assert len(set(shorts)) == len(shorts)
    assert summary
    assert re.search(rf"`pyreg {name}\b|\b{name}\b", (ROOT / "README.md").read_text())


def test_every_other_name_of_a_command_leads_to_one() -> None:
    for words in GROUPS.values():
        assert set(words.values()) <= set(COMMANDS)


@pytest.mark.parametrize(
    "package", ["ocispec", "client", "registry", "runtime", "pyreg", "migrations"]
)
def test_every_package_has_its_design_in_a_page(package: str) -> None:
    assert len((ROOT / package / "README.md").read_text()) > 500
