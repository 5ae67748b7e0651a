"""A device's login that a person confirms: what it takes, and what does not do."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from registry.api.devices import GRANT
from tests.registry.api.conftest import Registry, password_of, started


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    async with started(tmp_path) as running:
        yield running


async def begun(registry: Registry) -> dict[str, str]:
    answer = await registry.anonymous.post("/token/device", data={"client_id": "<b>tool</b>"})
    assert answer.status_code == 200
    document: dict[str, str] = answer.json()
    return document


async def confirm(registry: Registry, code: str, **changes: str) -> httpx.Response:
    async with registry.client() as browser:
        page = await browser.get("/token/device/verify", params={"user_code": code})
        [csrf] = re.findall(r'name="csrf" value="([^"]+)"', page.text)
        form = {"user_code": code, "csrf": csrf, "username": "alice", "decision": "confirm"}
        form |= {"password": password_of("alice"), **changes}
        return await browser.post("/token/device/verify", data=form)


async def poll(registry: Registry, device: str) -> httpx.Response:
    form = {"grant_type": GRANT, "device_code": device}
    return await registry.anonymous.post("/token", data=form)


async def test_a_device_logs_in(registry: Registry) -> None:
    codes = await begun(registry)
    answer = await poll(registry, codes["device_code"])
    assert (answer.status_code, answer.json()) == (400, {"error": "authorization_pending"})
    assert (await poll(registry, codes["device_code"])).json() == {"error": "slow_down"}
    assert (await confirm(registry, codes["user_code"].lower())).status_code == 200
    document = (await poll(registry, codes["device_code"])).json()
    assert document["account"] == "alice"
    form = {"grant_type": "refresh_token", "refresh_token": document["refresh_token"]}
    assert (await registry.anonymous.post("/token", data=form)).status_code == 200
    assert (await poll(registry, codes["device_code"])).json() == {"error": "expired_token"}


async def test_a_person_refuses(registry: Registry) -> None:
    codes = await begun(registry)
    assert (await confirm(registry, codes["user_code"], decision="refuse")).status_code == 200
    assert (await poll(registry, codes["device_code"])).json() == {"error": "access_denied"}


async def test_attack_confirming_for_others(registry: Registry) -> None:
    codes = await begun(registry)
    code = codes["user_code"]
    assert (await confirm(registry, code, csrf="x" * 43)).status_code == 403
    assert (await confirm(registry, code, csrf="é")).status_code == 403
    assert (await confirm(registry, code, password="wrong")).status_code == 401
    assert (await confirm(registry, "BBBB-BBBB")).status_code == 404
    async with registry.client() as other:  # a form of another site: no cookie of ours
        form = {"user_code": code, "csrf": "x" * 43, "username": "alice"}
        form |= {"password": password_of("alice"), "decision": "confirm"}
        assert (await other.post("/token/device/verify", data=form)).status_code == 403
    answer = await poll(registry, codes["device_code"])
    assert answer.json() == {"error": "authorization_pending"}
    assert (await poll(registry, code)).json() == {"error": "expired_token"}


async def test_attack_markup_in_what_a_device_says(registry: Registry) -> None:
    codes = await begun(registry)
    page = await registry.anonymous.get(codes["verification_uri_complete"])
    assert "&lt;b&gt;tool" in page.text and "<b>tool" not in page.text
    assert "form-action 'self'" in page.headers["content-security-policy"]
    code = '"><script>'
    page = await registry.anonymous.get("/token/device/verify", params={"user_code": code})
    assert "<script>" not in page.text
