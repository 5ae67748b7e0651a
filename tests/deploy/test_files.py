"""What deploy/ holds fits the program: settings, ports, paths, volumes, users."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from registry.configuration import descriptions
from registry.settings import SECRETS, Settings
from tests.builders.tools import require_tool

DEPLOY = Path(__file__).parents[2] / "deploy"
KUBERNETES = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
COMPOSE = sorted(DEPLOY.glob("compose*.yaml"))
SETTINGS = {field.name: field.default for field in fields(Settings)}
# Of pyreg itself, beside those of the settings.
OTHER_VARIABLES = {"PYREG_ROOT", "PYREG_CONFIG"}
UID = 10001


def dockerfile() -> str:
    return (DEPLOY / "Dockerfile").read_text()


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def is_a_setting(variable: str) -> bool:
    name = variable.removeprefix("PYREG_").lower()
    return (
        variable in OTHER_VARIABLES
        or name in SETTINGS
        or (name.endswith("_file") and name.removesuffix("_file") in SECRETS)
    )


def test_every_variable_that_any_file_names_is_a_setting() -> None:
    files = [path for path in DEPLOY.rglob("*") if path.is_file() and path.suffix != ".py"]
    named = {
        variable
        for path in files
        for variable in re.findall(r"\bPYREG_[A-Z0-9_]+\b", path.read_text())
    }
    assert len(named) > 10
    assert not {each for each in named if not is_a_setting(each)}


def test_the_example_has_every_setting_with_its_default_and_says_what_it_is() -> None:
    text = (DEPLOY / "pyreg.toml").read_text()
    assert tomllib.loads(text) == {"registry": {}}  # as it is, it changes nothing
    uncommented = re.sub(r"^#(?=[a-z0-9_]+ = )", "", text, flags=re.MULTILINE)
    shown = tomllib.loads(uncommented)["registry"]
    expected = {k: list(v) if isinstance(v, tuple) else v for k, v in SETTINGS.items()}
    assert shown == expected
    assert list(shown) == list(expected)
    words = " ".join(line.removeprefix("#").strip() for line in text.splitlines())
    for name, description in descriptions().items():
        assert " ".join(description.split()) in words, name


# --- image ----------------------------------------------------------------------------------------


def test_the_image_runs_as_nobody_special_on_the_volume_and_port_of_the_settings() -> None:
    text = dockerfile()
    assert re.search(rf"^USER {UID}:{UID}$", text, re.MULTILINE)
    assert f"--uid {UID}" in text and f"--gid {UID}" in text
    assert f"VOLUME {SETTINGS['root']}" in text
    assert f"EXPOSE {SETTINGS['port']}" in text
    assert "--no-cache-dir" in text
    assert text.index("USER ") < text.index("ENTRYPOINT")
    assert text.index("chown pyreg:pyreg /var/lib/pyreg") < text.index("VOLUME ")


def test_the_health_check_is_python_and_asks_a_path_that_is_served() -> None:
    [command] = re.findall(r"^ +CMD (\[.*\])$", dockerfile(), re.MULTILINE)
    program, flag, code = yaml.safe_load(command)
    assert (program, flag) == ("python3", "-c")
    compile(code, "HEALTHCHECK", "exec")
    assert "'127.0.0.1', int(e['PYREG_PORT'])" in code
    assert f"PYREG_PORT={SETTINGS['port']}" in dockerfile()
    assert asked(code) == {"/readyz"}


def asked(code: str) -> set[str]:
    return set(re.findall(r"'(/[a-z]+)'", code))


def test_the_build_context_has_all_packages_and_no_more() -> None:
    kept = {
        line[1:]
        for line in (DEPLOY.parent / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    project = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())
    packages = {
        each.rstrip("*") for each in project["tool"]["setuptools"]["packages"]["find"]["include"]
    }
    scripts = {Path(each).parts[0] for each in project["tool"]["setuptools"]["script-files"]}
    assert packages | scripts | {"pyproject.toml", "constraints.txt", "README.md"} <= kept
    assert not {"tests", "deploy", ".git", ".venv"} & kept
    for extra in re.search(r"'\.\[(.*)\]'", dockerfile())[1].split(","):  # type: ignore[index]
        assert extra in project["project"]["optional-dependencies"]


# --- compose --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.name)
def test_compose_files_hang_together(path: Path) -> None:
    [document] = documents(path)
    services = document["services"]
    for name, service in services.items():
        assert "image" in service, name
        for mount in service.get("volumes", ()):
            source = mount.split(":")[0]
            if source.startswith("."):
                assert source.startswith("./secrets/") or (DEPLOY / source).exists(), mount
            else:
                assert source in document["volumes"], mount
        for secret in service.get("secrets", ()):
            assert secret in document["secrets"]
        for other in service.get("depends_on", ()):
            assert other in services
        for value in service.get("environment", {}).values():
            if str(value).startswith("/run/secrets/"):
                assert value.removeprefix("/run/secrets/") in service["secrets"]
    registries = [each for each in services.values() if each["image"].startswith("pyreg:")]
    assert registries
    for registry in registries:
        assert (
            path.parent / registry["build"]["context"] / registry["build"]["dockerfile"]
        ).exists()
        assert registry["read_only"] and registry["cap_drop"] == ["ALL"]
        assert any(mount.endswith(f":{SETTINGS['root']}") for mount in registry["volumes"])
        assert int(registry["stop_grace_period"].rstrip("s")) > SETTINGS["graceful_s"]
        for port in registry.get("ports", ()):
            assert port == f"127.0.0.1:{SETTINGS['port']}:{SETTINGS['port']}"


def test_the_replicas_behind_nginx_are_those_of_the_compose_file_and_trust_its_network() -> None:
    [document] = documents(DEPLOY / "compose.replicas.yaml")
    upstream = re.findall(r"server ([a-z0-9-]+):(\d+)", (DEPLOY / "nginx.conf").read_text())
    replicas = [
        (name, str(SETTINGS["port"]))
        for name, service in document["services"].items()
        if service["image"].startswith("pyreg:")
    ]
    assert upstream == replicas and len(replicas) == 2
    environment = document["services"]["registry-1"]["environment"]
    subnet = document["networks"]["default"]["ipam"]["config"][0]["subnet"]
    assert environment["PYREG_TRUSTED_PROXIES"] == subnet
    assert environment["PYREG_S3_ENDPOINT"].removeprefix("http://").split(":")[0] == "s3"
    given = {key.removeprefix("PYREG_").lower(): value for key, value in environment.items()}
    files = {key: given.pop(key) for key in list(given) if key.endswith("_file")}
    assert set(files) == {"database_file", "s3_secret_key_file"}
    Settings(
        **{**given, "public_url": "https://a.example", "trusted_proxies": (subnet,)},
        database="postgresql://pyreg:secret@postgres/pyreg",
        s3_secret_key="secret",
    )


# --- Kubernetes -----------------------------------------------------------------------------------


def pods(path: Path) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for document in documents(path):
        if document["kind"] in ("StatefulSet", "Deployment"):
            yield document, document["spec"]["template"]["spec"]


@pytest.mark.parametrize("path", KUBERNETES, ids=lambda path: path.name)
def test_manifests_hang_together(path: Path) -> None:
    found = documents(path)
    by_kind = {document["kind"]: document for document in found}
    for document in found:
        assert {"apiVersion", "kind", "metadata", "spec"} <= set(document)
        assert document["metadata"]["name"] == "pyreg"
    [(owner, pod)] = pods(path)
    labels = owner["spec"]["template"]["metadata"]["labels"]
    assert owner["spec"]["selector"]["matchLabels"] == labels
    assert by_kind["Service"]["spec"]["selector"] == labels
    [container] = pod["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports["http"] == SETTINGS["port"]
    for port in by_kind["Service"]["spec"]["ports"]:
        assert port["targetPort"] in ports and port["name"] != "metrics"
    claims = {each["metadata"]["name"] for each in owner["spec"].get("volumeClaimTemplates", ())}
    volumes = {each["name"] for each in pod["volumes"]} | claims
    mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    assert set(mounts) == volumes
    assert SETTINGS["root"] in mounts.values()
    assert pod["terminationGracePeriodSeconds"] > SETTINGS["graceful_s"]


@pytest.mark.parametrize("path", KUBERNETES, ids=lambda path: path.name)
def test_probes_ask_what_is_served_and_pods_have_no_privilege(path: Path) -> None:
    [(_, pod)] = pods(path)
    [container] = pod["containers"]
    served = {"/livez", "/readyz"}
    for name in ("startupProbe", "livenessProbe", "readinessProbe"):
        probe = container[name]["httpGet"]
        assert probe["path"] in served and probe["port"] == "http"
    # A database that is away must not restart the registry.
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == UID
    assert pod["automountServiceAccountToken"] is False
    # Else a Service called pyreg gives its pods PYREG_PORT=tcp://…
    assert pod["enableServiceLinks"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["requests"] and container["resources"]["limits"]["memory"]


def test_one_node_has_one_replica_and_secrets_come_from_secrets() -> None:
    [(single, _)] = pods(DEPLOY / "kubernetes/single.yaml")
    assert (single["kind"], single["spec"]["replicas"]) == ("StatefulSet", 1)
    [(many, pod)] = pods(DEPLOY / "kubernetes/replicated.yaml")
    assert many["spec"]["replicas"] >= 2
    for variable in pod["containers"][0]["env"]:
        if variable["name"].removeprefix("PYREG_").lower() in SECRETS:
            assert variable["valueFrom"]["secretKeyRef"]["name"] == "pyreg"
    by_kind = {each["kind"]: each for each in documents(DEPLOY / "kubernetes/replicated.yaml")}
    assert by_kind["PodDisruptionBudget"]["spec"]["minAvailable"] < many["spec"]["replicas"]
    [rule] = by_kind["Ingress"]["spec"]["rules"]
    paths = [each["path"] for each in rule["http"]["paths"]]
    assert paths == ["/v2", "/v1", "/token"]  # all that clients need, and nothing of operators


# --- systemd --------------------------------------------------------------------------------------


def test_the_unit_is_one_that_systemd_accepts(tmp_path: Path) -> None:
    analyze = require_tool("systemd-analyze")
    text = (DEPLOY / "pyreg.service").read_text()
    # The program is looked for; let it be one that is there.
    text = text.replace("/opt/pyreg/bin/pyreg", "/bin/true").replace("/etc/pyreg/", "/etc/")
    unit = tmp_path / "pyreg.service"
    unit.write_text(text)
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=60
    )
    complaints = [line for line in done.stderr.splitlines() if "pyreg.service" in line]
    assert not complaints and done.returncode == 0, done.stderr


def test_the_unit_is_hardened_and_its_directories_are_those_of_the_settings() -> None:
    lines = (DEPLOY / "pyreg.service").read_text().splitlines()
    unit: dict[str, list[str]] = {}
    for line in lines:
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            unit.setdefault(key, []).append(value)
    assert unit["ProtectSystem"] == ["strict"] and unit["NoNewPrivileges"] == ["yes"]
    assert unit["CapabilityBoundingSet"] == [""]
    assert Path("/var/lib") / unit["StateDirectory"][0] == Path(SETTINGS["root"])
    assert f"PYREG_ROOT={SETTINGS['root']}" in unit["Environment"]
    assert int(unit["TimeoutStopSec"][0]) > SETTINGS["graceful_s"]
    [start] = unit["ExecStart"]
    assert shlex.split(start)[1:] == ["serve", "--config", "/etc/pyreg/pyreg.toml"]
