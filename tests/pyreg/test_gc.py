"""`pyreg gc`, `why` and `du` on the registry of this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pyreg.__main__ import main


def test_status_pause_and_usage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("PYREG_ROOT", str(tmp_path))
    monkeypatch.setattr("sys.stdin", __import__("io").StringIO("a long password\n"))
    assert main(["user", "add", "ann", "--password-stdin"]) == 0
    assert main(["gc", "pause", "--for", "60"]) == 0
    capsys.readouterr()
    assert main(["gc", "status", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["paused"]["by"] == "(local)"
    assert main(["gc", "resume"]) == 0
    assert main(["gc", "run"]) == 0
    assert "Removed 0 manifests" in capsys.readouterr().out
    assert main(["gc", "simulate", "--in", "soon"]) != 0
    assert main(["du"]) == 0
    assert main(["why", "sha256:" + "0" * 64]) != 0
    assert "no blob and no manifest" in capsys.readouterr().err
