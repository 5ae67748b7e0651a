"""All endpoints of the administration API: one line for each noun."""

from __future__ import annotations

from registry.api.v1 import (
    about,
    access_tokens,
    collection,
    groups,
    history,
    htpasswd,
    keys,
    policies,
    quotas,
    repositories,
    retention,
    robots,
    search,
    sessions,
    trust,
    users,
)
from registry.api.v1.table import Table

TABLE = Table(
    (
        *about.ENDPOINTS,
        *collection.ENDPOINTS,
        *users.ENDPOINTS,
        *htpasswd.ENDPOINTS,
        *access_tokens.ENDPOINTS,
        *sessions.ENDPOINTS,
        *keys.ENDPOINTS,
        *robots.ENDPOINTS,
        *trust.ENDPOINTS,
        *groups.ENDPOINTS,
        *policies.ENDPOINTS,
        *repositories.ENDPOINTS,
        *search.ENDPOINTS,
        *history.ENDPOINTS,
        *retention.ENDPOINTS,
        *quotas.ENDPOINTS,
    )
)
