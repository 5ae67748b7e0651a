"""Repositories and their tags, as far as the caller may pull from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from registry.api.v1.call import Call
from registry.api.v1.shapes import Text
from registry.api.v1.table import Endpoint, Listing, On, Who
from registry.metadata.overview import RepositorySummary, TagSummary


@dataclass(frozen=True, slots=True)
class RepositoryNamed:
    name: str


@dataclass(frozen=True, slots=True)
class RepositoryFilter:
    prefix: Annotated[str, Text(0, 255, description="names begin with this")] = ""


async def list_repositories(call: Call) -> Listing:
    prefix = call.query(RepositoryFilter).prefix

    def wanted(name: str) -> bool:
        return name.startswith(prefix) and call.may_read(name)

    repositories = call.services.metadata.repositories
    page = await repositories.page(wanted, n=call.paging.n, last=call.paging.last)
    names = [name.text for name in page.items]
    last = (page.seen or names[-1]) if page.more else ""
    return Listing(tuple(map(RepositoryNamed, names)), last)


async def show_repository(call: Call) -> RepositorySummary:
    return await call.services.metadata.overview.repository(call.access)


async def list_repository_tags(call: Call) -> Listing:
    page = await call.services.metadata.overview.tags(
        call.access, n=call.paging.n, last=call.paging.last
    )
    return Listing(page.items, page.items[-1].name if page.more else "")


ENDPOINTS = (
    Endpoint(
        "GET", "/repositories", list_repositories, Who.ACCOUNT,
        "List the repositories that the caller may pull from", RepositoryNamed,
        query=RepositoryFilter, paged=True,
    ),
    Endpoint(
        "GET", "/repositories/{repository}", show_repository, On("pull"),
        "Show what is in a repository", RepositorySummary,
    ),
    Endpoint(
        "GET", "/repositories/{repository}/_tags", list_repository_tags, On("pull"),
        "List the tags of a repository", TagSummary, paged=True,
    ),
)  # fmt: skip
