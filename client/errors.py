"""What can go wrong between us and a registry, or in the local store.

ClientError                  base; `hint` says what to try
├── RegistryError            the registry answered, and the answer was no; `registry`, `status`
│   ├── NotFound             no such repository, tag, manifest or blob there
│   ├── Unauthorized         wrong or missing credentials, or a 401 to known ones
│   ├── Denied               known, but not allowed
│   ├── TooManyRequests      still refused after every retry
│   └── ProtocolError        an answer that the specification does not allow
├── RegistryUnavailable      no answer: name, connection, TLS, timeout
├── TransferInterrupted      a body ended early; what arrived is kept for the next try
├── TransferStopped          given up because something else of the same operation failed
├── ContentMismatch          bytes that are not what their descriptor says (digest or size)
├── RefusedContent           a manifest we will not follow: too large, too many layers, foreign URL
├── CredentialsError         config file or credential helper cannot be used
└── LocalStoreError          the store on disk
    ├── ImageNotFound        no image of that name or id here
    ├── AmbiguousImage       an id prefix that fits several images
    └── ImageInUse           removal would break a name or a container

A secret never appears in a message.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class ClientError(Exception):
    """`str(error)` is one line for a person; `hint`, if any, says what to try."""

    exit_status = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class RegistryError(ClientError):
    """`status` is the HTTP status, 0 when the answer was unusable before that."""

    def __init__(
        self, message: str, *, registry: str = "", status: int = 0, hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.registry = registry
        self.status = status


class NotFound(RegistryError):
    pass


class Unauthorized(RegistryError):
    pass


class Denied(RegistryError):
    pass


class TooManyRequests(RegistryError):
    pass


class ProtocolError(RegistryError):
    pass


class RegistryUnavailable(ClientError):
    """`is_final` when trying again cannot help: an untrusted certificate, no such host."""

    def __init__(self, message: str, *, is_final: bool = False, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.is_final = is_final


class TransferInterrupted(ClientError):
    pass


class TransferStopped(ClientError):
    """This one was fine; another of the same operation failed, or the person gave up."""


class ContentMismatch(ClientError):
    """`what` names the content; `expected` and `found` are digests or sizes."""

    def __init__(self, what: str, *, expected: object, found: object, hint: str = "") -> None:
        super().__init__(f"{what}: expected {expected}, found {found}", hint=hint)
        self.what = what
        self.expected = expected
        self.found = found


class RefusedContent(ClientError):
    pass


class CredentialsError(ClientError):
    pass


class LocalStoreError(ClientError):
    pass


class ImageNotFound(LocalStoreError):
    def __init__(self, name: str, *, hint: str = "") -> None:
        super().__init__(f"No such image: {name}", hint=hint)
        self.name = name


class AmbiguousImage(LocalStoreError):
    """`candidates` are the full ids that the prefix fits."""

    def __init__(self, prefix: str, candidates: Iterable[object]) -> None:
        self.candidates = tuple(str(candidate) for candidate in candidates)
        super().__init__(
            f"image id {prefix} fits {len(self.candidates)} images",
            hint="give more digits: " + ", ".join(c[:26] for c in self.candidates[:5]),
        )


class ImageInUse(LocalStoreError):
    pass
