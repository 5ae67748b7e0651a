"""What the registry can answer instead of doing what was asked.

RegistryError               base; `hint` says what to try
├── Refused                 the caller's fault: nothing was changed
│   ├── NameUnknown         the repository does not exist
│   ├── ManifestUnknown     no such tag or manifest in the repository
│   ├── BlobUnknown         the repository holds no such blob
│   ├── UploadUnknown       the upload ended, never began, or is somebody else's
│   ├── ManifestBlobUnknown a manifest names content the repository does not hold (`digests`)
│   ├── ManifestInvalid     a manifest breaks its schema (`problems`)
│   ├── UploadContended     another request wrote the upload meanwhile
│   ├── UploadInvalid       an upload cannot be finished as asked
│   ├── DigestMismatched    the bytes are not those the digest promised
│   ├── RangeMismatch       a chunk does not start where the upload ends (`expected`, `found`)
│   ├── SizeMismatch        more or fewer bytes than announced (`expected`, `found`)
│   ├── TooLarge            above a limit (`limit`, in bytes)
│   ├── Unsupported         switched off, or not a thing this registry does
│   ├── Unauthenticated     no credentials, or wrong ones
│   ├── TooManyRequests     too often; again after `after_s`
│   └── Denied              known caller, not allowed (`action`, `name`)
│       └── BlobReferenced  a manifest of the repository still needs the blob (`digest`)
├── AccountError            an account or its password is not acceptable
│   ├── AccountExists
│   ├── AccountUnknown
│   └── AccountInvalid
├── Unavailable             our fault and temporary: asking again may help
│   ├── DatabaseBusy        another process held the write lock for too long
│   ├── DatabaseUnreachable the database server does not answer
│   ├── DatabaseFailed      the disk under it failed, or the file is damaged
│   ├── StaleGeneration     the bytes were swept while their upload was being finished
│   └── StorageFull         no space left where blobs or metadata live
├── DatabaseUnusable        the database cannot be opened by this version
│   ├── DatabaseHeld        another machine uses the database file (`holder`)
│   └── DatabaseTooNew      it was written by a later one (`found`, `known`)
└── InvalidSettings         the configuration is wrong

Errors of the blob store and of request bodies have trees of their own beside their code, under
RegistryError too.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime


class RegistryError(Exception):
    """`str(error)` is one line for a person; `hint` says what to try, or is empty."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class InvalidSettings(RegistryError):
    pass


# ---- the caller's fault -------------------------------------------------------------------------


class Refused(RegistryError):
    """Nothing was changed."""


class NameUnknown(Refused):
    def __init__(self, name: object) -> None:
        super().__init__(f"repository {name} does not exist")
        self.name = str(name)


class ManifestUnknown(Refused):
    """`reference` is the tag or digest asked for."""

    def __init__(self, name: object, reference: object) -> None:
        super().__init__(f"repository {name} has no manifest {reference}")
        self.name = str(name)
        self.reference = str(reference)


class NotRestorable(Refused):
    """`reference` is the tag or digest that was to come back."""

    def __init__(self, name: object, reference: object, why: str) -> None:
        super().__init__(
            f"cannot restore {reference} of {name}: it {why}",
            hint=f"pyreg history {name} --remote shows what was changed",
        )


class NothingToUndo(Refused):
    def __init__(self, what: str) -> None:
        super().__init__(f"there is nothing to undo: no record of {what}")


class TagMoved(Refused):
    """A tag is not what the caller took it for; nothing was changed."""

    def __init__(self, name: object, tag: object, why: str) -> None:
        super().__init__(f"tag {tag} of {name} {why}", hint="look again, then decide")


class NotAcknowledged(Refused):
    """Retention rules that nobody has seen a preview of."""


class BlobUnknown(Refused):
    def __init__(self, name: object, digest: object) -> None:
        super().__init__(f"repository {name} has no blob {digest}")
        self.name = str(name)
        self.digest = str(digest)


class UploadUnknown(Refused):
    def __init__(self, upload: str) -> None:
        super().__init__(
            f"upload {upload[:80]!r} does not exist",
            hint="it was finished, cancelled or has expired; begin a new one",
        )
        self.upload = upload


class UploadContended(Refused):
    """Ask how far the upload is, and go on there."""

    def __init__(self, upload: str) -> None:
        super().__init__(f"upload {upload} was written by another request meanwhile")
        self.upload = upload


class ManifestBlobUnknown(Refused):
    """`digests` lists all that is missing, in the order the manifest names them."""

    def __init__(self, name: object, digests: Iterable[object]) -> None:
        self.name = str(name)
        self.digests = tuple(str(digest) for digest in digests)
        super().__init__(
            f"repository {name} does not hold {', '.join(self.digests)}",
            hint="push or mount the missing content first, then the manifest",
        )


class ManifestInvalid(Refused):
    def __init__(self, message: str, *, problems: Iterable[str] = (), hint: str = "") -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join((message, *self.problems)), hint=hint)


class UploadInvalid(Refused):
    pass


class DigestMismatched(Refused):
    def __init__(self, *, expected: object, found: object) -> None:
        super().__init__(f"the content has digest {found}, not {expected}")
        self.expected = str(expected)
        self.found = str(found)


class RangeMismatch(Refused):
    """`expected` is where the upload ends, `found` where the chunk starts."""

    def __init__(self, *, expected: int, found: int) -> None:
        super().__init__(
            f"the chunk starts at {found}, but the upload has {expected} bytes",
            hint="ask for the upload's status and continue from there",
        )
        self.expected = expected
        self.found = found


class SizeMismatch(Refused):
    def __init__(self, *, expected: int, found: int) -> None:
        super().__init__(f"{expected} bytes were announced, {found} came")
        self.expected = expected
        self.found = found


class TooLarge(Refused):
    def __init__(self, what: str, *, limit: int) -> None:
        super().__init__(f"{what} is larger than the limit of {limit} bytes")
        self.limit = limit


class Unsupported(Refused):
    pass


class Unauthenticated(Refused):
    """Deliberately says nothing about what exactly was wrong."""

    def __init__(self, message: str = "authentication required") -> None:
        super().__init__(message)


class TooManyRequests(Refused):
    """Nothing was looked at. Ask again after `after_s` seconds."""

    def __init__(self, message: str, *, after_s: int) -> None:
        super().__init__(f"{message}; try again in {after_s} s")
        self.after_s = after_s


class Denied(Refused):
    def __init__(self, action: str, name: object, *, message: str = "", hint: str = "") -> None:
        super().__init__(message or f"{action} access to {name} is denied", hint=hint)
        self.action = action
        self.name = str(name)


class BlobReferenced(Denied):
    def __init__(self, name: object, digest: object) -> None:
        super().__init__(
            "delete",
            name,
            message=f"blob {digest} is used by a manifest of repository {name}",
            hint="delete the manifests that use it first",
        )
        self.digest = str(digest)


class QuotaExceeded(Denied):
    """`more` of `kind` (bytes or tags) do not fit into what a namespace may use."""

    def __init__(self, namespace: str, kind: str, *, used: int, more: int, limit: int) -> None:
        what = f"{more} {kind}" if more != 1 or kind == "bytes" else "1 tag"
        super().__init__(
            "push",
            namespace,
            message=f"the quota of {namespace} is {limit} {kind}, {used} of them are used: "
            f"{what} more are too many; delete tags there, or ask for a larger quota",
        )
        self.namespace, self.kind = namespace, kind
        self.used, self.more, self.limit = used, more, limit


class QuotaUnknown(RegistryError):
    def __init__(self, namespace: str) -> None:
        super().__init__(f"{namespace} has no quota")
        self.namespace = namespace


# ---- accounts -----------------------------------------------------------------------------------


class AccountError(RegistryError):
    pass


class AccountExists(AccountError):
    def __init__(self, name: str) -> None:
        super().__init__(f"user {name!r} exists already")
        self.name = name


class AccountUnknown(AccountError):
    def __init__(self, name: str) -> None:
        super().__init__(f"user {name!r} does not exist", hint="`pyreg user list` shows who does")
        self.name = name


class DigestUnknown(RegistryError):
    """No blob and no manifest has it."""

    def __init__(self, digest: str) -> None:
        super().__init__(f"no blob and no manifest here has the digest {digest}")


class AccountInvalid(AccountError):
    pass


class LastAdministrator(AccountError):
    """Without it nobody could administer the registry any more."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"user {name!r} is the last administrator", hint="make somebody else one first"
        )
        self.name = name


class GroupUnknown(AccountError):
    def __init__(self, name: str) -> None:
        super().__init__(f"group {name!r} does not exist")
        self.name = name


class GroupExists(AccountError):
    def __init__(self, name: str) -> None:
        super().__init__(f"group {name!r} exists already")
        self.name = name


class TokenUnknown(AccountError):
    def __init__(self, id: int) -> None:
        super().__init__(f"there is no access token {id}")
        self.id = id


class SessionUnknown(AccountError):
    def __init__(self, id: str) -> None:
        super().__init__(f"there is no session {id}")
        self.id = id


class PolicyInvalid(AccountError):
    pass


class PolicyChanged(AccountError):
    def __init__(self) -> None:
        super().__init__("somebody changed it meanwhile: read it again, then change it")


class RuleUnknown(AccountError):
    def __init__(self, id: int) -> None:
        super().__init__(f"there is no rule {id}")
        self.id = id


# ---- our fault, for now -------------------------------------------------------------------------


class Unavailable(RegistryError):
    pass


class DatabaseBusy(Unavailable):
    def __init__(
        self, waited_s: float, *, who: str = "the process that keeps metadata.db open"
    ) -> None:
        super().__init__(
            f"the database was locked by another process for {waited_s:.0f} seconds",
            hint=f"try again; if it persists, find {who}",
        )
        self.waited_s = waited_s


class DatabaseUnreachable(Unavailable):
    """The database server is gone, refuses, or says that it is not ready."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(
            f"the database {where} cannot be reached: {reason}",
            hint="start the database server, or correct the setting 'database'",
        )
        self.where = where


class DatabaseFailed(Unavailable):
    def __init__(self, reason: str) -> None:
        super().__init__(
            f"the database failed: {reason}",
            hint="check the disk and the permissions of metadata.db and its directory",
        )
        self.reason = reason


class StaleGeneration(Unavailable):
    """The bytes written for `digest` are of a generation that was removed meanwhile.

    `generation` is the one to write and to try again with.
    """

    def __init__(self, digest: object, *, generation: int) -> None:
        super().__init__(
            f"blob {digest} was removed while it was being uploaded", hint="push it again"
        )
        self.digest = str(digest)
        self.generation = generation


class StorageFull(Unavailable):
    def __init__(self, what: str) -> None:
        super().__init__(
            f"no space left while writing {what}",
            hint="free space where the registry keeps its data, then try again",
        )


# ---- the database as a whole --------------------------------------------------------------------


class DatabaseUnusable(RegistryError):
    pass


class DatabaseHeld(DatabaseUnusable):
    """Another machine uses the database file, which only one machine may."""

    def __init__(
        self, path: str, *, holder: str, since: int, seen_s: int, expiry_s: int, lease: str
    ) -> None:
        began = datetime.fromtimestamp(since, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        super().__init__(
            f"the database {path} is in use by another machine, {holder}, since {began};"
            f" it was heard of {seen_s} seconds ago",
            hint=f"stop pyreg there, or share PostgreSQL instead of a file (setting 'database')."
            f" If that machine crashed, wait until it was silent for {expiry_s} seconds,"
            f" or remove {lease} once it is certainly off",
        )
        self.holder = holder


class DatabaseTooNew(DatabaseUnusable):
    def __init__(self, where: str, *, found: str, known: str) -> None:
        super().__init__(
            f"the database {where} has schema {found}, this pyreg knows up to {known}",
            hint="run the newer pyreg that wrote it, or restore a backup from before",
        )
        self.found = found
        self.known = known
