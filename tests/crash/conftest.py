"""Random moments that are the same in every run, and the machines of `integration`.

`PYREG_TEST_SEED=2 PYREG_TEST_KILLS=200 pytest tests/crash` looks at others, and at more of them.
"""

from __future__ import annotations

import os

from tests.integration.conftest import machine, new_machine, raw, registry

__all__ = ["machine", "new_machine", "raw", "registry"]

SEED = os.environ.get("PYREG_TEST_SEED", "1")


def kills(usual: int) -> int:
    """How often to kill."""
    return int(os.environ.get("PYREG_TEST_KILLS", usual))
