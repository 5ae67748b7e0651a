"""`pyreg config`: every problem at once, with its place; no secret is ever shown."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from registry.settings import SECRETS, Settings
from tests.builders.servers import pyreg_command, pyreg_environment

SECRET = "hunter2-" * 3


def config(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*pyreg_command(), *words],
        env=pyreg_environment(**environment),
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_every_problem_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "pyreg.toml"
    file.write_text(
        'defalt = "x"\n[registry]\nport = 99999\nprot = 1\n\nhost = 5\n'
        'trusted_proxies = ["proxy"]\ntls_certificate = "/nope"\n'
    )
    done = config("config", "check", str(file), PYREG_WORKERS="many", PYREG_ROOT=str(tmp_path))
    assert (done.returncode, done.stderr) == (1, "")
    for line in (
        f"{file}:1: unknown key 'defalt'",
        f"{file}:3: setting 'port' must be between 0 and 65535, not 99999",
        f"{file}:4: unknown setting 'prot'",
        f"{file}:6: setting 'host' must be text",
        f"{file}:7: setting 'trusted_proxies' holds 'proxy'",
        f"{file}:8: setting 'tls_certificate' needs 'tls_key'",
        "PYREG_WORKERS: setting 'workers' must be a whole number",
    ):
        assert line in done.stdout
    assert len(done.stdout.splitlines()) == 7
    as_json = json.loads(config("config", "check", str(file), "--format", "json").stdout)
    assert {"key": "prot", "place": f"{file}:4"}.items() <= as_json["problems"][1].items()


def test_what_the_settings_name_is_looked_at(tmp_path: Path) -> None:
    file = tmp_path / "pyreg.toml"
    (tmp_path / "file").touch()
    file.write_text(
        f'[registry]\nroot = "{tmp_path}/file"\n'
        f'tls_certificate = "{tmp_path}/none.pem"\ntls_key = "{tmp_path}/none.key"\n'
        f'database = "postgresql://u:{SECRET}@[broken/x"\n'
    )
    done = config("config", "check", str(file))
    assert done.returncode == 1
    assert f"{file}:2: cannot write to {tmp_path}/file" in done.stdout
    assert f"{file}:3: cannot read {tmp_path}/none.pem: No such file" in done.stdout
    assert f"{file}:5: " in done.stdout
    assert SECRET not in done.stdout + done.stderr


def test_a_good_configuration(tmp_path: Path) -> None:
    file = tmp_path / "pyreg.toml"
    file.write_text(f'default_registry = "x.example"\n[registry]\nroot = "{tmp_path}/data"\n')
    done = config("config", "check", str(file))
    assert (done.returncode, done.stdout) == (0, f"{file}: nothing is wrong\n")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("text", ["x = [", "\xff", "registry = 5"])
def test_a_broken_file_is_one_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "pyreg.toml"
    file.write_bytes(text.encode("latin-1"))
    for words in (("config", "check", str(file)), ("--config", str(file), "config", "check")):
        done = config(*words, PYREG_ROOT=str(tmp_path))
        assert done.returncode == 1
        assert len(done.stdout.splitlines()) == 1 and str(file) in done.stdout
        assert done.stderr == ""


def test_the_schema_holds_every_setting_with_its_description() -> None:
    schema = json.loads(config("config", "schema").stdout)
    table: dict[str, Any] = schema["properties"]["registry"]["properties"]
    for each in dataclasses.fields(Settings):
        entry = table[each.name]
        assert len(entry["description"]) > 10, each.name
        assert entry["default"] == (
            list(each.default) if isinstance(each.default, tuple) else each.default
        )
        if entry["type"] == "integer":
            assert entry["minimum"] <= entry["default"] <= entry["maximum"], each.name
        assert entry.get("x-pyreg-secret", False) == (each.name in SECRETS)
    assert {f"{name}_file" for name in SECRETS} <= set(table)
    assert all(len(each["description"]) > 10 for each in schema["properties"].values())


def test_where_values_come_from_and_secrets_hidden(tmp_path: Path) -> None:
    file = tmp_path / "pyreg.toml"
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    file.write_text(f'[registry]\nport = 5\ns3_access_key_file = "{tmp_path}/secret"\n')
    done = config(
        "--config", str(file), "--root", str(tmp_path), "config", "show", "--format", "json",
        PYREG_PAGE_SIZE="7", PYREG_S3_SECRET_KEY=SECRET,
    )  # fmt: skip
    shown = json.loads(done.stdout)
    assert shown["port"] == {"value": 5, "from": f"{file}:2"}
    assert shown["page_size"] == {"value": 7, "from": "PYREG_PAGE_SIZE"}
    assert shown["root"] == {"value": str(tmp_path), "from": "--root"}
    assert shown["host"] == {"value": "localhost", "from": "default"}
    assert shown["s3_access_key"] == {"value": "(hidden)", "from": f"{file}:3"}
    assert shown["s3_secret_key"] == {"value": "(hidden)", "from": "PYREG_S3_SECRET_KEY"}
    assert SECRET not in done.stdout + done.stderr


def test_a_secret_from_a_file_is_the_secret(tmp_path: Path) -> None:
    from registry.configuration import Layer, merge

    (tmp_path / "key").write_text(f"{SECRET}\n")
    given = {"s3_access_key_file": str(tmp_path / "key"), "s3_secret_key": "x"}
    settings = merge([Layer({"s3_access_key": "old"}), Layer(given)]).settings
    assert settings is not None and settings.s3_access_key == SECRET
    [problem] = merge([Layer({**given, "s3_access_key": "twice"})]).problems
    assert "both given" in problem.message
    [problem] = merge([Layer({"s3_access_key_file": str(tmp_path / "none")})]).problems
    assert "No such file" in problem.message
    [problem] = merge([Layer({"s3_access_key": [SECRET]})]).problems
    assert SECRET not in str(problem)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_address_for_metrics_that_is_none_ends_the_start_in_words(
    tmp_path: Path, workers: str
) -> None:
    file = tmp_path / "pyreg.toml"
    file.write_text(
        f'[registry]\nroot = "{tmp_path}/data"\nport = 0\nmetrics_listen = "192.0.2.1:5001"\n'
    )
    done = config("serve", "--config", str(file), "--workers", workers)
    assert done.returncode == 1
    assert "cannot listen on 192.0.2.1:5001: " in done.stderr
    assert "Traceback" not in done.stderr
