"""A registry, and one repository of it, over the distribution protocol."""

from __future__ import annotations

import json
import threading

from client.auth import RegistryAuth
from client.errors import (
    ContentMismatch,
    NotFound,
    ProtocolError,
    RefusedContent,
    RegistryError,
    RegistryUnavailable,
)
from client.origin import Origin, candidates
from client.transport import MAX_ERROR_BYTES, Transport, fail
from ocispec.digest import Digest
from ocispec.distribution.endpoints import BASE, blob_path, manifest_path, tags_path
from ocispec.distribution.links import parse_link
from ocispec.distribution.ranges import parse_content_range
from ocispec.errors import DigestMismatch, InvalidDocument, SpecError
from ocispec.image.manifest import MAX_MANIFEST_BYTES, ImageIndex, ImageManifest, parse_manifest
from ocispec.mediatype import ACCEPT, is_foreign

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType
    from typing import Any

    from client.credentials import Keychain
    from client.progress import Progress
    from client.source import BlobStream, ImageSource
    from client.transport import BlobBody, Response
    from ocispec.descriptor import Descriptor
    from ocispec.distribution.name import RepositoryName

MAX_LIST_BYTES = 8 << 20  # one page of tags or names
MAX_PAGES = 10_000
PAGE = 1000
# Bodies like these say that the server speaks TLS on this port (Go, nginx).
_WANTS_TLS = (b"HTTP request to an HTTPS server", b"plain HTTP request was sent to HTTPS port")


class Registry:
    """One registry under the name it has in references. Finds its scheme at the first request."""

    def __init__(self, name: str, transport: Transport, keychain: Keychain) -> None:
        self.name = name
        self.transport = transport
        self.keychain = keychain
        self._origin: Origin | None = None
        self._lock = threading.Lock()
        self._auths: dict[str, RegistryAuth] = {}

    @property
    def origin(self) -> Origin:
        """Where it is. Asks, without credentials, only where plain http is allowed at all.

        Raises: RegistryUnavailable
        """
        with self._lock:
            if self._origin is None:
                self._origin = self._find_origin()
            return self._origin

    def _find_origin(self) -> Origin:
        possible = candidates(self.name, self.transport.options)
        if len(possible) == 1:
            return possible[0]
        failures = []
        for origin in possible:
            try:
                with self.transport.request("GET", origin, BASE, attempts=1) as response:
                    if response.status != 400:
                        response.finish()
                        return origin
                    page = response.read(MAX_ERROR_BYTES, "an error")
                    if not any(mark in page for mark in _WANTS_TLS):
                        return origin
            except RegistryUnavailable as error:
                failures.append(error)
        raise failures[0] if failures else RegistryUnavailable(f"{self.name} does not answer")

    def auth(self, repository: str = "") -> RegistryAuth:
        """The authorisation of requests; one for the registry unless a path has its own."""
        with self._lock:
            origin = self._origin
        origin = origin or self.origin
        with self._lock:
            if repository not in self._auths:
                self._auths[repository] = RegistryAuth(
                    self.name, origin, self.transport, self.keychain, repository=repository
                )
            return self._auths[repository]

    def request(
        self,
        method: str,
        target: str,
        *,
        scopes: frozenset[str] = frozenset(),
        repository: str = "",
        headers: Mapping[str, str] | None = None,
        body: bytes | BlobBody | None = None,
        origin: Origin | None = None,
        attempts: int | None = None,
    ) -> Response:
        """A signed request; `origin` for a Location that leads elsewhere, which is not signed."""
        home = self.origin
        return self.transport.request(
            method,
            origin or home,
            target,
            headers=headers,
            body=body,
            authorizer=self.auth(repository) if origin in (None, home) else None,
            scopes=scopes,
            attempts=attempts,
        )

    def failure(self, response: Response, what: str, repository: str = "") -> RegistryError:
        auth = self.auth(repository)
        error = fail(response, what, self.name, auth.account)
        if auth.withheld and error.status in (401, 403):
            error.hint = auth.explain_withheld()
        return error

    def check(self) -> None:
        """Is it a registry that accepts us? Raises Unauthorized, ProtocolError, …"""
        with self.request("GET", BASE) as response:
            if response.status == 404:
                raise ProtocolError(
                    f"{self.name} is not a registry: GET /v2/ answers 404", registry=self.name
                )
            if response.status != 200:
                raise self.failure(response, f"login to {self.name}")
            response.finish()

    def repository(self, name: RepositoryName) -> RemoteRepository:
        return RemoteRepository(self, name)

    def pages(
        self,
        target: str,
        key: str,
        *,
        scopes: frozenset[str],
        repository: str = "",
        what: str,
    ) -> Iterator[list[Any]]:
        """Follow Link headers through a list, a page at a time.

        Raises: ProtocolError if the list does not end, or leads off the registry.
        """
        seen = set()
        for _ in range(MAX_PAGES):
            seen.add(target)
            with self.request("GET", target, scopes=scopes, repository=repository) as response:
                if response.status != 200:
                    raise self.failure(response, what, repository)
                link = response.header("Link")
                where, path = response.origin, response.target
                raw = response.read(MAX_LIST_BYTES, what)
            try:
                page = json.loads(raw).get(key)
            except (ValueError, AttributeError, RecursionError) as error:
                raise ProtocolError(f"{what}: not a JSON object", registry=self.name) from error
            if page is not None and not isinstance(page, list):
                raise ProtocolError(f"{what}: '{key}' is not a list", registry=self.name)
            yield page or []
            try:
                following = parse_link(link).get("next") if link else None
            except SpecError as error:
                raise ProtocolError(f"{what}: {error}", registry=self.name) from error
            if not following:
                return
            origin, target = self.transport.resolve(where, path, following)
            if origin != self.origin or target in seen:
                raise ProtocolError(
                    f"{what}: the list goes in circles or leads to {origin}", registry=self.name
                )
        raise ProtocolError(f"{what}: the list does not end", registry=self.name)


class RemoteRepository:
    """One repository, as a source and a sink of images. Safe with threads."""

    def __init__(self, registry: Registry, name: RepositoryName) -> None:
        self.registry = registry
        self.name = name

    def __str__(self) -> str:
        return f"{self.registry.name}/{self.name}"

    # -- reading ---------------------------------------------------------------------------------

    def manifest(self, reference: str) -> ImageManifest | ImageIndex:
        """A manifest by tag or digest.

        By digest, its bytes are verified against it; by tag, against the digest that the registry
        says it has, if it says.

        Raises: NotFound; RefusedContent for a document that is not a manifest, or could be read as
        two kinds of one; ContentMismatch; ProtocolError if it is too large.
        """
        what = f"manifest of {self}{_separator(reference)}{reference}"
        with self.request(
            "GET", manifest_path(self.name, reference), headers={"Accept": ACCEPT}
        ) as response:
            if response.status != 200:
                raise self.registry.failure(response, what, str(self.name))
            media_type = response.header("Content-Type")
            said = response.header("Docker-Content-Digest")
            raw = response.read(
                MAX_MANIFEST_BYTES, what, self.registry.transport.options.answer_timeout_s
            )
        expected = reference if ":" in reference else said
        if expected:
            verify(raw, expected, what)
        return parse(raw, media_type, what)

    def open_blob(self, descriptor: Descriptor, offset: int = 0) -> BlobStream:
        """Bytes of a blob from `offset`, or from 0 if the registry cannot start there.

        Raises: NotFound; ContentMismatch if the announced size is not the descriptor's;
        RefusedContent for a layer that only exists at foreign URLs, unless options allow them.
        """
        what = f"blob {descriptor.digest} of {self}"
        response = self._open(descriptor, offset, what)
        start = 0
        if response.status == 206:
            try:
                start, _ = parse_content_range(response.header("Content-Range"))
            except SpecError as error:
                response.close()
                raise ProtocolError(f"{what}: {error}", registry=self.registry.name) from error
            if start != offset:
                response.close()
                raise ProtocolError(
                    f"{what}: asked for bytes from {offset}, got them from {start}",
                    registry=self.registry.name,
                )
        elif response.status != 200:
            raise self.registry.failure(response, what, str(self.name))
        if response.length is not None and start + response.length != descriptor.size:
            found = start + response.length
            response.close()
            raise ContentMismatch(f"size of {what}", expected=descriptor.size, found=found)
        return _BlobResponse(response, start)

    def _open(self, descriptor: Descriptor, offset: int, what: str) -> Response:
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        target = blob_path(self.name, descriptor.digest)
        response = self.request("GET", target, headers=headers)
        if response.status == 416 and offset:
            response.finish()
            response = self.request("GET", target)
        if response.status != 404 or not is_foreign(descriptor.media_type) or not descriptor.urls:
            return response
        response.finish()
        if not self.registry.transport.options.foreign_layers:
            raise RefusedContent(
                f"{what} is only at {descriptor.urls[0][:200]}, outside the registry",
                hint="mirror the image with its layers into a registry first",
            )
        return self._open_foreign(descriptor, headers, what)

    def _open_foreign(self, descriptor: Descriptor, headers: dict[str, str], what: str) -> Response:
        """The layer at the URLs of the manifest: whoever wrote that gets no credentials."""
        for url in descriptor.urls[:4]:
            try:
                origin, target = Origin.parse(url)
            except ValueError:
                continue
            if origin.scheme != "https" and not origin.is_loopback:
                continue
            response = self.registry.transport.request("GET", origin, target, headers=headers)
            if response.status in (200, 206):
                return response
            response.finish()
        raise NotFound(f"{what} is at none of its URLs", registry=self.registry.name)

    def has_blob(self, descriptor: Descriptor) -> bool:
        """Is the blob in this repository, with the right size?"""
        with self.request("HEAD", blob_path(self.name, descriptor.digest), write=True) as response:
            if response.status == 200:
                return response.header("Content-Length") in ("", str(descriptor.size))
            if response.status == 404:
                return False
            raise self.registry.failure(response, f"blob {descriptor.digest}", str(self.name))

    def head(self, reference: str) -> Digest | None:
        """The digest a tag points at, or None if it does not exist."""
        with self.request(
            "HEAD", manifest_path(self.name, reference), headers={"Accept": ACCEPT}
        ) as response:
            if response.status == 404:
                return None
            if response.status != 200:
                raise self.registry.failure(response, f"manifest of {self}", str(self.name))
            said = response.header("Docker-Content-Digest")
        return Digest.parse(said) if said else self.manifest(reference).digest

    def tags(self) -> Iterator[str]:
        """Every tag, in the registry's order, a page at a time."""
        for page in self.registry.pages(
            tags_path(self.name, count=PAGE),
            "tags",
            scopes=self._scopes(False),
            repository=str(self.name),
            what=f"tags of {self}",
        ):
            yield from (str(tag) for tag in page)

    def origins(self, digest: Digest) -> tuple[str, ...]:
        return (str(self),)

    # -- writing ---------------------------------------------------------------------------------

    def put_blob(self, descriptor: Descriptor, source: ImageSource, progress: Progress) -> None:
        from client.upload import upload

        upload(self, descriptor, source, progress)

    def put_manifest(self, manifest: ImageManifest | ImageIndex, tag: str = "") -> Descriptor:
        from ocispec.descriptor import Descriptor

        digest = manifest.digest
        what = f"manifest {tag or digest} of {self}"
        with self.request(
            "PUT",
            manifest_path(self.name, tag or str(digest)),
            headers={"Content-Type": manifest.media_type},
            body=manifest.raw,
            write=True,
        ) as response:
            if response.status not in (200, 201, 202):
                raise self.registry.failure(response, what, str(self.name))
            said = response.header("Docker-Content-Digest")
            response.finish()
        if said and said != str(digest):
            raise ContentMismatch(
                f"{what} as stored by the registry", expected=digest, found=said[:150]
            )
        return Descriptor(media_type=manifest.media_type, digest=digest, size=len(manifest.raw))

    # -- requests --------------------------------------------------------------------------------

    def _scopes(self, write: bool, also: str = "") -> frozenset[str]:
        actions = "pull,push" if write else "pull"
        scopes = {f"repository:{self.name}:{actions}"}
        if also:
            scopes.add(f"repository:{also}:pull")
        return frozenset(scopes)

    def request(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | BlobBody | None = None,
        write: bool = False,
        also: str = "",
        origin: Origin | None = None,
        attempts: int | None = None,
    ) -> Response:
        """A request that is signed for this repository, to read or also to `write`.

        `also` names a repository to read as well, for a mount. `origin` is where a Location leads.
        """
        return self.registry.request(
            method,
            target,
            scopes=self._scopes(write, also),
            repository=str(self.name),
            headers=headers,
            body=body,
            origin=origin,
            attempts=attempts,
        )


class _BlobResponse:
    """A `BlobStream` over an answer."""

    def __init__(self, response: Response, offset: int) -> None:
        self._response = response
        self.offset = offset

    def readinto(self, buffer: memoryview) -> int:
        return self._response.readinto(buffer)

    def __enter__(self) -> _BlobResponse:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._response.close()


def verify(raw: bytes, expected: str, what: str) -> None:
    """Raises ContentMismatch, also for a digest that the registry made up badly."""
    from ocispec.digest import verify as verify_digest

    try:
        verify_digest(raw, Digest.parse(expected))
    except DigestMismatch as error:
        raise ContentMismatch(
            f"digest of {what}", expected=error.expected, found=error.found
        ) from error
    except SpecError as error:
        raise ProtocolError(f"{what}: {error}") from error


def parse(raw: bytes, media_type: str, what: str) -> ImageManifest | ImageIndex:
    """Raises RefusedContent for anything that is not one clear kind of manifest."""
    try:
        return parse_manifest(raw, media_type)
    except InvalidDocument as error:
        raise RefusedContent(f"{what} is refused: {error}", hint=error.hint) from error


def _separator(reference: str) -> str:
    return "@" if ":" in reference else ":"
