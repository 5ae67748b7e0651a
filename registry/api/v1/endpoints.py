"""All endpoints of the administration API: one line for each noun."""

from __future__ import annotations

from registry.api.v1 import (
    about,
    collection,
    history,
    repositories,
    retention,
    search,
    users,
)
from registry.api.v1.table import Table

TABLE = Table(
    (
        *about.ENDPOINTS,
        *collection.ENDPOINTS,
        *users.ENDPOINTS,
        *repositories.ENDPOINTS,
        *search.ENDPOINTS,
        *history.ENDPOINTS,
        *retention.ENDPOINTS,
    )
)
