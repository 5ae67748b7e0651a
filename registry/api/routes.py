"""Which operation a request asks for: the paths of the Distribution API, as one table.

Repository names may hold slashes and even words of the API (`a/blobs/manifests/tags`), so a path is
read from the right: one greedy expression over the percent-decoded path. Authorisation and lookup
both use what this module returns, never the raw path.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

BASE = "base"
BLOB = "blob"
UPLOADS = "uploads"
UPLOAD = "upload"
MANIFEST = "manifest"
TAGS = "tags"
REFERRERS = "referrers"
CATALOG = "catalog"
EXTENSIONS = "extensions"
HISTORY = "history"

# A name has at most 255 characters, a digest 135, an upload id 36: nothing valid is longer.
MAX_PATH = 1024

# The group that closed last names the kind; it is what the path ends with.
_PATH = re.compile(
    r"/v2(?:"
    r"(?P<base>/?)"
    r"|/(?P<catalog>_catalog)"
    r"|/(?P<extensions>_oci/ext/discover)"
    r"|/(?P<name>.+)/(?:"
    r"manifests/(?P<manifest>[^/]+)"
    r"|(?P<uploads>blobs/uploads/?)"
    r"|blobs/uploads/(?P<upload>[^/]+)"
    r"|blobs/(?P<blob>[^/]+)"
    r"|(?P<tags>tags/list)"
    r"|referrers/(?P<referrers>[^/]+)"
    r"|_pyreg/history/(?P<history>[^/]+)"
    r"))"
)


@dataclass(frozen=True, slots=True)
class Target:
    """What a path names. Nothing in it is checked yet but its shape.

    kind: one of the constants above.
    name: the repository, empty for `base`, `catalog` and `extensions`.
    reference: tag, digest or upload id, empty where the path has none.
    """

    kind: str
    name: str
    reference: str


def parse_path(path: str) -> Target | None:
    """Read a percent-decoded path; None if it is none of the API's."""
    if len(path) > MAX_PATH:
        return None
    match = _PATH.fullmatch(path)
    if match is None:
        return None
    kind = match.lastgroup
    assert kind is not None  # every alternative has a group
    name = match["name"]
    if name is None:
        return Target(kind, "", "")
    return Target(kind, name, "" if kind in (UPLOADS, TAGS) else match[kind])


# What a caller must be allowed to do, by operation. `session` is an upload: besides the right to
# push, it must be the caller's own. The endpoint matrix of the tests is generated from this table.
PULL = "pull"
PUSH = "push"
DELETE = "delete"

ACTIONS: dict[tuple[str, str], tuple[str, ...]] = {
    (BLOB, "GET"): (PULL,),
    (BLOB, "HEAD"): (PULL,),
    (BLOB, "DELETE"): (DELETE,),
    (UPLOADS, "POST"): (PULL, PUSH),
    (UPLOAD, "GET"): (PULL, PUSH),
    (UPLOAD, "HEAD"): (PULL, PUSH),
    (UPLOAD, "PATCH"): (PULL, PUSH),
    (UPLOAD, "PUT"): (PULL, PUSH),
    (UPLOAD, "DELETE"): (PULL, PUSH),
    (MANIFEST, "GET"): (PULL,),
    (MANIFEST, "HEAD"): (PULL,),
    (MANIFEST, "PUT"): (PULL, PUSH),
    (MANIFEST, "DELETE"): (DELETE,),
    (TAGS, "GET"): (PULL,),
    (TAGS, "HEAD"): (PULL,),
    (REFERRERS, "GET"): (PULL,),
    (REFERRERS, "HEAD"): (PULL,),
    # Who changed a tag is not for everybody who may pull.
    (HISTORY, "GET"): (PULL, PUSH),
    (HISTORY, "HEAD"): (PULL, PUSH),
    (EXTENSIONS, "GET"): (),
    (EXTENSIONS, "HEAD"): (),
    (CATALOG, "GET"): (),
    (CATALOG, "HEAD"): (),
    (BASE, "GET"): (),
    (BASE, "HEAD"): (),
}


def methods_of(kind: str) -> tuple[str, ...]:
    """The methods that a kind of target answers, for `Allow`."""
    return tuple(method for known, method in ACTIONS if known == kind)
