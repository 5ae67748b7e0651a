"""What can go wrong in the engine, as one tree.

EngineError                    base; `hint` says what to try, `exit_status` what `run` ends with
├── StoreError                 the store on disk cannot do what was asked
│   ├── ImageUnknown
│   ├── LayerUnknown
│   ├── LayerInUse
│   ├── NotEnoughSpace(needed, free)
│   └── StoreUnreadable        written by a newer pyreg, or damaged
├── LayerError(layer)          the layer's bytes are wrong: the image's fault, not ours
│   ├── InvalidArchive(offset) not a tar archive, or one that says two things
│   ├── InvalidCompression     damaged gzip or zstd, or something after its end
│   ├── UnsupportedCompression a decompressor is not installed
│   ├── LayerMismatch          not the bytes that the manifest or the config promises
│   ├── HostileEntry(name)     an entry that tries to leave the layer or to fake overlay's marks
│   └── LimitExceeded(limit)   more entries, bytes, depth ... than a layer may have
├── SnapshotError              a root file system cannot be prepared or mounted
├── ContainerError             about one container
│   ├── ContainerUnknown
│   ├── NameInUse
│   ├── NotRunning
│   ├── CommandNotFound        exit status 127
│   └── CommandNotExecutable   exit status 126
├── VolumeError
├── NetworkError
└── SystemCallFailed           the kernel refused; says which call, on what, and why
"""

from __future__ import annotations

import os

ENGINE_FAILED = 125  # docker's exit status for "the engine failed, not your command"
NOT_EXECUTABLE = 126
NOT_FOUND = 127


class EngineError(Exception):
    """One clear line for a person; `hint` is what to try next."""

    exit_status = ENGINE_FAILED

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class StoreError(EngineError):
    pass


class ImageUnknown(StoreError):
    pass


class LayerUnknown(StoreError):
    pass


class LayerInUse(StoreError):
    pass


class NotEnoughSpace(StoreError):
    """`needed` and `free` are bytes; `needed` is 0 when the disk filled up on the way."""

    def __init__(self, message: str, *, needed: int = 0, free: int = 0, hint: str = "") -> None:
        super().__init__(message, hint=hint or "free some space, for example with `pyreg rmi`")
        self.needed = needed
        self.free = free


class StoreUnreadable(StoreError):
    pass


class LayerError(EngineError):
    """The bytes of a layer are wrong. `layer` is filled in by who knows which one it is."""

    def __init__(self, message: str, *, hint: str = "", layer: str = "") -> None:
        super().__init__(message, hint=hint)
        self.layer = layer

    def __str__(self) -> str:
        text = super().__str__()
        return f"layer {self.layer}: {text}" if self.layer else text


class InvalidArchive(LayerError):
    """`offset` is where in the uncompressed archive the header with the mistake begins."""

    def __init__(self, message: str, *, offset: int = 0, hint: str = "") -> None:
        super().__init__(f"{message} (at byte {offset} of the archive)", hint=hint)
        self.offset = offset


class InvalidCompression(LayerError):
    pass


class UnsupportedCompression(LayerError):
    pass


class LayerMismatch(LayerError):
    """`what` is the digest, size or diff id; `expected` and `found` are its text."""

    def __init__(self, what: str, *, expected: object, found: object) -> None:
        super().__init__(
            f"{what} is {found}, expected {expected}",
            hint="remove the image and pull it again; if it stays, the image itself is broken",
        )
        self.what = what
        self.expected = str(expected)
        self.found = str(found)


class HostileEntry(LayerError):
    """`name` is the entry as the archive has it, in printable form."""

    def __init__(self, message: str, *, name: str, hint: str = "") -> None:
        super().__init__(f"entry {name}: {message}", hint=hint)
        self.name = name


class LimitExceeded(LayerError):
    """`limit` is the name of the limit in `runtime.images.limits`."""

    def __init__(self, message: str, *, limit: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.limit = limit


class SnapshotError(EngineError):
    pass


class ContainerError(EngineError):
    pass


class ContainerUnknown(ContainerError):
    pass


class NameInUse(ContainerError):
    pass


class NotRunning(ContainerError):
    pass


class CommandNotFound(ContainerError):
    exit_status = NOT_FOUND


class CommandNotExecutable(ContainerError):
    exit_status = NOT_EXECUTABLE


class VolumeError(EngineError):
    pass


class NetworkError(EngineError):
    pass


class SystemCallFailed(EngineError):
    """The kernel refused. `errno` is its reason; `call` and `subject` say what was asked."""

    def __init__(self, call: str, errno: int, *, subject: str = "", hint: str = "") -> None:
        what = f"{call} {subject}" if subject else call
        super().__init__(f"{what}: {os.strerror(errno)}", hint=hint)
        self.call = call
        self.errno = errno
        self.subject = subject
