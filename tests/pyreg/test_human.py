from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyreg import human


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0B"),
        (999, "999B"),
        (1000, "1kB"),
        (4210, "4.21kB"),
        (117_000_000, "117MB"),
        (999_400_000, "999MB"),
        (999_900_000, "1GB"),
        (10**18, "1EB"),
        (10**22, "10000EB"),
    ],
)
def test_size(count: int, text: str) -> None:
    assert human.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (150, "2 minutes"),
        (3600, "About an hour"),
        (47 * 3600, "47 hours"),
        (13 * 86400, "13 days"),
        (14 * 86400, "2 weeks"),
        (61 * 86400, "2 months"),
        (800 * 86400, "2 years"),
    ],
)
def test_duration_has_dockers_words(seconds: float, text: str) -> None:
    assert human.duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:10Z", 10.0),
        ("1970-01-01T01:00:10.5+01:00", 10.5),
        ("2024-02-29T12:00:00.123456789Z", 1709208000.123456789),
        ("2000-03-01T00:00:00Z", 951868800.0),
        ("1900-02-28T23:59:59Z", -2203891201.0),
        ("2024-13-01T00:00:00Z", 0.0),
        ("yesterday", 0.0),
        ("", 0.0),
    ],
)
def test_parse_time(text: str, seconds: float) -> None:
    assert human.parse_time(text) == pytest.approx(seconds)


@given(moment=st.datetimes(timezones=st.just(UTC)))
def test_every_time_of_the_calendar_is_read(moment: datetime) -> None:
    text = moment.isoformat()
    assert human.parse_time(text) == pytest.approx(moment.timestamp(), abs=1e-3)
