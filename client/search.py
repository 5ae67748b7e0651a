"""Looking for repositories in a registry."""

from __future__ import annotations

import json
from urllib.parse import quote

from client.errors import ProtocolError, RegistryError
from client.origin import Origin
from ocispec.distribution.endpoints import catalog_path
from ocispec.value import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from client.remote import Registry

MAX_ANSWER_BYTES = 8 << 20
MAX_RESULTS = 100  # of one question, as docker allows
DOCKER_HUB_SEARCH = Origin("https", "index.docker.io", 443)  # not where its images are


@value
class Found:
    """A repository. What the registry does not tell is empty, 0 or False."""

    name: str
    description: str = ""
    stars: int = 0
    is_official: bool = False


def search(registry: Registry, term: str, limit: int) -> tuple[Found, ...]:
    """Repositories that fit `term`, at most `limit`, in the registry's order.

    Asks docker's search API; a registry without one is asked for its catalog, in which `term` is
    looked for as a part of the name.

    Raises: Denied or Unauthorized if neither may be read, ProtocolError if neither exists.
    """
    limit = min(limit, MAX_RESULTS)
    found = _ask(registry, term, limit)
    if found is not None:
        return found[:limit]
    names: list[Found] = []
    for name in catalog(registry):
        if term.lower() in name.lower():
            names.append(Found(name))
            if len(names) == limit:
                break
    return tuple(names)


def catalog(registry: Registry) -> Iterator[str]:
    """Every repository name, a page at a time."""
    for page in registry.pages(
        catalog_path(count=1000),
        "repositories",
        scopes=frozenset({"registry:catalog:*"}),
        what=f"catalog of {registry.name}",
    ):
        yield from (str(name) for name in page)


def _ask(registry: Registry, term: str, limit: int) -> tuple[Found, ...] | None:
    """The answer of /v1/search; None where there is no such thing."""
    target = f"/v1/search?q={quote(term, safe='')}&n={limit}"
    if registry.name == "docker.io":
        response = registry.transport.request("GET", DOCKER_HUB_SEARCH, target)
    else:
        response = registry.request("GET", target, attempts=1)
    with response:
        kind = response.header("Content-Type")
        if response.status != 200 or "json" not in kind:
            response.finish()
            return None
        try:
            raw = response.read(MAX_ANSWER_BYTES, "search results")
            results = json.loads(raw)["results"]
            return tuple(_found(item) for item in results)
        except (RegistryError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise ProtocolError(
                f"{registry.name} sent search results that cannot be read", registry=registry.name
            ) from error


def _found(item: dict[str, Any]) -> Found:
    stars = item.get("star_count")
    return Found(
        name=str(item["name"]),
        description=str(item.get("description") or ""),
        stars=stars if isinstance(stars, int) else 0,
        is_official=item.get("is_official") is True,
    )
