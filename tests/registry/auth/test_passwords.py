"""Passwords are hashed with argon2id, slowly for everybody, and never shown."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from registry.auth.passwords import Passwords, check_password, random_password
from registry.errors import AccountInvalid


@pytest.fixture
def passwords() -> Iterator[Passwords]:
    passwords = Passwords(memory_kib=64, rounds=1)
    yield passwords
    passwords.close()


async def test_a_hash_verifies_its_password_only(passwords):
    stored = await passwords.hash("correct horse")
    assert stored.startswith("$argon2id$")
    assert await passwords.verify(stored, "correct horse")
    assert not await passwords.verify(stored, "correct horsE")
    assert not await passwords.verify(stored, "")
    assert await passwords.hash("correct horse") != stored


async def test_any_text_is_a_password(passwords):
    for text in ("пароль-пароль", "\x00" * 8, "a:b:c:d:e", " " * 9):
        assert await passwords.verify(await passwords.hash(text), text)


@pytest.mark.parametrize("stored", ["", "x", "$argon2id$", "plain text", "$2b$12$abc"])
async def test_a_row_without_a_hash_of_ours_lets_nobody_in(passwords, stored):
    assert not await passwords.verify(stored, stored)
    assert not await passwords.verify(stored, "")


async def test_nobody_has_no_password(passwords):
    assert not await passwords.verify(None, "")
    assert not await passwords.verify(None, "admin")


async def test_cve_2019_19030_unknown_users_take_as_long_as_known_ones():
    passwords = Passwords(threads=1)
    stored = await passwords.hash("correct horse")
    await passwords.verify(None, "wrong")  # makes the hash of nobody's password

    async def best_of(stored: str | None) -> float:
        times = []
        for _ in range(5):
            started = time.process_time()
            await passwords.verify(stored, "wrong")
            times.append(time.process_time() - started)
        return min(times)

    known, unknown = await best_of(stored), await best_of(None)
    assert 0.5 < unknown / known < 2
    passwords.close()


async def test_hashes_made_with_other_parameters_are_outdated(passwords):
    stronger = Passwords(memory_kib=128, rounds=1)
    stored = await passwords.hash("correct horse")
    assert not passwords.is_outdated(stored)
    assert stronger.is_outdated(stored)
    assert await stronger.verify(stored, "correct horse")
    stronger.close()


async def test_a_megabyte_is_no_password_and_costs_nothing(passwords):
    assert not await passwords.verify(await passwords.hash("x"), "x" * 1_000_000)


@pytest.mark.parametrize("password", ["", "short", "x" * 1025, "not \udcff UTF-8"])
def test_passwords_that_nobody_should_choose(password):
    with pytest.raises(AccountInvalid) as caught:
        check_password(password)
    assert not password or password not in str(caught.value)


def test_cve_2026_4404_generated_passwords_are_random():
    generated = {random_password() for _ in range(100)}
    assert len(generated) == 100
    assert all(len(check_password(password)) >= 20 for password in generated)
