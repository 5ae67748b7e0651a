"""Settings: every mistake is named, nothing unknown is ignored."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry.configuration import load_settings
from registry.errors import InvalidSettings
from registry.settings import Settings


def test_file_below_overrides_above_defaults(tmp_path: Path) -> None:
    file = tmp_path / "pyreg.toml"
    file.write_text(
        'default_registry = "a client\'s key"\n'
        "[registry]\n"
        'host = "::1"\nport = 1\nanonymous_pull = true\ntrusted_proxies = ["10.0.0.0/8", "::1"]\n'
    )
    settings = load_settings(file, {"port": "2"}, defaults={"host": "x", "root": "/data"})
    assert (settings.host, settings.port, settings.root) == ("::1", 2, "/data")
    assert settings.anonymous_pull
    assert settings.trusted_proxies == ("10.0.0.0/8", "::1")
    assert settings.data == Path("/data/registry")


def test_text_is_converted() -> None:
    settings = load_settings(
        None, {"auth": "off", "page_size": "5", "trusted_proxies": "10.0.0.1, 10.0.0.2"}
    )
    assert (settings.auth, settings.page_size) == (False, 5)
    assert settings.trusted_proxies == ("10.0.0.1", "10.0.0.2")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("prot", 1),
        ("port", "x"),
        ("port", 70000),
        ("port", True),
        ("port", "9" * 30),
        ("auth", "maybe"),
        ("auth", 1),
        ("host", 5),
        ("public_url", "images.example.com"),
        ("public_url", "ftp://x"),
        ("public_url", "http://x:port"),
        ("trusted_proxies", ["proxy"]),
        ("trusted_proxies", 5),
        ("service", 'a"b'),
        ("max_manifest_bytes", 1),
        ("token_lifetime_s", 59),
    ],
)
def test_what_is_wrong_is_named(key: str, value: object) -> None:
    with pytest.raises(InvalidSettings, match=key):
        load_settings(None, {key: value})


def test_all_mistakes_at_once() -> None:
    with pytest.raises(InvalidSettings) as caught:
        load_settings(None, {"a": 1, "b": 2})
    assert "'a'" in str(caught.value) and "'b'" in str(caught.value)
    with pytest.raises(InvalidSettings) as caught:
        Settings(port=-1, page_size=0)
    assert "port" in str(caught.value) and "page_size" in str(caught.value)


@pytest.mark.parametrize("text", ["x = [", "registry = 5", "[registry]\nport = 'x'", "\xff"])
def test_broken_files(tmp_path: Path, text: str) -> None:
    file = tmp_path / "pyreg.toml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(InvalidSettings, match=r"pyreg\.toml"):
        load_settings(file, {})


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="cannot read"):
        load_settings(tmp_path / "none.toml", {})
