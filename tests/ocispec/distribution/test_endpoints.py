from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

from hypothesis import given
from hypothesis import strategies as st

from ocispec.digest import Digest
from ocispec.distribution import endpoints
from ocispec.distribution.links import format_next
from ocispec.distribution.name import RepositoryName, Tag
from tests.ocispec.strategies import digests, names

NAME = RepositoryName("omrisiri/wget")
DIGEST = Digest.of(b"")


def test_paths() -> None:
    assert endpoints.manifest_path(NAME, Tag("1.0")) == "/v2/omrisiri/wget/manifests/1.0"
    assert endpoints.manifest_path(NAME, DIGEST) == f"/v2/omrisiri/wget/manifests/{DIGEST}"
    assert endpoints.blob_path(NAME, DIGEST) == f"/v2/omrisiri/wget/blobs/{DIGEST}"
    assert endpoints.uploads_path(NAME) == "/v2/omrisiri/wget/blobs/uploads/"
    assert endpoints.upload_path(NAME, "abc") == "/v2/omrisiri/wget/blobs/uploads/abc"
    assert endpoints.tags_path(NAME) == "/v2/omrisiri/wget/tags/list"
    assert endpoints.referrers_path(NAME, DIGEST) == f"/v2/omrisiri/wget/referrers/{DIGEST}"
    assert endpoints.catalog_path() == "/v2/_catalog"


def test_queries() -> None:
    uploads = "/v2/omrisiri/wget/blobs/uploads/"
    assert endpoints.uploads_path(NAME, digest=DIGEST) == f"{uploads}?digest={DIGEST}"
    assert endpoints.uploads_path(NAME, algorithm="sha512") == f"{uploads}?digest-algorithm=sha512"
    assert endpoints.uploads_path(NAME, mount=DIGEST) == f"{uploads}?mount={DIGEST}"
    mounted = endpoints.uploads_path(NAME, mount=DIGEST, source=RepositoryName("a/b"))
    assert mounted == f"{uploads}?mount={DIGEST}&from=a/b"
    assert endpoints.tags_path(NAME, count=0) == "/v2/omrisiri/wget/tags/list?n=0"
    assert endpoints.tags_path(NAME, count=5, last="v1").endswith("?n=5&last=v1")
    assert endpoints.catalog_path(count=5, last="a/b") == "/v2/_catalog?n=5&last=a/b"
    referrers = endpoints.referrers_path(NAME, DIGEST, artifact_type="application/a+b")
    assert referrers.endswith("?artifactType=application/a%2Bb")


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), names)
def test_what_is_put_into_a_query_comes_out_and_can_be_linked_to(
    text: str, name: RepositoryName
) -> None:
    path = endpoints.tags_path(name, count=3, last=text)
    assert dict(parse_qsl(urlsplit(path).query, keep_blank_values=True)) == {"n": "3", "last": text}
    format_next(path)


@given(digests)
def test_the_referrers_tag_is_a_tag(digest: Digest) -> None:
    tag = Tag(endpoints.referrers_tag(digest))
    assert tag.text == f"{digest.algorithm}-{digest.encoded[:64]}"
