"""Quotas: how many bytes and tags a namespace may hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from ocispec.distribution.name import RepositoryName
from registry.api.v1.call import Call
from registry.api.v1.listings import sliced
from registry.api.v1.shapes import Whole
from registry.api.v1.table import Endpoint, Listing, Who
from registry.metadata.quotas import Quota


@dataclass(frozen=True, slots=True)
class NewQuota:
    """Limits; one that is not given is none."""

    bytes_limit: Annotated[int, Whole(description="in bytes")] | None = None
    tags_limit: Annotated[int, Whole()] | None = None


async def list_quotas(call: Call) -> Listing:
    found = await call.services.metadata.quotas.all()
    return sliced(call, found, lambda quota: quota.namespace)


async def show_quota(call: Call) -> Quota:
    return await call.services.metadata.quotas.find(call.parameters["namespace"])


async def set_quota(call: Call) -> Quota:
    new = call.body(NewQuota)
    return await call.services.metadata.quotas.set(
        RepositoryName.parse(call.parameters["namespace"]),
        bytes_limit=new.bytes_limit,
        tags_limit=new.tags_limit,
    )


async def remove_quota(call: Call) -> None:
    await call.services.metadata.quotas.remove(call.parameters["namespace"])


async def recount_quota(call: Call) -> Quota:
    return await call.services.metadata.quotas.recount(call.parameters["namespace"])


ENDPOINTS = (
    Endpoint("GET", "/quotas", list_quotas, Who.ADMIN, "List the quotas", Quota, paged=True),
    Endpoint("GET", "/quotas/{namespace}", show_quota, Who.ADMIN, "Show a quota", Quota),
    Endpoint(
        "PUT", "/quotas/{namespace}", set_quota, Who.ADMIN,
        "Limit what a namespace may hold", Quota, body=NewQuota,
    ),
    Endpoint(
        "DELETE", "/quotas/{namespace}", remove_quota, Who.ADMIN, "Let a namespace grow again",
    ),
    Endpoint(
        "POST", "/quotas/{namespace}/_recount", recount_quota, Who.ADMIN,
        "Count anew what a namespace holds", Quota,
    ),
)  # fmt: skip
