"""What is read from variables and the configuration file."""

from __future__ import annotations

from pathlib import Path

import pytest

from client.options import ClientOptions
from pyreg.environment import ConfigurationError, read
from pyreg.remotes import client_options


def configured(tmp_path: Path, text: str) -> ClientOptions:
    (tmp_path / "pyreg.toml").write_text(text)
    return client_options(read({}, config_file=str(tmp_path / "pyreg.toml")))


def test_the_file_sets_what_the_client_does(tmp_path: Path) -> None:
    options = configured(
        tmp_path,
        'default_registry = "registry.example"\n'
        'insecure_registries = ["10.0.0.5:5000"]\n'
        'ca_file = "/ca.pem"\n'
        'trusted_realms = ["login.example"]\n'
        "foreign_layers = true\n"
        "[registry]\n"
        "port = 1\n",
    )
    assert options.default_registry == "registry.example"
    assert options.insecure_registries == ("10.0.0.5:5000",)
    assert options.ca_file == "/ca.pem"
    assert options.trusted_realms == ("login.example",)
    assert options.foreign_layers is True


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nonsense = 1", "unknown key 'nonsense'"),
        ("default_registry = 1", "'default_registry' must be text"),
        ('insecure_registries = "x"', "'insecure_registries' must be a list"),
        ("insecure_registries = [1]", "'insecure_registries' must be a list of texts"),
        ('foreign_layers = "no"', "must be true or false"),
        ("= 1", "pyreg.toml"),
    ],
)
def test_a_broken_file_says_where(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        configured(tmp_path, text)


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    name = str(tmp_path / "none.toml")
    for variables, given in (({}, name), ({"PYREG_CONFIG": name}, "")):
        with pytest.raises(ConfigurationError, match="does not exist"):
            read(variables, config_file=given)


def test_a_variable_goes_before_the_file(tmp_path: Path) -> None:
    (tmp_path / "pyreg.toml").write_text('default_registry = "file.example"\n')
    variables = {"PYREG_CONFIG": str(tmp_path / "pyreg.toml")}
    assert read(variables).default_registry == "file.example"
    variables["PYREG_DEFAULT_REGISTRY"] = "variable.example"
    assert read(variables).default_registry == "variable.example"


def test_without_anything_the_registry_is_this_machine() -> None:
    assert read({"HOME": "/nowhere"}).default_registry == "localhost:5000"
