"""What is told about a repository."""

from __future__ import annotations

import pytest

from registry.errors import Denied, NameUnknown


async def test_counts_sizes_and_times(registry):
    first = await registry.image(b"{}", "v1", "v2", name="team/app", layers=(b"layer",))
    found = await registry.metadata.overview.repository(registry.access("team/app"))
    assert (found.name, found.tags, found.manifests) == ("team/app", 2, 1)
    assert (found.blobs, found.bytes) == (1, 5)
    assert found.pushed_at is not None and found.pulled_at is None
    page = await registry.metadata.overview.tags(registry.access("team/app"), n=1)
    assert (page.items[0].name, page.items[0].digest, page.more) == ("v1", str(first.digest), True)
    rest = await registry.metadata.overview.tags(registry.access("team/app"), n=5, last="v1")
    assert [each.name for each in rest.items] == ["v2"] and not rest.more


async def test_unknown_and_forbidden(registry):
    with pytest.raises(NameUnknown):
        await registry.metadata.overview.repository(registry.access("no/such"))
    await registry.image(b"{}", name="team/app")
    with pytest.raises(Denied):
        await registry.metadata.overview.repository(registry.access("team/app", "omri", "push"))
