"""The administration API in process, for the machine that has the registry's files.

Whoever may open the database is its administrator already: no login is asked for. The server may be
running meanwhile, as for everything else that opens the database.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from starlette.routing import Router

from registry.api.dispatch import Opened, not_found
from registry.api.v1.route import ApiRoute
from registry.app import ALONE, open_services
from registry.auth.guard import Caller
from registry.auth.policy import ADMIN, Subject
from registry.observe.requests import Observer

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from registry.settings import Settings

# No account has such a name: it is in the history of tags for what was done here.
LOCAL = "(local)"


@asynccontextmanager
async def open_local_api(settings: Settings) -> AsyncIterator[ASGIApp]:
    """An ASGI application with nothing but `/api/v1` in it, for the local administrator."""
    opened = Opened()
    quiet = replace(settings, metrics_listen="", access_log="off", tracing=False)
    async with open_services(quiet, Observer(), ALONE) as services:
        opened.services = services
        route = ApiRoute(opened, local=Caller(Subject(LOCAL, ADMIN)))
        yield Router([route], redirect_slashes=False, default=not_found)
