"""What handlers borrow: opened in the application's lifespan, closed there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from registry.api.health import Readiness
    from registry.auth.guard import Guard
    from registry.auth.limits import RequestLimits
    from registry.auth.live import LivePolicy
    from registry.auth.login import Logins
    from registry.auth.passwords import Passwords
    from registry.auth.refresh import RefreshTokens
    from registry.auth.tokens import TokenService
    from registry.content.blobs import Blobs
    from registry.content.uploads import BlobUploads
    from registry.metadata.base import Metadata
    from registry.observe.monitoring import Monitoring
    from registry.observe.requests import Observer
    from registry.settings import Settings
    from registry.storage.base import Storage
    from registry.upkeep import Pulls


@dataclass(frozen=True, slots=True)
class Services:
    """One of each; all are safe for many requests at once."""

    settings: Settings
    metadata: Metadata
    guard: Guard
    policy: LivePolicy
    tokens: TokenService
    refresh_tokens: RefreshTokens
    passwords: Passwords
    storage: Storage
    logins: Logins
    limits: RequestLimits
    blobs: Blobs
    uploads: BlobUploads
    #: Headers of every answer.
    always: list[tuple[bytes, bytes]]
    observer: Observer
    #: (repository, digest) of manifests pulled in the last minute.
    pulls: Pulls
    readiness: Readiness
    monitoring: Monitoring
