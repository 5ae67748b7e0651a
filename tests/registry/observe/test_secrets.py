"""No secret in any log, at the most talkative level."""

from __future__ import annotations

import base64
import logging

import pytest

from tests.registry.api.conftest import Start, password_of, push_blob


@pytest.mark.parametrize("form", ["text", "json"])
async def test_cve_2025_48374_no_secret_in_any_log_of_login_push_and_pull(
    start: Start, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, form: str
) -> None:
    password = password_of("alice")
    basic = base64.b64encode(f"alice:{password}".encode()).decode()
    with caplog.at_level(logging.DEBUG), caplog.at_level(logging.INFO, "sqlalchemy"):
        async with start(access_log=form) as registry:
            answer = await registry.anonymous.post(
                "/token",
                data={
                    "grant_type": "password",
                    "username": "alice",
                    "password": password,
                    "access_type": "offline",
                    "scope": "repository:team/app:pull,push",
                },
            )
            token, refresh = answer.json()["access_token"], answer.json()["refresh_token"]
            await registry.anonymous.post(
                "/token", data={"grant_type": "refresh_token", "refresh_token": refresh}
            )
            wrong = await registry.anonymous.get("/token", auth=("alice", "WRONGSECRET"))
            assert wrong.status_code == 401
            await registry.anonymous.get("/metrics", headers={"authorization": "Bearer MSECRET"})
            async with registry.client(headers={"authorization": f"Bearer {token}"}) as alice:
                digest = await push_blob(alice, "team/app", b"SECRETBODY")
                assert (await alice.get(f"/v2/team/app/blobs/{digest}")).status_code == 200
            async with registry.basic("alice") as direct:
                query = {"cookie": "COOKIESECRET"}
                await direct.get("/v2/team/app/tags/list?n=QUERYSECRET", headers=query)
    records = [each for each in caplog.records if not each.name.startswith(("http", "asyncio"))]
    logged = capsys.readouterr().err + "\n".join(each.getMessage() for each in records)
    assert "/v2/team/app/blobs/uploads/" in logged
    assert any(each.name.startswith("sqlalchemy") for each in records)  # it does talk
    for secret in (token, refresh, password, basic, "SECRET", "$argon2", "PRIVATE KEY"):
        assert secret not in logged
