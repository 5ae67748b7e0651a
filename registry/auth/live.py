"""The policy as it is now, in every process: loaded again when the database counts a change."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from registry.auth.policy import Policy
from registry.metadata.base import AccessPolicy


class LivePolicy:
    """For one event loop."""

    def __init__(
        self,
        rows: AccessPolicy,
        version_now: Callable[[], Awaitable[int]],
        *,
        anonymous_pull: bool = False,
    ) -> None:
        self._rows = rows
        self._version_now = version_now
        self._anonymous_pull = anonymous_pull
        self._also: list[Callable[[], Awaitable[None]]] = []
        #: As it was loaded last; right as long as its version is the database's.
        self.current = Policy(anonymous_pull=anonymous_pull, version=-1)

    def also(self, load: Callable[[], Awaitable[None]]) -> None:
        """Call this before the next policy counts: something else that the same number is about."""
        self._also.append(load)

    async def now(self) -> Policy:
        return await self.at(await self._version_now())

    async def at(self, version: int) -> Policy:
        """The policy at least as new as a version that was just read with something else."""
        if version != self.current.version:
            rows = await self._rows.load()
            for load in self._also:
                await load()
            self.current = Policy(
                anonymous_pull=self._anonymous_pull,
                rules=rows.rules,
                immutable=rows.immutable,
                groups=rows.groups,
                version=rows.version,
            )
        return self.current
