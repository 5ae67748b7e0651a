"""The registry's application: everything put together, as a list one can read."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.routing import Router

from registry.api import devices
from registry.api.dispatch import DistributionRoute, Opened, PlainRoute, not_found
from registry.api.exchange import always_headers
from registry.api.forwarded import ForwardedHeaders
from registry.api.health import Readiness, live, ready
from registry.api.immediate import Immediate
from registry.api.metrics import metrics
from registry.api.middleware import Observing
from registry.api.search import ping, search
from registry.api.services import Services
from registry.api.tokens import jwks, revoke, token_by_get, token_by_post
from registry.api.v1.route import ApiRoute
from registry.auth.guard import Guard
from registry.auth.issuers import Issuers
from registry.auth.limits import LoginLimits, RequestLimits
from registry.auth.live import LivePolicy
from registry.auth.login import Logins
from registry.auth.passwords import Passwords
from registry.auth.refresh import RefreshTokens
from registry.auth.tokens import open_token_service
from registry.auth.trust import TrustedIssuers
from registry.content.blobs import Blobs
from registry.content.collect import Collector, CollectTerms
from registry.content.collection_loop import CollectionLoop, LoopTerms
from registry.content.uploads import BlobUploads
from registry.errors import RegistryError
from registry.metadata.base import Metadata
from registry.metadata.database import open_metadata
from registry.metadata.transaction import Terms
from registry.observe.counts import UPLOADS
from registry.observe.monitoring import open_monitoring
from registry.observe.requests import Observer
from registry.search.indexer import Indexer
from registry.storage.opening import open_storage
from registry.upkeep import keep_history
from registry.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from registry.server.immediate import Answer, Client
    from registry.settings import Settings

log = logging.getLogger("pyreg.registry")

DATABASE = "metadata.db"
ALONE = Worker()

# How often expired uploads are looked for.
REAP_EVERY_S = 600


class Application:
    """The ASGI application, and the responder that our server asks first."""

    def __init__(self, app: Router, wrapped: ASGIApp, opened: Opened) -> None:
        self.app = app
        self._wrapped = wrapped
        self._opened = opened

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            send = self._without_traceback(send)
        await self._wrapped(scope, receive, send)

    @property
    def failure(self) -> RegistryError | None:
        """Why the start failed, in words for the operator; None for a bug, which is logged."""
        return self._opened.failure

    def _without_traceback(self, send: Send) -> Send:
        async def forward(message: Message) -> None:
            if message["type"] == "lifespan.startup.failed" and self.failure is not None:
                message = {"type": message["type"]}
            await send(message)

        return forward

    def drain(self) -> None:
        """From now on `/readyz` says that the server stops."""
        if self._opened.services is not None:
            self._opened.services.readiness.drain()

    def responder(
        self, method: bytes, path: bytes, fields: Mapping[bytes, bytes], client: Client
    ) -> Answer | None:
        """See `registry.server.immediate`."""
        immediate = self._opened.immediate
        return None if immediate is None else immediate(method, path, fields, client)


def create_app(settings: Settings, worker: Worker = ALONE) -> Application:
    """The ASGI application; its resources are open from lifespan start-up to shut-down.

    `worker` says which of several processes with the same settings this is.
    """
    opened = Opened()
    observer = Observer()

    @asynccontextmanager
    async def lifespan(app: object) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            try:
                services = await stack.enter_async_context(
                    open_services(settings, observer, worker)
                )
            except RegistryError as error:
                opened.failure = error
                raise
            opened.services = services
            opened.immediate = Immediate(
                services, address=None if proxies is None else proxies.address
            )
            chores = [asyncio.create_task(_reap_uploads(services))] if worker.is_first else []
            chores.append(
                asyncio.create_task(
                    keep_history(services.metadata, services.pulls, leads=worker.is_first)
                )
            )
            if worker.is_first:
                indexer = Indexer(services.metadata.search_index, services.storage)
                chores.append(asyncio.create_task(indexer.run()))
                if settings.gc:
                    chores.append(asyncio.create_task(collection_loop(services).run()))
            try:
                yield
            finally:
                opened.services = opened.immediate = None
                for chore in chores:
                    chore.cancel()
                await asyncio.gather(*chores, return_exceptions=True)

    router = Router(
        [
            DistributionRoute(opened),
            PlainRoute("/token", {"GET": token_by_get, "POST": token_by_post}, opened, "token"),
            PlainRoute("/token/revoke", {"POST": revoke}, opened, "token"),
            PlainRoute("/token/jwks", {"GET": jwks, "HEAD": jwks}, opened, "token"),
            PlainRoute(devices.PATH, {"POST": devices.begin}, opened, "token"),
            PlainRoute(
                devices.VERIFY,
                {"GET": devices.show, "HEAD": devices.show, "POST": devices.decide},
                opened,
                "token",
            ),
            ApiRoute(opened),
            PlainRoute("/v1/search", {"GET": search, "HEAD": search}, opened, "search"),
            PlainRoute("/v1/_ping", {"GET": ping, "HEAD": ping}, opened, "search"),
            PlainRoute("/livez", {"GET": live, "HEAD": live}, opened, "health"),
            PlainRoute("/readyz", {"GET": ready, "HEAD": ready}, opened, "health"),
            PlainRoute("/metrics", {"GET": metrics, "HEAD": metrics}, opened, "metrics"),
        ],
        redirect_slashes=False,  # a redirected POST loses its upload
        default=not_found,
        lifespan=lifespan,
    )
    app: ASGIApp = Observing(router, observer)
    proxies: ForwardedHeaders | None = None
    if settings.trusted_proxies:
        app = proxies = ForwardedHeaders(app, settings.trusted_proxies)
    return Application(router, app, opened)


@asynccontextmanager
async def open_services(
    settings: Settings, observer: Observer, worker: Worker
) -> AsyncIterator[Services]:
    """Open the blob store and the database, and close them again."""
    storage = await asyncio.to_thread(open_storage, settings)
    metadata = open_database(settings)
    passwords = Passwords()
    stack = AsyncExitStack()
    try:
        policy = LivePolicy(
            metadata.policy,
            metadata.hot.policy_version,
            anonymous_pull=settings.anonymous_pull,
        )
        logins = Logins(
            metadata.accounts,
            passwords,
            LoginLimits(settings.login_failures),
            metadata.access_tokens,
            TrustedIssuers(metadata.trust, Issuers(settings.issuer_hosts)),
        )
        limits = RequestLimits(
            anonymous_per_minute=settings.anonymous_requests_per_minute,
            account_per_minute=settings.account_requests_per_minute,
        )
        tokens = await open_token_service(
            metadata.credentials,
            issuer=settings.service,
            service=settings.service,
            lifetime_s=settings.token_lifetime_s,
            version_now=metadata.hot.policy_version,
        )
        policy.also(tokens.reload)
        refresh_tokens = RefreshTokens(metadata.credentials)
        readiness = Readiness(
            {
                # Any read will do; nobody needs to be found.
                "database": lambda: metadata.accounts.find("admin"),
                "storage": lambda: asyncio.to_thread(storage.check),
            }
        )
        monitoring = await stack.enter_async_context(
            open_monitoring(
                settings,
                observer,
                worker,
                count_uploads=metadata.uploads.count,
                ready=readiness.reason,
            )
        )
        yield Services(
            settings=settings,
            metadata=metadata,
            guard=Guard(
                account_now=metadata.hot.account,
                session_holder=refresh_tokens.holder,
                logins=logins,
                limits=limits,
                tokens=tokens,
                policy=policy,
                enabled=settings.auth,
            ),
            policy=policy,
            tokens=tokens,
            refresh_tokens=refresh_tokens,
            passwords=passwords,
            storage=storage,
            logins=logins,
            limits=limits,
            blobs=Blobs(
                metadata, storage, redirects=settings.storage == "s3" and settings.s3_redirect
            ),
            uploads=BlobUploads(metadata, storage, max_blob_bytes=settings.max_blob_bytes),
            always=always_headers(settings.warning),
            observer=observer,
            pulls={},
            readiness=readiness,
            monitoring=monitoring,
        )
    finally:
        await stack.aclose()
        await asyncio.to_thread(passwords.close)
        await asyncio.to_thread(metadata.close)
        await asyncio.to_thread(storage.close)


def open_database(settings: Settings) -> Metadata:
    """The database of these settings, created or upgraded as need be. Blocks."""
    terms = Terms(
        upload_expiry_s=settings.upload_expiry_s,
        lease_s=settings.lease_s,
        history_s=settings.history_days * 24 * 3600,
        # A tag that was deleted can be restored for as long as anything else: its manifest stays.
        untagged_s=settings.untagged_days
        and max(settings.untagged_days, settings.history_days) * 24 * 3600,
    )
    return open_metadata(
        Path(settings.data) / DATABASE,
        database=settings.database,
        connections=settings.database_connections,
        terms=terms,
    )


def collection_loop(services: Services) -> CollectionLoop:
    """The collector of these services, as their settings want it."""
    settings = services.settings
    delay = settings.gc_sweep_delay_s
    if settings.storage == "s3" and settings.s3_redirect:
        delay = max(delay, settings.s3_redirect_s)  # a signed URL must not end in nothing
    collector = Collector(
        services.metadata, services.storage, terms=CollectTerms(sweep_delay_s=delay)
    )
    terms = LoopTerms(pace=settings.gc_pace, scrub_bytes=settings.scrub_bytes)
    return CollectionLoop(collector, terms)


async def _reap_uploads(services: Services) -> None:
    while True:
        try:
            # Twice the expiry: what has a row is the row's business.
            expired = await services.uploads.reap(
                older_than_s=2 * services.settings.upload_expiry_s
            )
            UPLOADS.add("expired", expired)
        except Exception as error:
            # The next round tries again; a registry without room still serves pulls.
            log.warning("cannot remove expired uploads: %s", error)
        await asyncio.sleep(REAP_EVERY_S)
