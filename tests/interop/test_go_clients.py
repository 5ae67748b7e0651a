"""crane, oras and helm: each does against our registry what its users do with it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ocispec.digest import Digest
from tests.builders.servers import Server
from tests.interop.clients import run as run_words
from tests.interop.conftest import Pyreg
from tests.interop.gotools import go_tool

pytestmark = [pytest.mark.interop, pytest.mark.root]


class Tool:
    """One program with a home of its own."""

    def __init__(self, name: str, home: Path) -> None:
        self._program = go_tool(name)
        self._home = home
        home.mkdir(parents=True, exist_ok=True)

    def __call__(self, *words: str, stdin: bytes = b"", check: bool = True) -> str:
        env = ["env", "-i", "-C", str(self._home), f"HOME={self._home}"]
        env.append(f"PATH={os.environ['PATH']}")
        return run_words([*env, self._program, *words], stdin=stdin, check=check)


@pytest.fixture
def crane(tmp_path: Path, registry: Server) -> Tool:
    tool = Tool("crane", tmp_path / "crane")
    secret = registry.password.encode()
    tool("auth", "login", registry.host, "-u", registry.username, "--password-stdin", stdin=secret)
    return tool


@pytest.fixture
def oras(tmp_path: Path, registry: Server) -> Tool:
    tool = Tool("oras", tmp_path / "oras")
    words = ("login", "--plain-http", registry.host, "-u", registry.username, "--password-stdin")
    tool(*words, stdin=registry.password.encode())
    return tool


@pytest.fixture
def helm(tmp_path: Path, registry: Server) -> Tool:
    tool = Tool("helm", tmp_path / "helm")
    words = ("registry", "login", "--plain-http", registry.host, "-u", registry.username)
    tool(*words, "--password-stdin", stdin=registry.password.encode())
    return tool


def test_crane(crane: Tool, registry: Server, rootfs: Path, pyreg: Pyreg) -> None:
    """Push a layer, copy with mounts, tag, list, read, delete; what pyreg pulls is the same."""
    at = f"{registry.host}/crane"
    crane("append", "--oci-empty-base", "-f", str(rootfs), "-t", f"{at}/app:v1")
    digest = crane("digest", f"{at}/app:v1").strip()
    assert crane("validate", "--remote", f"{at}/app:v1")
    crane("copy", f"{at}/app:v1", f"{at}/copy:v1")  # a mount: nothing travels
    crane("tag", f"{at}/copy:v1", "v2")
    assert crane("ls", f"{at}/copy").split() == ["v1", "v2"]
    assert {"crane/app", "crane/copy"} <= set(crane("catalog", registry.host).split())
    assert crane("digest", f"{at}/copy:v2").strip() == digest
    raw = crane("manifest", f"{at}/app:v1")
    assert str(Digest.of(raw.encode())) == digest
    crane("mutate", f"{at}/app:v1", "--label", "a=b", "-t", f"{at}/app:labelled")
    crane("pull", "--format", "oci", f"{at}/app:labelled", "layout")
    crane("push", "layout", f"{at}/again:v1")
    pyreg("pull", f"{at}/app:v1")
    assert pyreg.digest(f"{at}/app:v1") == digest
    crane("delete", f"{at}/copy:v1")
    assert crane("ls", f"{at}/copy").split() == ["v2"]
    assert "MANIFEST_UNKNOWN" in crane("manifest", f"{at}/copy:v1", check=False)


def test_crane_reads_an_index_that_pyreg_does_not_run(crane: Tool, registry: Server) -> None:
    """An index of two platforms: pushed, one platform taken out of it, filtered to the other."""
    at = f"{registry.host}/crane/many"
    for machine in ("amd64", "arm64"):
        crane("append", "--oci-empty-base", "-f", "/dev/null", "-t", f"{at}:{machine}")
        crane("mutate", f"{at}:{machine}", "--set-platform", f"linux/{machine}", "-t",
              f"{at}:{machine}")  # fmt: skip
    crane("index", "append", "-m", f"{at}:amd64", "-m", f"{at}:arm64", "-t", f"{at}:all")
    index = json.loads(crane("manifest", f"{at}:all"))
    assert [each["platform"]["architecture"] for each in index["manifests"]] == ["amd64", "arm64"]
    config = json.loads(crane("config", "--platform", "linux/arm64", f"{at}:all"))
    assert config["architecture"] == "arm64"


def test_oras(oras: Tool, registry: Server, tmp_path: Path) -> None:
    """An artifact with files, another attached to it, found by referrers, copied with them."""
    home = tmp_path / "oras"
    (home / "notes.txt").write_text("artifact\n")
    (home / "sbom.json").write_text('{"spdxVersion":"SPDX-2.3"}')
    plain, at = "--plain-http", f"{registry.host}/oras"
    oras("push", plain, f"{at}/app:v1", "--artifact-type", "application/vnd.test.notes",
         "notes.txt:text/plain")  # fmt: skip
    oras("attach", plain, f"{at}/app:v1", "--artifact-type", "application/spdx+json",
         "sbom.json:application/json")  # fmt: skip
    found = json.loads(oras("discover", plain, f"{at}/app:v1", "--format", "json"))
    key = "referrers" if "referrers" in found else "manifests"
    assert [each["artifactType"] for each in found[key]] == ["application/spdx+json"]
    # no fall-back tag: the referrers API was used
    assert oras("repo", "tags", plain, f"{at}/app").split() == ["v1"]
    oras("cp", "-r", "--from-plain-http", "--to-plain-http", f"{at}/app:v1", f"{at}/copy:v1")
    copied = json.loads(oras("discover", plain, f"{at}/copy:v1", "--format", "json"))
    assert copied[key][0]["digest"] == found[key][0]["digest"]
    (home / "notes.txt").unlink()
    oras("pull", plain, f"{at}/copy:v1")
    assert (home / "notes.txt").read_text() == "artifact\n"
    oras("blob", "push", plain, f"{at}/blobs", "sbom.json")
    oras("manifest", "delete", "--force", plain, f"{at}/copy:v1")
    assert oras("repo", "tags", plain, f"{at}/copy").split() == []


def test_helm(helm: Tool, registry: Server, tmp_path: Path) -> None:
    """A chart pushed in two versions, one with build metadata; resolved, pulled and shown."""
    home = tmp_path / "helm"
    helm("create", "demo")
    at = f"oci://{registry.host}/charts"
    for version in ("0.1.0", "0.2.0+build.7"):
        helm("package", "demo", "--version", version)
        done = helm("push", "--plain-http", f"demo-{version}.tgz", at)
        assert "Digest: sha256:" in done
    shown = helm("show", "chart", "--plain-http", f"{at}/demo", "--version", "~0.2.0")
    assert "version: 0.2.0+build.7" in shown
    (home / "demo-0.1.0.tgz").unlink()
    helm("pull", "--plain-http", f"{at}/demo", "--version", "0.1.0")
    assert (home / "demo-0.1.0.tgz").exists()
    assert "unauthorized" in _without_login(registry, tmp_path).lower()


def _without_login(registry: Server, tmp_path: Path) -> str:
    stranger = Tool("helm", tmp_path / "stranger")
    words = ("pull", "--plain-http", f"oci://{registry.host}/charts/demo", "--version", "0.1.0")
    return stranger(*words, check=False)


def test_regctl(registry: Server, rootfs: Path, tmp_path: Path) -> None:
    """Chunked uploads of its own size, an image with referrers copied, one tag of two deleted."""
    regctl = Tool("regctl", tmp_path / "regctl")
    host, at = registry.host, f"{registry.host}/regctl"
    regctl("registry", "set", host, "--tls", "disabled", "--blob-chunk", "4096", "--blob-max", "1")
    words = ("registry", "login", host, "-u", registry.username, "--pass-stdin")
    regctl(*words, stdin=registry.password.encode())
    regctl("image", "create", f"{at}/app:v1")
    regctl("image", "mod", f"{at}/app:v1", "--layer-add", f"tar={rootfs}", "--replace")
    regctl("artifact", "put", "--subject", f"{at}/app:v1", "--artifact-type", "text/x-note",
           stdin=b"a note")  # fmt: skip
    regctl("image", "copy", "--referrers", f"{at}/app:v1", f"{at}/copy:v1")
    assert "text/x-note" in regctl("artifact", "list", f"{at}/copy:v1")
    regctl("image", "copy", f"{at}/copy:v1", f"{at}/copy:v2")
    regctl("tag", "delete", f"{at}/copy:v1")
    assert regctl("tag", "list", f"{at}/copy").split() == ["v2"]
    assert "regctl/copy" in regctl("repo", "list", host)
