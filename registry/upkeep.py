"""What history needs done from time to time: pull times written down, old trash forgotten,
retention rules run."""

from __future__ import annotations

import asyncio
import logging

from registry.errors import RegistryError
from registry.metadata.base import Metadata

log = logging.getLogger("pyreg.registry")

EVERY_S = 60

# (repository, digest) of what was pulled since the last flush: one store for each GET.
Pulls = dict[tuple[str, str], None]


async def keep_history(metadata: Metadata, pulls: Pulls, *, leads: bool) -> None:
    """Until it is cancelled; the pulls of the last minute are written down then, too.

    leads: whether this process also does what one process of a machine is enough for.
    """
    try:
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                await flush_pulls(metadata, pulls)
                if leads:
                    while await metadata.trash.expire():
                        pass
                    await run_retention(metadata)
            except RegistryError as error:
                log.warning("history waits for the next minute: %s", error)
    finally:
        try:
            await flush_pulls(metadata, pulls)
        except RegistryError as error:
            log.warning("the last pull times are lost: %s", error)


async def flush_pulls(metadata: Metadata, pulls: Pulls) -> None:
    taken = dict(pulls)
    pulls.clear()
    if taken:
        await metadata.retention.pulled(taken)


async def run_retention(metadata: Metadata) -> int:
    """Run the acknowledged rules if their hour has come; how many tags went."""
    name = await metadata.retention.take_lease()
    if not name:
        return 0
    total, after, more = 0, "", True
    while more:
        deleted, after = await metadata.retention.run(name, after=after)
        total += deleted
        more = bool(after)
    return total
