"""What an operator may choose: one flat table of settings with a default each.

A new setting is a field with its default, its line in the docstring of `Settings`, and what limits
it in `_CHECKS`; one that nobody may read is named in `SECRETS`. Everything else follows from these:
reading (`registry.configuration`), `PYREG_*` variables, `pyreg config check|schema|show`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from registry.errors import InvalidSettings
from registry.metadata.location import is_location

MIB = 1 << 20
GIB = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Checked settings of one server.

    root: directory of pyreg's data; the registry keeps its own under `registry/`.
    host, port: where to listen; port 0 takes a free one.
    public_url: how clients reach us, e.g. "https://registry.example.com"; empty: taken from the
        request's Host, and from X-Forwarded-Proto and -Host of trusted proxies.
    trusted_proxies: addresses or networks whose X-Forwarded-* headers are believed.
    auth: whether callers need rights; off, everybody may do everything.
    anonymous_pull: whether callers without credentials may pull every repository.
    service: our name in tokens and challenges.
    token_lifetime_s: how long an access token lasts; at least 60, clients assume that much.
    issuer_hosts: hosts beside an issuer's own that may hold the keys of its tokens, for issuers
        such as https://accounts.google.com with theirs at "www.googleapis.com".
    login_failures: wrong passwords for one account from one address that have no consequence; each
        further one doubles the time until the next is looked at, up to five minutes; each
        process counts for itself. 0: never.
    anonymous_requests_per_minute, account_requests_per_minute: how often an address without
        credentials, or an account, may ask before 429; each process counts for itself. 0: no limit.
    warning: a text for all who push and pull, such as "read-only from May 1st"; their clients show
        it or keep it to themselves. Empty: none.
    namespaces: registries whose images are kept here below a repository of their name, such as
        "docker.io". A client that is told to pull theirs from us asks for `library/debian` with
        `ns=docker.io` and gets `docker.io/library/debian`. Others' `ns` is not looked at.
    delete_enabled: whether tags, manifests and blobs can be deleted over HTTP.
    allow_sparse_index: whether an index may name manifests that the repository does not hold.
    allow_sparse_image: whether an image may name layers that the repository does not hold, as
        partial mirrors push them. Layers pushed after their manifest are not kept by it.
    max_manifest_bytes: a larger manifest is refused with 413; at least 4 MiB, the spec's minimum.
    max_blob_bytes: a larger upload is refused with 413.
    upload_expiry_s: how long an upload may rest before it is forgotten.
    history_days: how long deleted manifests, tags and repositories can be restored; their bytes
        stay as long. 0: not at all.
    gc: whether what nobody uses any more is removed while the registry serves.
    gc_pace: manifests, blobs and objects that one replica looks at in a second, at most.
    gc_sweep_delay_s: how long the bytes of a removed blob stay for those who read them just now.
    lease_s: how long blobs stay that no manifest uses (yet): the longest push.
    untagged_days: how long a manifest stays after it was pushed, lost its last tag, or was pulled,
        whichever is last, unless an index or a subject keeps it. 0: for ever.
    scrub_bytes: bytes of stored blobs that are read in a second to see whether they are still
        right; 0: none are.
    page_size: most tags or repositories in one page of a listing.
    access_log: a line for each request on standard error: "off", "text" or "json".
    metrics: who may read /metrics: "off" is nobody, "loopback" callers on this machine with no
        proxy between, "token" only those with the metrics token (which counts for "loopback" too).
    metrics_token: what Prometheus sends as its bearer token; at least 16 characters.
    metrics_listen: an address of its own for /metrics, /livez and /readyz, as host:port, where
        everybody may read them; keep it from the world. Empty: none.
    tracing: send a trace of every request by OTLP; needs the extra `otel`.
    tracing_endpoint: URL of the collector, e.g. "http://localhost:4318/v1/traces"; empty: as the
        standard OTEL_* variables say.
    graceful_s: how long running requests may finish after SIGTERM. Uploads that take longer are
        parked: what arrived of them stays, and the next start goes on there.
    workers: processes that serve; more than the machine has processors gain nothing.
    max_connections: connections of one process beyond which requests are answered with 503; 0 is
        no limit.
    tls_certificate: file with the certificate and its chain, PEM; with it the server speaks TLS.
        Read again when it changes and on SIGHUP.
    tls_key: file with the certificate's private key, PEM, without a passphrase.
    tls_client_ca: file with authorities, PEM; clients must show a certificate that one of them
        signed. Empty: clients need none.
    upgrade: whether a start may bring an older database up to date; off, `pyreg db upgrade` must.
    database: where metadata lives: empty for a SQLite file below root, else a PostgreSQL database
        as postgresql://user:password@host:port/name or as libpq parameters (host=… dbname=…).
        Several machines need one.
    database_connections: most connections of one process to PostgreSQL, besides two for reads.
    storage: where blobs live: "disk" (below root) or "s3".
    s3_bucket: the bucket, which must exist.
    s3_endpoint: URL of a service that speaks S3; empty: AWS itself.
    s3_region: region for signatures; empty: as the AWS configuration says, else us-east-1.
    s3_prefix: where in the bucket, e.g. "registry/"; empty: all of it.
    s3_path_style: address the bucket in the path instead of the host name, as most services of
        one's own need it; does not matter for AWS.
    s3_access_key, s3_secret_key, s3_session_token: credentials; empty: the usual AWS chain, which
        is variables, files, and the role of the machine or container.
    s3_checksums: let the client library add its own checksums. Our digests cover the same bytes.
    s3_redirect: whether blobs are read from the service itself, by 307 to a signed URL.
    s3_public_endpoint: URL of the service as clients reach it, for these signed URLs; empty: the
        same as s3_endpoint.
    s3_redirect_s: how long a signed URL is valid; a new one is made when half of it is over.
    s3_upload_bytes: bytes of full parts that may wait for the service at once; beyond it clients
        are made to wait. They lie in unlinked files below root, not in memory.
    """

    root: str = "/var/lib/pyreg"
    host: str = "localhost"
    port: int = 5000
    public_url: str = ""
    trusted_proxies: tuple[str, ...] = ()
    auth: bool = True
    anonymous_pull: bool = False
    service: str = "pyreg"
    token_lifetime_s: int = 900
    issuer_hosts: tuple[str, ...] = ()
    login_failures: int = 5
    anonymous_requests_per_minute: int = 0
    account_requests_per_minute: int = 0
    warning: str = ""
    namespaces: tuple[str, ...] = ()
    delete_enabled: bool = True
    allow_sparse_index: bool = False
    allow_sparse_image: bool = False
    max_manifest_bytes: int = 4 * MIB
    max_blob_bytes: int = 512 * GIB
    upload_expiry_s: int = 7 * 24 * 3600
    history_days: int = 30
    gc: bool = True
    gc_pace: int = 1500
    gc_sweep_delay_s: int = 600
    lease_s: int = 24 * 3600
    untagged_days: int = 30
    scrub_bytes: int = 4 * MIB
    page_size: int = 1000
    access_log: str = "off"
    metrics: str = "loopback"
    metrics_token: str = field(default="", repr=False)
    metrics_listen: str = ""
    tracing: bool = False
    tracing_endpoint: str = ""
    graceful_s: int = 30
    workers: int = 1
    max_connections: int = 0
    tls_certificate: str = ""
    tls_key: str = ""
    tls_client_ca: str = ""
    upgrade: bool = True
    database: str = field(default="", repr=False)
    database_connections: int = 8
    storage: str = "disk"
    s3_bucket: str = ""
    s3_endpoint: str = ""
    s3_region: str = ""
    s3_prefix: str = ""
    s3_path_style: bool = True
    s3_access_key: str = field(default="", repr=False)
    s3_secret_key: str = field(default="", repr=False)
    s3_session_token: str = field(default="", repr=False)
    s3_checksums: bool = False
    s3_redirect: bool = False
    s3_public_endpoint: str = ""
    s3_redirect_s: int = 1200
    s3_upload_bytes: int = 256 * MIB

    def __post_init__(self) -> None:
        problems = broken_rules(self)
        if problems:
            raise InvalidSettings("; ".join(problems))

    @property
    def data(self) -> Path:
        """The registry's own directory."""
        return Path(self.root) / "registry"


# Settings that are hidden wherever settings are shown, and that may be given as `<name>_file`.
SECRETS: frozenset[str] = frozenset(
    {"database", "metrics_token", "s3_access_key", "s3_secret_key", "s3_session_token"}
)


def broken_rules(settings: Settings) -> list[str]:
    """What is wrong with these values, a line each; each names its setting in quotes."""
    return [problem for check in _CHECKS if (problem := check(settings))]


@dataclass(frozen=True, slots=True)
class Range:
    """The numbers that a setting may have, both ends included."""

    key: str
    minimum: int
    maximum: int

    def __call__(self, settings: Settings) -> str:
        value = getattr(settings, self.key)
        if self.minimum <= value <= self.maximum:
            return ""
        return (
            f"setting {self.key!r} must be between {self.minimum} and {self.maximum}, not {value}"
        )


def ranges() -> dict[str, Range]:
    """The range of every number, by setting."""
    return {check.key: check for check in _CHECKS if isinstance(check, Range)}


def _public_url(settings: Settings) -> str:
    if not settings.public_url:
        return ""
    try:
        url = urlsplit(settings.public_url)
        port_is_valid = url.port is None or url.port > 0
    except ValueError:
        port_is_valid = False
    if port_is_valid and url.scheme in ("http", "https") and url.hostname and not url.query:
        return ""
    return f"setting 'public_url' must look like https://host[:port], not {settings.public_url!r}"


def _proxies(settings: Settings) -> str:
    for text in settings.trusted_proxies:
        try:
            ipaddress.ip_network(text, strict=False)
        except ValueError:
            return f"setting 'trusted_proxies' holds {text!r}, which is no address or network"
    return ""


def _choice(key: str, *choices: str) -> Callable[[Settings], str]:
    def check(settings: Settings) -> str:
        value = getattr(settings, key)
        if value in choices:
            return ""
        return f"setting {key!r} must be one of {', '.join(choices)}, not {value!r}"

    return check


def _metrics(settings: Settings) -> str:
    token = settings.metrics_token
    if token and (len(token) < 16 or not token.isascii() or not token.isprintable()):
        return "setting 'metrics_token' must be 16 or more plain characters"
    if settings.metrics == "token" and not token:
        return "setting 'metrics' needs 'metrics_token' beside it to be \"token\""
    host, _, port = settings.metrics_listen.rpartition(":")
    if settings.metrics_listen and not (host and port.isdigit() and int(port) < 65536):
        return (
            "setting 'metrics_listen' must look like 127.0.0.1:5001, "
            f"not {settings.metrics_listen!r}"
        )
    return ""


def _service(settings: Settings) -> str:
    if re.fullmatch(r"[A-Za-z0-9._:/ -]{1,255}", settings.service):
        return ""
    return "setting 'service' must be plain text without quotes"


def _tls(settings: Settings) -> str:
    if bool(settings.tls_certificate) != bool(settings.tls_key):
        given, missing = "tls_certificate", "tls_key"
        if settings.tls_key:
            given, missing = missing, given
        return f"setting {given!r} needs {missing!r} beside it"
    if settings.tls_client_ca and not settings.tls_certificate:
        return "setting 'tls_client_ca' needs 'tls_certificate' and 'tls_key' beside it"
    return ""


def _database(settings: Settings) -> str:
    if not settings.database or is_location(settings.database):
        return ""
    # Not repeated: there may be a password in it.
    return "setting 'database' must look like postgresql://user:password@host:port/name"


def _storage(settings: Settings) -> str:
    if settings.storage not in ("disk", "s3"):
        return f"setting 'storage' must be disk or s3, not {settings.storage!r}"
    if settings.storage == "s3" and not settings.s3_bucket:
        return "setting 's3_bucket' is missing: storage = \"s3\" needs it"
    if bool(settings.s3_access_key) != bool(settings.s3_secret_key):
        return "settings 's3_access_key' and 's3_secret_key' must be given together"
    return ""


def _s3_names(settings: Settings) -> str:
    if re.fullmatch(r"(?:[A-Za-z0-9][A-Za-z0-9._-]{1,62})?", settings.s3_bucket) is None:
        return f"setting 's3_bucket' cannot be a bucket's name: {settings.s3_bucket!r}"
    parts = settings.s3_prefix.removesuffix("/").split("/")
    plain = all(re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}", part) for part in parts)
    if settings.s3_prefix and not plain:
        return f"setting 's3_prefix' must be plain words between '/': {settings.s3_prefix!r}"
    return ""


def _s3_endpoint(settings: Settings) -> str:
    for key in ("s3_endpoint", "s3_public_endpoint"):
        text = getattr(settings, key)
        try:
            url = urlsplit(text)
            good = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
        except ValueError:
            good = False
        if text and (not good or url.query or url.username or url.password):
            return f"setting {key!r} must look like https://host[:port]"
    return ""


def _warning(settings: Settings) -> str:
    if re.fullmatch(r"[ -~]{0,1000}", settings.warning):
        return ""
    return "setting 'warning' must be one line of ASCII of at most 1000 characters"


def _namespaces(settings: Settings) -> str:
    for text in settings.namespaces:
        if not re.fullmatch(r"[a-z0-9]+((\.|-+)[a-z0-9]+)*", text) or len(text) > 100:
            return f"setting 'namespaces' holds {text[:100]!r}, which is no host name without port"
    return ""


def _issuer_hosts(settings: Settings) -> str:
    for text in settings.issuer_hosts:
        if not re.fullmatch(r"[a-z0-9]+([.-]+[a-z0-9]+)*", text) or len(text) > 253:
            return (
                f"setting 'issuer_hosts' holds {text[:100]!r}, which is no host name without port"
            )
    return ""


_CHECKS: tuple[Callable[[Settings], str], ...] = (
    Range("port", 0, 65535),
    Range("token_lifetime_s", 60, 24 * 3600),
    Range("login_failures", 0, 1000),
    Range("anonymous_requests_per_minute", 0, 1_000_000),
    Range("account_requests_per_minute", 0, 1_000_000),
    Range("max_manifest_bytes", 4 * MIB, 64 * MIB),
    Range("max_blob_bytes", 1, 1 << 50),
    Range("upload_expiry_s", 60, 365 * 24 * 3600),
    Range("history_days", 0, 3650),
    Range("gc_pace", 1, 1_000_000),
    Range("gc_sweep_delay_s", 1, 7 * 24 * 3600),
    Range("lease_s", 60, 365 * 24 * 3600),
    Range("untagged_days", 0, 36_500),
    Range("scrub_bytes", 0, 1 << 40),
    Range("page_size", 1, 10_000),
    Range("graceful_s", 0, 3600),
    Range("workers", 1, 256),
    Range("max_connections", 0, 1_000_000),
    _choice("access_log", "off", "text", "json"),
    _choice("metrics", "off", "loopback", "token"),
    _metrics,
    _public_url,
    _proxies,
    _service,
    _warning,
    _namespaces,
    _issuer_hosts,
    _tls,
    _database,
    Range("database_connections", 2, 100),
    Range("s3_redirect_s", 60, 7 * 24 * 3600),
    Range("s3_upload_bytes", 64 * MIB, 1 << 40),
    _storage,
    _s3_names,
    _s3_endpoint,
)
