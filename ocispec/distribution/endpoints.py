"""Paths of the distribution API, as a client asks for them and a server names them.

All are relative to the registry's root and start with `/v2/`. A server sends them as they are in
Location and Link: an absolute URL breaks clients behind a proxy that ends TLS. Names, tags and
digests need no escaping, by their grammar. Spec: distribution-spec, "Endpoints".
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ocispec.digest import Digest
    from ocispec.distribution.name import RepositoryName, Tag

BASE = "/v2/"
CATALOG = "/v2/_catalog"


def manifest_path(name: RepositoryName, reference: Tag | Digest | str) -> str:
    """end-3, end-7, end-9. A `str` must come from a `Reference.target`."""
    return f"/v2/{name}/manifests/{reference}"


def blob_path(name: RepositoryName, digest: Digest) -> str:
    """end-2, end-10"""
    return f"/v2/{name}/blobs/{digest}"


def uploads_path(
    name: RepositoryName,
    *,
    digest: Digest | None = None,
    algorithm: str = "",
    mount: Digest | None = None,
    source: RepositoryName | None = None,
) -> str:
    """end-4a to end-4c and end-11: where an upload begins.

    digest: the body is the whole blob. algorithm: what the upload will be hashed with, if not
    SHA-256. mount: a blob to take from `source`, or from anywhere if that is None.
    """
    query = {"digest": digest, "digest-algorithm": algorithm, "mount": mount, "from": source}
    return f"/v2/{name}/blobs/uploads/" + _query(query)


def upload_path(name: RepositoryName, upload: str) -> str:
    """end-5, end-6, end-13, end-14: one upload, by the id the server gave it."""
    return f"/v2/{name}/blobs/uploads/{upload}"


def tags_path(name: RepositoryName, *, count: int | None = None, last: str = "") -> str:
    """end-8: at most `count` tags, those after `last`."""
    return f"/v2/{name}/tags/list" + _query({"n": count, "last": last})


def referrers_path(
    name: RepositoryName, digest: Digest, *, artifact_type: str = "", last: str = ""
) -> str:
    """end-12: what names `digest` as its subject; `last` is our own paging."""
    query = {"artifactType": artifact_type, "last": last}
    return f"/v2/{name}/referrers/{digest}" + _query(query)


def referrers_tag(digest: Digest) -> str:
    """The tag that holds the referrers of a manifest where the registry has no referrers API."""
    return f"{digest.algorithm[:32]}-{digest.encoded[:64]}"


def catalog_path(*, count: int | None = None, last: str = "") -> str:
    """Not in the spec, but asked for by everybody: at most `count` names after `last`."""
    return CATALOG + _query({"n": count, "last": last})


def _query(parameters: Mapping[str, object]) -> str:
    given = {name: item for name, item in parameters.items() if item is not None and item != ""}
    if not given:
        return ""
    from urllib.parse import quote  # most paths have no query

    pairs = (f"{name}={quote(str(item), safe='/:')}" for name, item in given.items())
    return "?" + "&".join(pairs)
