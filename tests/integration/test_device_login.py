"""`pyreg login --device` against a real server, confirmed as a browser does it."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import httpx

from tests.builders.pyreg import Pyreg
from tests.builders.servers import PASSWORD, USER, start_pyreg


def test_a_device_logs_in(tmp_path: Path) -> None:
    server = start_pyreg(tmp_path / "server")
    try:
        pyreg = Pyreg(str(tmp_path / "client"))
        where = f"127.0.0.1:{server.port}"
        device = pyreg.begin(
            "login", "--device", where, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        with device, httpx.Client(base_url=f"http://{where}") as browser:
            assert device.stderr is not None and device.stdout is not None
            said = device.stderr.readline().decode()
            code = said.split()[-1]
            page = browser.get("/token/device/verify", params={"user_code": code})
            [csrf] = re.findall(r'name="csrf" value="([^"]+)"', page.text)
            form = {"user_code": code, "csrf": csrf, "username": USER, "password": PASSWORD}
            done = browser.post("/token/device/verify", data={**form, "decision": "confirm"})
            assert done.status_code == 200
            assert device.wait(30) == 0
            assert b"Login Succeeded" in device.stdout.read()
        [found] = (tmp_path / "client").rglob("config.json")
        assert "identitytoken" in json.loads(found.read_text())["auths"][where]
    finally:
        server.stop()
