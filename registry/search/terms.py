"""What a manifest can be found by: read from the manifest and its configuration, within limits.

Both are a stranger's. So counts and lengths are bounded, control characters become spaces, and what
cannot be read gives no terms; the manifest itself is none the worse for it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ocispec.errors import SpecError
from ocispec.jsondoc import parse_object
from registry.search.query import ANNOTATION, BASE, LABEL, PLATFORM, TYPE

#: A configuration that is longer is not read: those of real images have some ten thousand bytes.
MAX_CONFIG_BYTES = 1 << 20
MAX_PAIRS = 64
MAX_PLATFORMS = 64
MAX_KEY = 128
MAX_VALUE = 256
MAX_DESCRIPTION = 512

_DESCRIPTIONS = ("org.opencontainers.image.description", "org.opencontainers.image.title")
_BASE_NAME = "org.opencontainers.image.base.name"
_BASE_DIGEST = "org.opencontainers.image.base.digest"
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u200b-\u200f\u2028-\u202e\u2066-\u2069]+")
_PLATFORM_PART = re.compile(r"[a-z0-9_.-]{1,32}")

Term = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Terms:
    #: (kind, value), sorted, none twice.
    terms: tuple[Term, ...] = ()
    description: str = ""


def terms_of(
    *,
    media_type: str,
    artifact_type: str,
    config_media_type: str,
    annotations: str,
    index: bytes | None = None,
    config: bytes | None = None,
) -> Terms:
    """The terms of one manifest. `annotations` is JSON; `index` and `config` as pushed."""
    found: set[Term] = set()
    for kind in (artifact_type, config_media_type, media_type):
        if kind:
            found.add((TYPE, clean(kind, MAX_VALUE)))
    notes = _texts(_json(annotations.encode()))
    document = _json(config) if config is not None else {}
    inner = document.get("config")
    labels = _texts(inner.get("Labels") if isinstance(inner, dict) else None)
    found.update(_pairs(ANNOTATION, notes))
    found.update(_pairs(LABEL, labels))
    for holder in (labels, notes):
        if name := holder.get(_BASE_NAME):
            found.update((BASE, value) for value in base_names(clean(name, MAX_VALUE)))
        if digest := holder.get(_BASE_DIGEST):
            found.add((BASE, clean(digest, MAX_VALUE)))
    platforms: list[object] = [document] if document else []
    if index is not None:
        children = _json(index).get("manifests")
        if isinstance(children, list):
            platforms += [c.get("platform") for c in children[:1000] if isinstance(c, dict)]
    spelled = sorted({text for one in platforms for text in platform_names(one)})
    found.update((PLATFORM, text) for text in spelled[:MAX_PLATFORMS])
    description = ""
    for holder in (notes, labels):
        for key in _DESCRIPTIONS:
            description = description or clean(holder.get(key, ""), MAX_DESCRIPTION)
    return Terms(tuple(sorted(found)), description)


def clean(text: str, limit: int) -> str:
    """Without what moves a cursor or hides, and cut."""
    return _UNSEEN.sub(" ", text[: 4 * limit]).strip()[:limit]


def base_names(name: str) -> set[str]:
    """The ways to say a base image: whole, without its tag, and as people call it."""
    whole = name.partition("@")[0]
    head, slash, last = whole.rpartition("/")
    bare = last.partition(":")[0]
    return {name, whole, head + slash + bare, last, bare} - {""}


def platform_names(platform: object) -> set[str]:
    """`linux/arm/v7` is found as itself and as `linux/arm`."""
    if not isinstance(platform, Mapping):
        return set()
    parts = [platform.get("os"), platform.get("architecture"), platform.get("variant")]
    texts = [p.lower() if isinstance(p, str) else "" for p in parts]
    system, machine, variant = (t if _PLATFORM_PART.fullmatch(t) else "" for t in texts)
    if not system or not machine or "unknown" in (system, machine):
        return set()
    short = f"{system}/{machine}"
    return {short, f"{short}/{variant}"} if variant else {short}


def _json(raw: bytes) -> dict[str, Any]:
    try:
        return parse_object(raw, limit=8 << 20)
    except SpecError:
        return {}


def _texts(value: object) -> dict[str, str]:
    if not isinstance(value, Mapping):
        return {}
    return {k: v for k, v in value.items() if isinstance(k, str) and isinstance(v, str)}


def _pairs(kind: str, pairs: Mapping[str, str]) -> Iterable[Term]:
    for key in sorted(pairs)[:MAX_PAIRS]:
        name = clean(key, MAX_KEY)
        if name:
            yield kind, f"{name}={clean(pairs[key], MAX_VALUE)}"


def dump_terms(terms: Iterable[Term]) -> str:
    return json.dumps([list(term) for term in terms], ensure_ascii=False)


def load_terms(text: str) -> list[Term]:
    return [(kind, value) for kind, value in json.loads(text)]
