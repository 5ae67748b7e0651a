"""`pyreg history`, `undo`, `restore`, `release` and `retention` on the registry of this machine."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.builders.servers import Server, pyreg_command, pyreg_environment, start_pyreg
from tests.registry.api.conftest import push_image

pytest.importorskip("sqlalchemy", reason="the server's dependencies are not installed")


async def push_two(server: Server) -> list[str]:
    async with httpx.AsyncClient(base_url=f"http://{server.host}") as client:
        wanted = {"service": "pyreg", "scope": "repository:team/app:pull,push,delete"}
        answer = await client.get("/token", params=wanted, auth=(server.username, server.password))
        client.headers["authorization"] = f"Bearer {answer.json()['token']}"
        return [
            (await push_image(client, "team/app", "v1", marker=marker))[0] for marker in ("a", "b")
        ]


def test_one_session(tmp_path: Path) -> None:
    def pyreg(*words: str, status: int = 0) -> str:
        done = subprocess.run(
            [*pyreg_command(), "--root", str(tmp_path), *words],
            capture_output=True,
            text=True,
            env=pyreg_environment(),
            timeout=60,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == status, done.stderr
        return done.stdout + done.stderr

    server = start_pyreg(tmp_path)
    try:
        old, new = (digest[7:19] for digest in asyncio.run(push_two(server)))
        shown = pyreg("history", "team/app:v1", "--remote")
        assert old in shown and new in shown and server.username in shown
        assert "use --remote" in pyreg("history", "team/app", status=1)
        assert "use --yes" in pyreg("undo", "team/app:v1", status=1)
        assert f"{new} -> {old}" in pyreg("undo", "team/app:v1", "--yes")
        move = "team/app:stable=v1 was=absent"
        assert "--change" in pyreg("release", "apply", move, "--yes")
        assert "does not exist" not in pyreg("release", "apply", move, "--yes", status=1)
        assert "-> -" in pyreg("undo", "team/app:stable", "--yes")
        assert f"- -> {old}" in pyreg("restore", "team/app:stable", "--yes")
        pyreg("retention", "set", "team/*", "--keep-last", "1")
        assert "1 tags would be deleted" in pyreg("retention", "preview")
        assert "Deleted 1 tags" in pyreg("retention", "run", "--yes")
        assert "They run" in pyreg("retention", "list")
    finally:
        server.stop()
