"""Sending one blob: not at all if it is there, by a mount if a neighbour has it, else its bytes.

    HEAD blob                    200: done
    POST uploads?mount=[&from=]  201: done, the registry linked what it has
                                 202: an upload session was opened instead
    PUT  session?digest=         the whole blob in one request
    HEAD blob, GET session       after a broken connection: is it there, or how far did it get?
    PATCH, PUT                   the rest, then the end

Spec: distribution-spec, "Pushing blobs".
"""

from __future__ import annotations

from urllib.parse import urlencode

from client import progress as states
from client.errors import ContentMismatch, ProtocolError, RegistryUnavailable, TransferInterrupted
from client.transport import RETRIED, BlobBody
from ocispec.distribution.endpoints import uploads_path
from ocispec.distribution.name import RepositoryName
from ocispec.distribution.ranges import format_content_range, parse_content_range
from ocispec.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from client.origin import Origin
    from client.progress import Progress
    from client.remote import RemoteRepository
    from client.source import BlobStream, ImageSource
    from client.transport import Response
    from ocispec.descriptor import Descriptor

ANOTHER = "another repository"
MAX_MOUNT_TRIES = 3  # a repository may be gone or forbidden; further ones are rarely better


def upload(
    repository: RemoteRepository, descriptor: Descriptor, source: ImageSource, progress: Progress
) -> None:
    """Make the blob present in the repository.

    Raises: what the registry's refusals translate to; ContentMismatch if it stored other bytes.
    """
    digest = descriptor.digest
    progress.step(digest, states.PREPARING)
    if repository.has_blob(descriptor):
        progress.step(digest, states.EXISTS_THERE)
        return
    session = _Session(repository, descriptor, source, progress)
    mounted = session.begin()
    if mounted:
        progress.step(digest, f"{states.MOUNTED} {mounted}")
        return
    session.send()
    progress.step(digest, states.PUSHED)


class _Session:
    """One upload session, from its POST to the 201."""

    def __init__(
        self,
        repository: RemoteRepository,
        descriptor: Descriptor,
        source: ImageSource,
        progress: Progress,
    ) -> None:
        self._repository = repository
        self._registry = repository.registry
        self._descriptor = descriptor
        self._source = source
        self._progress = progress
        self._what = f"blob {descriptor.digest} to {repository}"
        self._origin: Origin = repository.registry.origin
        self._target = ""

    def begin(self) -> str:
        """Open a session, unless a mount made it needless: then the repository it came from."""
        prefix = f"{self._registry.name}/"
        names = [
            origin.removeprefix(prefix)
            for origin in self._source.origins(self._descriptor.digest)
            if origin.startswith(prefix) and origin != str(self._repository)
        ]
        for name in names[:MAX_MOUNT_TRIES]:
            target = uploads_path(
                self._repository.name,
                mount=self._descriptor.digest,
                source=RepositoryName.parse(name),
            )
            with self._repository.request("POST", target, write=True, also=name) as response:
                if response.status == 201:
                    response.finish()
                    return name
                if response.status == 202:
                    self._take_location(response)
                    return ""
                response.finish()  # not allowed to read there: an ordinary upload then
        # Without a name the registry may look for the blob wherever we may read. One that does
        # not know this form opens an ordinary session.
        target = uploads_path(self._repository.name, mount=self._descriptor.digest)
        with self._repository.request("POST", target, write=True) as response:
            if response.status == 201:
                response.finish()
                return ANOTHER
            if response.status == 202:
                self._take_location(response)
                return ""
            if response.status in (401, 403):
                raise self._registry.failure(response, self._what, str(self._repository.name))
            response.finish()
        self._open()
        return ""

    def _open(self) -> None:
        target = uploads_path(self._repository.name)
        with self._repository.request("POST", target, write=True) as response:
            if response.status != 202:
                raise self._registry.failure(response, self._what, str(self._repository.name))
            self._take_location(response)

    def _take_location(self, response: Response) -> None:
        self._origin, self._target = self._registry.transport.resolve(
            response.origin, response.target, response.header("Location")
        )
        response.finish()

    def send(self) -> None:
        """Send the bytes; continue where it broke, or start again where that is not possible."""
        offset = 0
        attempts = self._registry.transport.options.attempts
        for attempt in range(1, attempts + 1):
            try:
                if offset:
                    self._append(offset)
                    self._finish(None, 0)
                else:
                    self._finish(self._body(0), self._descriptor.size)
                return
            except (RegistryUnavailable, TransferInterrupted, _TryAgain) as error:
                if attempt == attempts:
                    if isinstance(error, _TryAgain):
                        raise error.reason from error
                    raise
                self._registry.transport.pause(attempt)
                if self._repository.has_blob(self._descriptor):
                    return  # it arrived, only the answer did not
                offset = self._recover()

    def _body(self, offset: int) -> BlobBody:
        size = self._descriptor.size
        digest = self._descriptor.digest

        def sent(position: int) -> None:
            self._progress.step(digest, states.PUSHING, position, size)

        return BlobBody(self._open_source, size, offset=offset, sent=sent)

    def _open_source(self, offset: int) -> BlobStream:
        return self._source.open_blob(self._descriptor, offset)

    def _finish(self, body: BlobBody | None, size: int) -> None:
        separator = "&" if "?" in self._target else "?"
        target = self._target + separator + urlencode({"digest": str(self._descriptor.digest)})
        with self._repository.request(
            "PUT",
            target,
            origin=self._origin,
            headers={"Content-Type": "application/octet-stream"},
            body=body,
            write=True,
            attempts=1,
        ) as response:
            self._check(response, (201,))
            said = response.header("Docker-Content-Digest")
            response.finish()
        if said and said != str(self._descriptor.digest):
            raise ContentMismatch(
                f"{self._what}, as stored", expected=self._descriptor.digest, found=said[:150]
            )

    def _append(self, offset: int) -> None:
        with self._repository.request(
            "PATCH",
            self._target,
            origin=self._origin,
            headers={
                "Content-Type": "application/octet-stream",
                "Content-Range": format_content_range(offset, self._descriptor.size - 1),
            },
            body=self._body(offset),
            write=True,
            attempts=1,
        ) as response:
            self._check(response, (202,))
            self._take_location(response)

    def _check(self, response: Response, wanted: tuple[int, ...]) -> None:
        if response.status in wanted:
            return
        # 409: the registry has not noticed yet that our broken connection is gone.
        again = response.status in RETRIED or response.status in (404, 409, 416)
        error = self._registry.failure(response, self._what, str(self._repository.name))
        if again:
            raise _TryAgain(error)
        raise error

    def _recover(self) -> int:
        """How many bytes the session has; 0 with a new session if it is lost or says nonsense."""
        try:
            with self._repository.request(
                "GET", self._target, origin=self._origin, write=True
            ) as response:
                if response.status == 204:
                    first, last = parse_content_range(response.header("Range"))
                    if response.header("Location"):
                        self._take_location(response)
                    # `0-0` is both nothing and one byte; starting again is right for both.
                    if first == 0 and 1 < last + 1 < self._descriptor.size:
                        return last + 1
                response.finish()
        except (ProtocolError, SpecError):
            pass  # cannot tell: a new session can
        self._open()
        return 0


class _TryAgain(Exception):
    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason = reason
