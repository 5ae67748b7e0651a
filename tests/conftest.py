"""How property tests run: the same examples every time, however busy the machine is.

`pytest --hypothesis-profile=deep` looks further, with examples of its own.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

_QUIET = [HealthCheck.too_slow]

settings.register_profile("fixed", deadline=None, derandomize=True, suppress_health_check=_QUIET)
settings.register_profile(
    "deep", deadline=None, max_examples=5000, suppress_health_check=_QUIET, print_blob=True
)
settings.load_profile("fixed")
