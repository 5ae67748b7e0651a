"""Where images come from and where they go: a registry, the local store, an archive.

An image is a graph of blobs under a manifest. A source reads it, a sink takes it in an order that
never leaves a dangling reference: blobs, then manifests from the leaves up, then the name.
Implementations: `remote.RemoteRepository` (both), `local_transfer.LocalSource` and `LocalSink`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Protocol

    from client.progress import Progress
    from ocispec.descriptor import Descriptor
    from ocispec.digest import Digest
    from ocispec.image.manifest import ImageIndex, ImageManifest

    class BlobStream(Protocol):
        """Bytes of a blob, from the offset asked for to its end. Closed by whoever opened it.

        One that is a file on this machine has `fileno()` too, and may be sent without reading it.
        """

        offset: int  # of the first byte to come; 0 where a source cannot start in the middle

        def readinto(self, buffer: memoryview) -> int: ...

        def __enter__(self) -> BlobStream: ...

        def __exit__(
            self,
            kind: type[BaseException] | None,
            error: BaseException | None,
            trace: TracebackType | None,
        ) -> None: ...

    class ImageSource(Protocol):
        """Reads manifests and blobs. Safe with threads."""

        def manifest(self, reference: str) -> ImageManifest | ImageIndex:
            """By tag or digest; a digest is verified. Raises NotFound or ImageNotFound."""

        def open_blob(self, descriptor: Descriptor, offset: int = 0) -> BlobStream:
            """Unverified bytes: whoever takes them in hashes them."""

        def origins(self, digest: Digest) -> tuple[str, ...]:
            """`host/repository` names known to have this blob, for mounting instead of sending."""

    class ImageSink(Protocol):
        """Takes blobs and manifests. Safe with threads."""

        def put_blob(self, descriptor: Descriptor, source: ImageSource, progress: Progress) -> None:
            """Make the blob present, verified, if it is not yet."""

        def put_manifest(self, manifest: ImageManifest | ImageIndex, tag: str = "") -> Descriptor:
            """Everything it names is present by now. An empty tag stores it by digest only."""
