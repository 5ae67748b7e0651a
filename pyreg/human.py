"""Sizes and times the way docker prints them."""

from __future__ import annotations

UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")


def size(count: int, digits: int = 3) -> str:
    """Bytes with a decimal unit and `digits` significant digits: 117MB, 4.21kB, 0B."""
    amount = float(count)
    for unit in UNITS:
        # What would be rounded to 1000 of a unit is 1 of the next.
        if float(f"{amount:.{digits}g}") < 1000 or unit == UNITS[-1]:
            break
        amount /= 1000
    return f"{amount:.{digits}g}{unit}" if amount < 1000 else f"{amount:.0f}{unit}"


def duration(seconds: float) -> str:
    """A span in words: "Less than a second", "About a minute", "3 weeks"."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    minutes = whole // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    days = hours // 24
    if days < 14:
        return f"{days} days"
    if days < 60:
        return f"{days // 7} weeks"
    if days < 730:
        return f"{days // 30} months"
    return f"{days // 365} years"


def ago(then: float, now: float) -> str:
    """How long ago in words; times in seconds since the epoch. "N/A" when unknown (0)."""
    return f"{duration(max(0.0, now - then))} ago" if then else "N/A"


def parse_time(text: str) -> float:
    """An RFC 3339 time, as configs and manifests carry it, in seconds since the epoch; 0 if bad."""
    from re import fullmatch

    match = fullmatch(
        r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(\.\d{1,12})?(Z|z|[+-]\d\d:\d\d)", text
    )
    if match is None:
        return 0.0
    year, month, day, hour, minute, second = (int(match[i]) for i in range(1, 7))
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return 0.0
    moment = _days(year, month, day) * 86400 + hour * 3600 + minute * 60 + second
    zone = match[8]
    offset = 0
    if zone not in "Zz":
        offset = (int(zone[1:3]) * 3600 + int(zone[4:6]) * 60) * (1 if zone[0] == "+" else -1)
    return moment - offset + float(match[7] or 0)


def _days(year: int, month: int, day: int) -> int:
    """Days from 1970-01-01 in the Gregorian calendar; `calendar` and `datetime` take 2 ms to load.

    Years begin in March here, so that the leap day is the last of one.
    """
    if month <= 2:
        year, month = year - 1, month + 12
    leap_days = year // 4 - year // 100 + year // 400
    return 365 * year + leap_days + (153 * (month - 3) + 2) // 5 + day - 719469
