"""Every declared error has an answer of its own; what is not declared tells nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from ocispec import errors as spec
from ocispec.digest import Digest
from registry import errors as domain
from registry.api.problems import problem_body, refuse
from registry.server import errors as body
from registry.storage import errors as storage
from registry.storage.base import StoreKey

DIGEST = Digest.of(b"")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (domain.NameUnknown("a"), 404, "NAME_UNKNOWN"),
        (domain.ManifestUnknown("a", "b"), 404, "MANIFEST_UNKNOWN"),
        (domain.BlobUnknown("a", DIGEST), 404, "BLOB_UNKNOWN"),
        (domain.UploadUnknown("a"), 404, "BLOB_UPLOAD_UNKNOWN"),
        (domain.ManifestBlobUnknown("a", [DIGEST]), 400, "MANIFEST_BLOB_UNKNOWN"),
        (domain.DigestMismatched(expected="a", found="b"), 400, "DIGEST_INVALID"),
        (domain.RangeMismatch(expected=1, found=2), 416, "BLOB_UPLOAD_INVALID"),
        (domain.SizeMismatch(expected=1, found=2), 400, "SIZE_INVALID"),
        (domain.Denied("push", "a"), 403, "DENIED"),
        (domain.BlobReferenced("a", DIGEST), 405, "DENIED"),
        (domain.Unauthenticated(), 401, "UNAUTHORIZED"),
        (domain.DatabaseBusy(5), 503, "UNAVAILABLE"),
        (domain.StaleGeneration(DIGEST, generation=1), 503, "UNAVAILABLE"),
        (domain.TooManyRequests("x", after_s=7), 429, "TOOMANYREQUESTS"),
        (domain.StorageFull("x"), 507, "UNAVAILABLE"),
        (storage.StorageFull("x"), 507, "UNAVAILABLE"),
        (storage.StorageFailed("x", "EIO"), 503, "UNAVAILABLE"),
        (storage.BlobMissing(StoreKey(DIGEST)), 404, "BLOB_UNKNOWN"),
        (storage.UploadBusy("x"), 409, "BLOB_UPLOAD_INVALID"),
        (storage.UploadUnknown("x"), 404, "BLOB_UPLOAD_UNKNOWN"),
        (storage.OffsetMismatch(expected=1, found=2), 416, "BLOB_UPLOAD_INVALID"),
        (body.ClientStalled(60), 408, "BLOB_UPLOAD_INVALID"),
        (body.MalformedBody("x"), 400, "BLOB_UPLOAD_INVALID"),
        (body.BodyTooLarge(5), 413, "SIZE_INVALID"),
        (spec.InvalidDigest("x"), 400, "DIGEST_INVALID"),
        (spec.InvalidName("x"), 400, "NAME_INVALID"),
        (spec.InvalidDocument("x"), 400, "MANIFEST_INVALID"),
        (spec.InvalidScope("x"), 400, "UNSUPPORTED"),
    ],
)
def test_the_table(error: Exception, status: int, code: str) -> None:
    refusal = refuse(error)
    assert (refusal.status, refusal.code) == (status, code)
    [entry] = json.loads(problem_body(refusal))["errors"]
    assert entry["code"] == code
    assert entry["message"] == str(error)


def every_kind(base: type[Exception]) -> Iterator[type[Exception]]:
    for kind in base.__subclasses__():
        yield kind
        yield from every_kind(kind)


@pytest.mark.parametrize("kind", sorted(set(every_kind(domain.Refused)), key=lambda k: k.__name__))
def test_every_refusal_is_the_callers_fault(kind: type[Exception]) -> None:
    error = kind.__new__(kind)
    for fact in ("digests", "expected", "found"):
        setattr(error, fact, ())
    error.after_s = 1  # type: ignore[attr-defined]
    if kind.__name__ != "LoginRequired":
        assert 400 <= refuse(error).status < 500


def test_only_a_temporary_failure_asks_to_come_back() -> None:
    assert (b"retry-after", b"1") in refuse(domain.DatabaseBusy(5)).headers
    assert refuse(domain.StorageFull("x")).headers == ((b"connection", b"close"),)


def test_a_bug_tells_nothing_to_the_client(caplog: pytest.LogCaptureFixture) -> None:
    refusal = refuse(KeyError("a secret"))
    assert refusal.status == 500
    assert "secret" not in str(refusal)
    assert "KeyError" in caplog.text
