"""Flags follow pflag's rules, as every Docker user's fingers know them."""

from __future__ import annotations

import pytest

from pyreg.cli import BOOL, LIST, NUMBER, TEXT, Command, Flag, UsageError, help_text, parse

RUN = Command(
    name="run",
    usage="[OPTIONS] IMAGE [COMMAND] [ARG...]",
    summary="Create and run a new container from an image",
    flags=(
        Flag("interactive", "i", BOOL, "Keep STDIN open"),
        Flag("tty", "t", BOOL, "Allocate a pseudo-TTY"),
        Flag("env", "e", LIST, "Set environment variables"),
        Flag("publish", "p", LIST, "Publish ports"),
        Flag("name", "", TEXT, "Name"),
        Flag("tail", "n", NUMBER, "Lines", default=-1),
    ),
    minimum=1,
    maximum=None,
    interspersed=False,
)
RM = Command(name="rm", summary="Remove", flags=(Flag("force", "f", BOOL),), minimum=1, maximum=2)


@pytest.mark.parametrize(
    ("words", "flag", "found"),
    [
        ("-it image", "interactive", True),
        ("-it image", "tty", True),
        ("-t=false image", "tty", False),
        ("--tty=false image", "tty", False),
        ("--tty image", "interactive", False),
        ("-e A=1 --env B=2 -eC=3 image", "env", ("A=1", "B=2", "C=3")),
        ("-p80:80 image", "publish", ("80:80",)),
        ("-itp 80:80 image", "publish", ("80:80",)),
        ("--name=web image", "name", "web"),
        ("--name web image", "name", "web"),
        ("--name= image", "name", ""),
        ("-n 5 image", "tail", 5),
        ("--tail=-1 image", "tail", -1),
        ("image", "tail", -1),
        ("image", "env", ()),
    ],
)
def test_flags(words: str, flag: str, found: object) -> None:
    options = parse(RUN, words.split())
    assert options is not None
    accessor = {bool: options.flag, int: options.number, str: options.text, tuple: options.texts}
    assert accessor[type(found)](flag) == found
    assert options.arguments == ("image",)


def test_the_image_ends_the_flags_of_run() -> None:
    options = parse(RUN, ["-i", "image", "ls", "-t", "--name", "x", "--", "y"])
    assert options is not None
    assert options.arguments == ("image", "ls", "-t", "--name", "x", "--", "y")
    assert not options.flag("tty")


def test_flags_may_follow_arguments_elsewhere() -> None:
    options = parse(RM, ["one", "-f", "two"])
    assert options is not None
    assert options.flag("force")
    assert options.arguments == ("one", "two")


def test_double_dash_ends_the_flags() -> None:
    options = parse(RM, ["--", "-f"])
    assert options is not None
    assert options.arguments == ("-f",)


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["--force", "--help"]])
def test_help_wins(words: list[str]) -> None:
    assert parse(RM, words) is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--nope image", "unknown flag: --nope"),
        ("--nam x image", "unknown flag: --nam (did you mean --name?)"),
        ("-x image", "unknown shorthand flag: 'x' in -x"),
        ("--name", "flag needs an argument: --name"),
        ("-ie", "flag needs an argument: 'e' in -ie"),
        ("--tty=maybe image", 'invalid argument "maybe" for "--tty" flag: not true or false'),
        ("-n many image", 'invalid argument "many" for "-n" flag: not a whole number'),
        ("", "'pyreg run' requires at least 1 argument"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(words: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(RUN, words.split())
    assert str(caught.value) == message


def test_too_many_arguments() -> None:
    with pytest.raises(UsageError, match="requires at most 2 arguments"):
        parse(RM, ["a", "b", "c"])


def test_help_has_dockers_shape() -> None:
    lines = help_text(RUN).splitlines()
    assert lines[0] == "Usage:  pyreg run [OPTIONS] IMAGE [COMMAND] [ARG...]"
    assert "  -e, --env list       Set environment variables" in lines
    assert "      --name string    Name" in lines
