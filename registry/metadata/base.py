"""What the registry remembers about content, as rows and as operations on them.

Glossary
    access      who asks, for which repository, with which rights; made by the guard, consumed by
                every query, so that no query can be made by bare name
    membership  the fact that a repository holds a blob; existence of a blob for a caller is one
                membership row of one *live* blob row, nothing else
    live        the blob's bytes are there under its store key
    doomed      the collector decided to remove the bytes; the digest may be uploaded again, then
                under the next *generation* and so under another store key
    lease       until when a blob without references may not be doomed

Two doors. `HotReads` answers most requests from the event loop, without a thread; where the
database is a local file, `ImmediateReads` does so in microseconds and without waiting. Everything
else is a coroutine that runs one transaction in a thread and returns once it is on disk: all of it
happened, or nothing did. Each may raise DatabaseBusy, DatabaseUnreachable and StorageFull.

Times are whole seconds since 1970 in UTC. Listings are sorted bytewise by name or digest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from ocispec.digest import Digest
from ocispec.distribution.name import RepositoryName, Tag
from ocispec.distribution.scope import DELETE as DELETE
from ocispec.distribution.scope import PULL as PULL
from ocispec.distribution.scope import PUSH as PUSH
from registry.auth.rules import ImmutableRule, Limit, Rule, WantedImmutable, WantedRule
from registry.errors import Denied

if TYPE_CHECKING:
    from registry.metadata.history import SqlHistory
    from registry.metadata.quotas import SqlQuotas
    from registry.metadata.retention import SqlRetention
    from registry.metadata.search import SqlSearch
    from registry.metadata.search_index import SqlSearchIndex
    from registry.metadata.trash import SqlTrash

if TYPE_CHECKING:
    from registry.metadata.overview import RepositorySummary, TagSummary

if TYPE_CHECKING:
    from registry.metadata.collecting import SqlCollection
    from registry.metadata.collection_report import SqlCollectionReport
    from registry.metadata.devices import SqlDevices
    from registry.metadata.trust import SqlTrust
    from registry.metadata.upkeep import SqlUpkeep
    from registry.metadata.usage import SqlUsage

T = TypeVar("T")

LIVE = "live"
DOOMED = "doomed"


@dataclass(frozen=True, slots=True)
class TagRights:
    """What a caller who may push or delete may do to tags; looked at where the tag is locked."""

    may_create: bool = True
    may_overwrite: bool = True
    #: Tags like these are neither overwritten nor deleted.
    immutable: tuple[re.Pattern[str], ...] = ()

    def is_immutable(self, tag: str) -> bool:
        return any(each.fullmatch(tag) is not None for each in self.immutable)


FREE = TagRights()


@dataclass(frozen=True, slots=True)
class Access:
    """What one caller may do to one repository. Only the guard makes one (and tests do)."""

    #: The repository, which may not exist yet.
    name: RepositoryName
    #: The account's name; empty for an anonymous caller.
    subject: str
    #: Granted actions: of PULL, PUSH, DELETE.
    actions: frozenset[str]
    tags: TagRights = FREE

    def require(self, action: str) -> None:
        """Raises: Denied if `action` was not granted. Every operation calls it first."""
        if action not in self.actions:
            raise Denied(action, self.name)


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Part of a sorted listing."""

    items: tuple[T, ...]
    #: Whether more follow, or may.
    more: bool
    #: Where the next page begins, if that is behind the last item; see `Repositories.page`.
    seen: str = ""


@dataclass(frozen=True, slots=True)
class Repository:
    id: int
    name: RepositoryName
    created_at: int


@dataclass(frozen=True, slots=True)
class BlobRecord:
    """One blob's bytes, shared by all repositories that hold it."""

    digest: Digest
    #: In bytes.
    size: int
    #: LIVE or DOOMED. A blob seen through a repository is always LIVE.
    state: str
    #: Of the bytes under `store_key` while live; the one to write next while doomed.
    generation: int
    #: Where the bytes are, in the store's own words.
    store_key: str
    #: Since when no manifest uses it; None while one does.
    unreferenced_since: int | None
    #: Not doomed before this time.
    lease_until: int


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the bytes of a digest must go before the upload that brought them can be finished."""

    digest: Digest
    #: To build the store key with.
    generation: int
    #: The live blob if the bytes are there already: nothing needs to be stored.
    present: BlobRecord | None


@dataclass(frozen=True, slots=True)
class ManifestRecord:
    digest: Digest
    media_type: str
    #: Exactly the bytes that were pushed.
    raw: bytes
    #: Digest of the manifest this one refers to, if any; that one need not exist.
    subject: Digest | None
    pushed_at: int


@dataclass(frozen=True, slots=True)
class Referrer:
    """A manifest whose subject was asked about, as a referrers listing describes it."""

    digest: Digest
    media_type: str
    size: int
    #: The manifest's artifactType, else an image's config media type, else empty.
    artifact_type: str
    annotations: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class BlobReference:
    """A blob that a manifest names."""

    digest: Digest
    #: "config" or "layer".
    role: str
    #: A foreign layer: its bytes may be elsewhere. It is kept if the repository holds it.
    may_be_absent: bool = False


@dataclass(frozen=True, slots=True)
class NewManifest:
    """A checked manifest on its way in: `raw` hashes to `digest` and parses as the rest says."""

    digest: Digest
    media_type: str
    raw: bytes
    blobs: tuple[BlobReference, ...] = ()
    #: Manifests that an index names.
    children: tuple[Digest, ...] = ()
    subject: Digest | None = None
    #: As the manifest says it; empty if it does not.
    artifact_type: str = ""
    #: Empty for an index.
    config_media_type: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TagRecord:
    name: Tag
    digest: Digest
    updated_at: int


@dataclass(frozen=True, slots=True)
class TagChange:
    """One entry of a tag's history."""

    name: Tag
    #: None: the tag was new.
    old: Digest | None
    #: None: the tag was deleted.
    new: Digest | None
    actor: str
    at: int
    #: The entry's own number, which grows.
    id: int = 0
    #: The change set that it was part of, if any.
    change: int | None = None


@dataclass(frozen=True, slots=True)
class UploadRecord:
    """An upload in progress. Bound to its repository and to the subject that began it."""

    #: 128 random bits in the form of a UUID.
    id: str
    #: Bytes received and stored so far.
    offset: int
    #: Of the running hash: "sha256" or "sha512".
    algorithm: str
    #: The running hash in its portable form, empty if it cannot be continued.
    hash_state: bytes
    #: What the blob store needs to continue, in its own words.
    store_state: str
    created_at: int
    expires_at: int
    #: Bytes that the repository's quota counts for it; None where there is no quota.
    reserved: int | None = None


@dataclass(frozen=True, slots=True)
class ExpiredUpload:
    """An upload nobody continued in time, for the one who removes its bytes."""

    id: str
    store_state: str


@dataclass(frozen=True, slots=True)
class Account:
    name: str
    #: In the PHC string format.
    password_hash: str
    #: "admin", "writer", "reader" or "user".
    role: str
    disabled: bool
    created_at: int
    #: "user", or "robot": without a password, it logs in with access tokens.
    kind: str = "user"
    #: Of everything that is about rights, when this was read; see `AccessPolicy.version`.
    version: int = field(default=0, compare=False)
    #: The access token that somebody came with, if they did.
    token: AccessToken | None = field(default=None, compare=False)
    #: The session, by its id, that somebody came with: a refresh token of theirs.
    session: str = field(default="", compare=False)
    #: The external token, and the rule that trusts it, that a robot came with.
    trusted: Trusted | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Trusted:
    """A robot came with somebody else's token; `rule` trusts its issuer."""

    rule: int
    created_at: int
    #: When the token ends, seconds since 1970; 0: not known any more.
    until: int = 0


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A personal access token; only the hash of its secret is stored."""

    id: int
    account: str
    label: str
    limit: Limit
    created_at: int
    #: None: never.
    expires_at: int | None
    #: To some ten minutes.
    last_used_at: int | None = None


@dataclass(frozen=True, slots=True)
class Group:
    name: str
    members: tuple[str, ...]
    created_at: int


@dataclass(frozen=True, slots=True)
class PolicyRows:
    """Everything that decides about rights, of one moment."""

    version: int
    rules: tuple[Rule, ...]
    immutable: tuple[ImmutableRule, ...]
    #: Groups by account.
    groups: Mapping[str, frozenset[str]]


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key that signs tokens."""

    #: Its name in token headers.
    kid: str
    #: PKCS #8 in PEM, unencrypted: the database file is readable by its owner alone.
    private_pem: str
    created_at: int
    #: The newest signs; older ones still verify.
    current: bool
    #: Since when it signs nothing any more; None for the current one.
    retired_at: int | None = None


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """A long-lived token of one account on one device; only its hash is stored."""

    account: str
    client_id: str
    created_at: int
    expires_at: int
    #: As the device called itself in its request; may be empty.
    user_agent: str = ""
    #: To some ten minutes; None: never, since it was made.
    last_used_at: int | None = None
    #: Names the session: the beginning of the token's hash, which tells nothing of the token.
    id: str = ""


# Characters of a hash that name a session.
SESSION_ID = 20


class HotReads(Protocol):
    """What most requests ask, wherever the database is.

    Sees every transaction that was committed before the call, by whichever process. None means
    absent, in every case: also when the repository does not exist (`repository` tells).
    """

    async def repository(self, access: Access) -> Repository | None: ...

    async def manifest_by_tag(self, access: Access, tag: Tag) -> ManifestRecord | None: ...

    async def manifest_by_digest(self, access: Access, digest: Digest) -> ManifestRecord | None: ...

    async def blob(self, access: Access, digest: Digest) -> BlobRecord | None:
        """The blob if it is live and a member of the repository."""

    async def placement(self, access: Access, digest: Digest) -> Placement:
        """Where to store bytes of this digest. Needs PUSH; says nothing about membership, so the
        answer must not show in what the caller gets to see."""

    async def upload(self, access: Access, upload: str) -> UploadRecord | None:
        """The upload if it belongs to this repository and this subject and has not expired."""

    async def account(self, name: str) -> Account | None:
        """The account as it is now, disabled or not."""

    async def policy_version(self) -> int:
        """Counts changes of accounts, groups, access tokens and policy."""

    def close(self) -> None: ...


class ImmediateReads(Protocol):
    """The same questions answered in microseconds, without a coroutine or a thread: for a database
    in a local file. One object for one event loop, which calls it straight."""

    def repository(self, access: Access) -> Repository | None: ...

    def manifest_by_tag(self, access: Access, tag: Tag) -> ManifestRecord | None: ...

    def manifest_by_digest(self, access: Access, digest: Digest) -> ManifestRecord | None: ...

    def blob(self, access: Access, digest: Digest) -> BlobRecord | None: ...

    def placement(self, access: Access, digest: Digest) -> Placement: ...

    def upload(self, access: Access, upload: str) -> UploadRecord | None: ...

    def account(self, name: str) -> Account | None: ...

    def policy_version(self) -> int: ...

    def close(self) -> None: ...


class Repositories(Protocol):
    async def page(
        self, wanted: Callable[[str], bool], *, n: int, last: str = "", look_at: int = 10_000
    ) -> Page[RepositoryName]:
        """Names after `last` of repositories that hold a manifest and that `wanted` accepts.

        At most `look_at` names are looked at, so that a page is never a walk through everything:
        then it has fewer than `n` items, perhaps none, and `seen` is where to go on.

        `wanted` is called in another thread.
        """


class Overview(Protocol):
    """What people ask about a repository."""

    async def repository(self, access: Access) -> RepositorySummary:
        """Raises: NameUnknown."""

    async def tags(self, access: Access, *, n: int, last: str = "") -> Page[TagSummary]:
        """Tags after `last` with what they name. Raises: NameUnknown."""


class Blobs(Protocol):
    async def add(
        self, access: Access, digest: Digest, size: int, *, store_key: str, generation: int
    ) -> BlobRecord:
        """Record stored bytes and make the repository a holder of them; leased for a day.

        `store_key` and `generation` are those of the placement. If the answer has another
        `store_key`, somebody else's bytes count and ours are superfluous.

        Raises: StaleGeneration if the bytes of that generation may be swept: place them again.
        """

    async def mount(self, access: Access, digest: Digest, source: Access) -> BlobRecord | None:
        """Make the repository a holder of a blob that `source` holds; None if it does not.

        Creates the repository. Needs PUSH here and PULL there.
        """

    async def mount_from_any(
        self, access: Access, digest: Digest, may_read: Callable[[str], bool]
    ) -> BlobRecord | None:
        """The same from whichever repository holds the blob and `may_read` accepts.

        `may_read` gets repository names and is called in another thread.
        """

    async def extend_lease(self, access: Access, digest: Digest) -> bool:
        """Keep an unreferenced blob for another day; nothing happens if it needs no lease.

        False if the repository does not hold it any more: the collector was faster.
        """

    async def relocate(self, access: Access, digest: Digest, *, old: str, new: str) -> None:
        """The bytes under the store key `old` are lost; equal ones are under `new`.

        Nothing happens if the blob is not live or is elsewhere already. Needs PUSH.
        """

    async def remove(self, access: Access, digest: Digest) -> None:
        """End the membership. Raises: BlobUnknown; BlobReferenced, changing nothing."""


class Uploads(Protocol):
    async def begin(
        self,
        access: Access,
        *,
        algorithm: str = "sha256",
        store_state: str = "",
        upload: str = "",
        make: Callable[[], None] | None = None,
    ) -> UploadRecord:
        """Begin an upload, creating the repository if need be. `upload` may propose an id.

        `make` is called in the transaction's thread before it ends, and may be called again if it
        must be repeated; where it fails, nothing began. A power cut may undo a beginning that was
        answered, as it may undo received bytes; the end of a process may not.
        """

    async def advance(
        self,
        access: Access,
        upload: str,
        *,
        start: int,
        offset: int,
        hash_state: bytes = b"",
        store_state: str | None = None,
        expected_state: str | None = None,
    ) -> UploadRecord:
        """Record that bytes from `start` to `offset` (exclusive) were stored; renews the expiry.

        `store_state` None leaves it as it is; `expected_state` is what it must be before.

        Raises: UploadUnknown; RangeMismatch if the upload does not end at `start`;
        UploadContended if another request changed the state meanwhile.
        """

    async def swap_state(self, access: Access, upload: str, *, old: str, new: str) -> None:
        """Change `store_state` if it is still `old`. Raises: UploadUnknown; UploadContended."""

    async def finish(
        self,
        access: Access,
        upload: str,
        digest: Digest,
        size: int,
        *,
        store_key: str,
        generation: int,
    ) -> BlobRecord:
        """`Blobs.add`, and the upload ends, in one transaction.

        Raises: UploadUnknown; StaleGeneration. The upload stays then.
        """

    async def reserve(self, access: Access, upload: str, size: int) -> None:
        """Let the repository's quota, if it has one, count `size` bytes in all for the upload.

        Raises: UploadUnknown; QuotaExceeded.
        """

    async def cancel(self, access: Access, upload: str) -> UploadRecord:
        """End the upload without a blob; gives its last state. Raises: UploadUnknown."""

    async def reap(self, *, limit: int = 100) -> tuple[ExpiredUpload, ...]:
        """Forget expired uploads and give them, so that their bytes can be removed."""

    async def count(self) -> int:
        """How many uploads are open, of all repositories; for operators."""


class Manifests(Protocol):
    async def put(
        self,
        access: Access,
        manifest: NewManifest,
        *,
        tags: tuple[Tag, ...] = (),
        allow_sparse: bool = False,
    ) -> bool:
        """Store a manifest and point tags at it; True if the manifest is new to the repository.

        The same again changes nothing. `allow_sparse`: children of an index may be missing.

        Raises: ManifestBlobUnknown with everything that is missing.
        """

    async def remove(self, access: Access, digest: Digest) -> None:
        """Remove a manifest and every tag that points at it.

        Raises: NameUnknown; ManifestUnknown.
        """

    async def referrers(
        self,
        access: Access,
        subject: Digest,
        *,
        artifact_type: str = "",
        n: int,
        last: str = "",
    ) -> Page[Referrer]:
        """Manifests that have `subject` as theirs, by digest, after `last`.

        Empty if the repository does not exist.
        """


class Tags(Protocol):
    async def page(self, access: Access, *, n: int, last: str = "") -> Page[Tag]:
        """Tags after `last`, which need not exist. Raises: NameUnknown."""

    async def remove(self, access: Access, name: Tag) -> None:
        """Raises: NameUnknown; ManifestUnknown."""

    async def history(self, access: Access, name: Tag, *, n: int = 100) -> tuple[TagChange, ...]:
        """Changes of a tag, newest first. Empty if there never was one."""


class Accounts(Protocol):
    """Names are lower-case and checked: see `registry.metadata.accounts.check_name`."""

    async def find(self, name: str) -> Account | None: ...

    async def all(self) -> tuple[Account, ...]: ...

    async def add(self, name: str, password_hash: str, role: str, *, kind: str = "user") -> Account:
        """A robot has an empty `password_hash`. Raises: AccountExists; AccountInvalid."""

    async def add_first(self, name: str, password_hash: str) -> bool:
        """Add an admin if there are no accounts at all; True if it did."""

    async def set_password(self, name: str, password_hash: str) -> None:
        """Also ends the account's refresh tokens. Raises: AccountUnknown."""

    async def rehash(self, name: str, old_hash: str, new_hash: str) -> None:
        """Store the same password hashed anew; nothing happens if it was changed meanwhile."""

    async def set_role(self, name: str, role: str) -> None:
        """Raises: AccountUnknown; AccountInvalid; LastAdministrator."""

    async def set_disabled(self, name: str, disabled: bool) -> None:
        """Disabling also ends the account's refresh tokens.

        Raises: AccountUnknown; LastAdministrator.
        """

    async def remove(self, name: str) -> None:
        """With its tokens, memberships and the rules that name it: another account of this name
        inherits nothing. Raises: AccountUnknown; LastAdministrator."""


class Groups(Protocol):
    """Accounts that a policy rule means together. They are called as accounts may be."""

    async def all(self) -> tuple[Group, ...]: ...

    async def find(self, name: str) -> Group | None: ...

    async def of(self, account: str) -> tuple[str, ...]:
        """The groups that an account is in."""

    async def add(self, name: str) -> Group:
        """Raises: GroupExists; AccountInvalid."""

    async def remove(self, name: str) -> None:
        """With the rules that name it. Raises: GroupUnknown."""

    async def join(self, name: str, account: str) -> None:
        """Harmless twice. Raises: GroupUnknown; AccountUnknown."""

    async def leave(self, name: str, account: str) -> None:
        """Harmless twice. Raises: GroupUnknown."""

    async def set_groups(self, account: str, names: Collection[str]) -> None:
        """Make an account a member of these and no others; those that do not exist are passed
        over. Raises: AccountUnknown."""


class AccessTokens(Protocol):
    """Personal access tokens. `registry.auth.access_tokens` makes their secrets."""

    async def add(
        self, account: str, token_hash: str, *, label: str, limit: Limit, expires_at: int | None
    ) -> AccessToken:
        """Raises: AccountUnknown; PolicyInvalid."""

    async def of(self, account: str) -> tuple[AccessToken, ...]:
        """Oldest first, expired ones too."""

    async def find(self, token_hash: str) -> Account | None:
        """The account behind a secret, with `token`; None if revoked, expired, or disabled."""

    async def holder(self, id: int) -> Account | None:
        """The same for a token's id."""

    async def used(self, id: int) -> None:
        """Note that it was used now."""

    async def revoke(self, account: str, id: int) -> None:
        """Raises: TokenUnknown."""


class AccessPolicy(Protocol):
    """Rules. Each change counts `version` up, as those of accounts, groups and tokens do."""

    async def load(self) -> PolicyRows: ...

    async def add_rule(
        self, repositories: str, subject: str, actions: frozenset[str], effect: str
    ) -> Rule:
        """`subject` as in `user:ann`. Raises: PolicyInvalid; AccountUnknown; GroupUnknown."""

    async def remove_rule(self, id: int) -> None:
        """Raises: RuleUnknown."""

    async def add_immutable(
        self, repositories: str, tags: str, *, may_expire: bool = False
    ) -> ImmutableRule:
        """Raises: PolicyInvalid."""

    async def remove_immutable(self, id: int) -> None:
        """Raises: RuleUnknown."""

    async def replace(
        self,
        wanted: Sequence[WantedRule],
        immutable: Sequence[WantedImmutable],
        *,
        versions: Collection[str] | None = None,
    ) -> PolicyRows:
        """All rules at once: what is there already stays, with its id. Gives what is now.

        versions: one of them must be the present one, as text. Raises: PolicyChanged;
        PolicyInvalid; AccountUnknown; GroupUnknown – and then nothing has changed.
        """


class Credentials(Protocol):
    """What the token service keeps: its signing keys, and the hashes of refresh tokens."""

    async def signing_keys(self) -> tuple[SigningKey, ...]:
        """Newest first."""

    async def offer_signing_key(self, key: SigningKey) -> tuple[SigningKey, ...]:
        """Store `key` if there is none yet; gives the keys that count, newest first."""

    async def rotate_signing_key(self, key: SigningKey, keep_s: int) -> tuple[SigningKey, ...]:
        """Make `key` current; those before still verify for `keep_s` after they were retired, and
        are dropped by the first rotation after that. 0 drops them now."""

    async def add_refresh_token(self, token_hash: str, token: RefreshToken) -> None:
        """Raises: AccountUnknown."""

    async def find_refresh_token(self, token_hash: str) -> RefreshToken | None:
        """None if unknown, expired or revoked, or if its account is gone or disabled."""

    async def used_refresh_token(self, token_hash: str) -> None:
        """Note that it was used now, unless it was within the last ten minutes."""

    async def session_holder(self, id: str) -> Account | None:
        """The account, with the session in it; None as `find_refresh_token`."""

    async def sessions(self, account: str) -> tuple[RefreshToken, ...]:
        """Those that have not ended, the oldest first."""

    async def revoke_session(self, account: str, id: str) -> None:
        """Raises: SessionUnknown."""

    async def revoke_refresh_token(self, token_hash: str) -> bool:
        """By the token itself, whoever holds it; False if it had ended already."""

    async def revoke_refresh_tokens(self, account: str) -> int:
        """All of an account; how many ended."""


class Metadata(Protocol):
    """All of it, as `registry.metadata.database.open_metadata` gives it."""

    @property
    def hot(self) -> HotReads: ...

    @property
    def immediate(self) -> ImmediateReads | None:
        """`hot` without waiting, where the database allows it."""

    @property
    def repositories(self) -> Repositories: ...

    @property
    def overview(self) -> Overview: ...

    @property
    def blobs(self) -> Blobs: ...

    @property
    def uploads(self) -> Uploads: ...

    @property
    def manifests(self) -> Manifests: ...

    @property
    def tags(self) -> Tags: ...

    @property
    def accounts(self) -> Accounts: ...

    @property
    def groups(self) -> Groups: ...

    @property
    def access_tokens(self) -> AccessTokens: ...

    @property
    def policy(self) -> AccessPolicy: ...

    @property
    def credentials(self) -> Credentials: ...

    @property
    def trust(self) -> SqlTrust: ...

    @property
    def devices(self) -> SqlDevices: ...

    @property
    def collection(self) -> SqlCollection:
        """The steps of the collector."""

    @property
    def upkeep(self) -> SqlUpkeep:
        """What the collector does beside them."""

    @property
    def collection_report(self) -> SqlCollectionReport:
        """What an operator asks about collection."""

    @property
    def usage(self) -> SqlUsage:
        """Who takes how many bytes."""

    @property
    def search(self) -> SqlSearch: ...

    @property
    def search_index(self) -> SqlSearchIndex: ...

    @property
    def history(self) -> SqlHistory: ...

    @property
    def trash(self) -> SqlTrash: ...

    @property
    def retention(self) -> SqlRetention: ...

    @property
    def quotas(self) -> SqlQuotas: ...

    def close(self) -> None:
        """Wait for running transactions and close; harmless twice."""
