"""429 with Retry-After: wrong passwords, and requests where the operator limits them."""

from __future__ import annotations

import httpx
import pytest

from tests.registry.api.conftest import Registry, Start, code_of, password_of, push_image


def assert_too_many(answer: httpx.Response) -> None:
    assert (answer.status_code, code_of(answer)) == (429, "TOOMANYREQUESTS")
    assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.parametrize("way", ["basic", "token", "form"])
async def test_attack_guessing_passwords_is_slowed_down(registry: Registry, way: str) -> None:
    async def guess(name: str, password: str) -> httpx.Response:
        client = registry.anonymous
        if way == "form":
            form = {"grant_type": "password", "username": name, "password": password}
            return await client.post("/token", data=form)
        return await client.get("/v2/" if way == "basic" else "/token", auth=(name, password))

    for name in ("alice", "nobody"):  # an unknown name is not told apart by this either
        for number in range(6):
            assert (await guess(name, f"wrong {number}")).status_code == 401
        assert_too_many(await guess(name, "wrong"))
    assert_too_many(await guess("alice", password_of("alice")))
    assert (await guess("bob", password_of("bob"))).status_code == 200


async def test_tokens_already_given_go_on_while_somebody_guesses(registry: Registry) -> None:
    async with await registry.login("alice", "team/app") as alice:
        for number in range(8):
            await registry.anonymous.get("/token", auth=("alice", f"wrong {number}"))
        assert (await alice.get("/v2/")).status_code == 200


async def test_guesses_count_by_the_address_that_a_trusted_proxy_names(start: Start) -> None:
    async with start(trusted_proxies=("127.0.0.1",)) as registry:
        for _ in range(7):
            answer = await registry.anonymous.get(
                "/token", auth=("alice", "wrong"), headers={"x-forwarded-for": "192.0.2.1"}
            )
        assert_too_many(answer)
        elsewhere = await registry.anonymous.get(
            "/token",
            auth=("alice", password_of("alice")),
            headers={"x-forwarded-for": "192.0.2.1, 192.0.2.2"},
        )
        assert elsewhere.status_code == 200


async def test_attack_an_untrusted_address_is_not_believed(registry: Registry) -> None:
    for number in range(7):
        answer = await registry.anonymous.get(
            "/token", auth=("alice", "wrong"), headers={"x-forwarded-for": f"192.0.2.{number}"}
        )
    assert_too_many(answer)


async def test_requests_are_limited_where_the_operator_says_so(start: Start) -> None:
    async with start(
        anonymous_pull=True, anonymous_requests_per_minute=3, account_requests_per_minute=30
    ) as registry:
        async with registry.basic("alice") as alice:
            _, raw = await push_image(alice, "team/app", "v1")
        url = "/v2/team/app/manifests/v1"
        for _ in range(3):
            assert (await registry.anonymous.get("/v2/")).status_code == 401  # is not counted
            assert (await registry.anonymous.get(url)).content == raw
        for method in ("GET", "HEAD"):
            answer = await registry.anonymous.request(method, url)
            assert (answer.status_code, "retry-after" in answer.headers) == (429, True)
        assert_too_many(await registry.anonymous.get("/token"))
        async with await registry.login("rita", "team/app") as rita:
            for _ in range(29):
                assert (await rita.get(url)).status_code == 200
            assert_too_many(await rita.get(url))


async def test_content_is_not_limited_unless_asked_for(start: Start) -> None:
    async with start(anonymous_pull=True) as registry:
        async with registry.basic("alice") as alice:
            await push_image(alice, "team/app", "v1")
        for _ in range(200):
            answer = await registry.anonymous.get("/v2/team/app/manifests/v1")
            assert answer.status_code == 200
