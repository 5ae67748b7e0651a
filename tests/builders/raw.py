"""A registry spoken to byte by byte: what no client would send, and what it really holds."""

from __future__ import annotations

import base64
import http.client
import json
import os
from dataclasses import dataclass

from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.image.config import new_config
from ocispec.image.manifest import ImageManifest, new_manifest
from ocispec.image.platform import Platform
from ocispec.mediatype import OCI_CONFIG, OCI_LAYER, OCI_LAYER_GZIP
from tests.builders.servers import PASSWORD, USER


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def codes(self) -> list[str]:
        """The error codes of the specification in the body."""
        return [each["code"] for each in json.loads(self.body)["errors"]]


@dataclass
class RawImage:
    """An image in memory; `blobs` are the config and the layers as they travel."""

    manifest: ImageManifest
    blobs: tuple[bytes, ...]


def raw_image(
    *layers: bytes, diffs: tuple[bytes, ...] = (), cmd: tuple[str, ...] = ("true",)
) -> RawImage:
    """An image of these layers; `diffs` are the archives in them where they are compressed."""
    config = new_config(
        Platform.of_machine(os.uname().machine),
        diff_ids=[Digest.of(diff) for diff in diffs or layers],
        created="2026-01-02T03:04:05Z",
        cmd=list(cmd),
    )
    manifest = new_manifest(
        Descriptor(media_type=OCI_CONFIG, digest=config.digest, size=len(config.raw)),
        [
            Descriptor(
                media_type=OCI_LAYER_GZIP if layer[:2] == b"\x1f\x8b" else OCI_LAYER,
                digest=Digest.of(layer),
                size=len(layer),
            )
            for layer in layers
        ],
    )
    return RawImage(manifest, (config.raw, *layers))


class RawRegistry:
    """One connection with a password; use one a thread. Whatever breaks is an OSError."""

    def __init__(
        self, port: int, user: str = USER, password: str = PASSWORD, *, timeout_s: float = 20
    ) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
        secret = base64.b64encode(f"{user}:{password}".encode()).decode()
        self._headers = {"Authorization": f"Basic {secret}"} if user else {}

    def close(self) -> None:
        self._connection.close()

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        try:
            self._connection.request(method, path, body, {**self._headers, **named})
            answer = self._connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        except http.client.HTTPException as error:
            raise ConnectionError(f"{type(error).__name__}: {error}") from error

    def begin_upload(self, repository: str) -> str:
        answer = self.ask("POST", f"/v2/{repository}/blobs/uploads/", b"")
        assert answer.status == 202, answer
        return str(answer.headers["Location"])

    def put_blob(self, repository: str, blob: bytes) -> Answer:
        """In two requests: POST, then PUT with everything."""
        where = self.begin_upload(repository)
        joint = "&" if "?" in where else "?"
        return self.ask("PUT", f"{where}{joint}digest={Digest.of(blob)}", blob)

    def put_manifest(self, repository: str, tag: str, manifest: ImageManifest) -> Answer:
        return self.ask(
            "PUT",
            f"/v2/{repository}/manifests/{tag}",
            manifest.raw,
            Content_Type=manifest.media_type,
        )

    def put_image(self, repository: str, tag: str, image: RawImage) -> None:
        """Everything, acknowledged."""
        for blob in image.blobs:
            answer = self.put_blob(repository, blob)
            assert answer.status == 201, answer
        answer = self.put_manifest(repository, tag, image.manifest)
        assert answer.status == 201, answer

    def tags(self, repository: str) -> list[str]:
        answer = self.ask("GET", f"/v2/{repository}/tags/list")
        return list(json.loads(answer.body)["tags"]) if answer.status == 200 else []

    def blob(self, repository: str, digest: Digest) -> Answer:
        return self.ask("GET", f"/v2/{repository}/blobs/{digest}")

    def manifest(self, repository: str, reference: str) -> Answer:
        return self.ask("GET", f"/v2/{repository}/manifests/{reference}")

    def assert_whole(self, repository: str, tag: str, image: RawImage) -> None:
        """The tag gives exactly this image, byte for byte."""
        assert self.manifest(repository, tag).body == image.manifest.raw, tag
        for blob in image.blobs:
            answer = self.blob(repository, Digest.of(blob))
            assert answer.status == 200 and answer.body == blob, (tag, Digest.of(blob), answer)
