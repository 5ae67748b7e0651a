"""The catalog: repositories that hold something, as far as the caller may see."""

from __future__ import annotations

from registry.metadata import repositories


async def names(registry, may_read=lambda name: True, **options):
    page = await registry.metadata.repositories.page(may_read, **options)
    return [name.text for name in page.items], page.more


async def test_sorted_bytewise_and_paged(registry):
    wanted = ["a", "a-b", "a/b", "a0", "ab", "b"]
    assert wanted == sorted(wanted)
    for name in reversed(wanted):
        await registry.image(b"{}", name=name)
    assert await names(registry, n=100) == (wanted, False)
    assert await names(registry, n=2) == (["a", "a-b"], True)
    assert await names(registry, n=4, last="a-b") == (["a/b", "a0", "ab", "b"], False)
    assert await names(registry, n=3, last="a-zz") == (["a/b", "a0", "ab"], True)
    assert await names(registry, n=0) == ([], False)


async def test_a_repository_without_a_manifest_is_not_listed(registry):
    await registry.metadata.uploads.begin(registry.access("only/uploading"))
    new = await registry.image(b"{}", name="emptied")
    await registry.metadata.manifests.remove(registry.access("emptied"), new.digest)
    assert await names(registry, n=10) == ([], False)


async def test_what_may_not_be_read_is_neither_shown_nor_counted(registry, monkeypatch):
    monkeypatch.setattr(repositories, "_PIECE", 3)
    for number in range(10):
        await registry.image(b"{}", name=f"app{number}")

    def even(name: str) -> bool:
        return int(name[-1]) % 2 == 0

    assert await names(registry, even, n=3) == (["app0", "app2", "app4"], True)
    assert await names(registry, even, n=2, last="app4") == (["app6", "app8"], False)
    assert await names(registry, lambda name: False, n=5) == ([], False)
