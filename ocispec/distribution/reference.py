"""References: where an image is, as people write it.

    reference ::= [host "/"] repository [":" tag] ["@" digest]

The first component is a host if, and only if, it contains `.` or `:` or is `localhost`. Without a
host the reference belongs to the default registry, which the caller gives: nothing goes to Docker
Hub unless `docker.io/…` is written or configured.
"""

from __future__ import annotations

import re

from ocispec import grammar
from ocispec.digest import Digest
from ocispec.distribution.name import RepositoryName, Tag, shorten
from ocispec.errors import InvalidName
from ocispec.value import replace, value

DOCKER_HUB = "docker.io"
DEFAULT_TAG = "latest"

# Docker Hub's former name, which old references and configurations still hold.
_DOCKER_HUB_ALIASES = ("index.docker.io",)
# Docker Hub keeps its own images under this, and lets people leave it out.
_DOCKER_HUB_NAMESPACE = "library/"
# host "/" repository ":" tag "@" digest, all at their longest
_LONGEST = grammar.HOST_MAX + 1 + grammar.NAME_MAX + 1 + 128 + 1 + grammar.DIGEST_MAX


@value
class Reference:
    """One image in one registry.

    registry: `host` or `host:port` in lower case; always recognisable as one, see `is_host`.
    repository: its name there; on Docker Hub with the namespace `library` written out.
    tag, digest: which manifest; both may be given (the digest counts) and both may be None.

    The constructor checks. `Reference.parse(str(r), default_registry=anything) == r`.
    """

    registry: str
    repository: RepositoryName
    tag: Tag | None = None
    digest: Digest | None = None

    def __post_init__(self) -> None:
        check_registry(self.registry)
        if self.registry in _DOCKER_HUB_ALIASES:
            raise InvalidName(f"write {DOCKER_HUB} for {self.registry}")
        if self.registry == DOCKER_HUB and "/" not in self.repository.text:
            raise InvalidName(
                f"Docker Hub has no repository {self.repository}",
                hint=f"write {_DOCKER_HUB_NAMESPACE}{self.repository}",
            )

    @classmethod
    def parse(cls, text: str, *, default_registry: str) -> Reference:
        """Read a reference; one without a host is in `default_registry`.

        Raises: InvalidName (InvalidDigest for what follows an `@`)
        """
        if len(text) > _LONGEST:
            raise InvalidName(f"reference {shorten(text)} is longer than {_LONGEST} characters")
        if "://" in text:
            raise InvalidName(
                f"{shorten(text)} is a URL, not a reference",
                hint="leave out http:// or https://: write host:port/repository",
            )
        if re.fullmatch(grammar.IDENTIFIER, text):
            raise InvalidName(
                f"{text} is an image id, not a reference",
                hint="write REPOSITORY@sha256:... to name a manifest by its digest",
            )
        named, at, encoded = text.partition("@")
        host, slash, rest = named.partition("/")
        if not slash or not is_host(host):
            host, rest = default_registry, named
        path, colon, tag = rest.partition(":")
        registry = _normal_registry(host)
        if registry == DOCKER_HUB and "/" not in path:
            path = _DOCKER_HUB_NAMESPACE + path if path else path
        return cls(
            registry,
            RepositoryName.parse(path),
            Tag.parse(tag) if colon else None,
            Digest.parse(encoded) if at else None,
        )

    @property
    def target(self) -> str:
        """What to ask the registry for: the digest, else the tag, else `latest`."""
        return str(self.digest or self.tag or DEFAULT_TAG)

    def with_default_tag(self) -> Reference:
        """The same with the tag `latest`, if it has neither tag nor digest."""
        if self.tag is not None or self.digest is not None:
            return self
        return replace(self, tag=Tag(DEFAULT_TAG))

    def familiar(self, default_registry: str) -> str:
        """The shortest text that `parse` reads back as this, given the same default registry."""
        short = str(self).removeprefix(f"{self.registry}/")
        if self.registry == DOCKER_HUB:
            short = short.removeprefix(_DOCKER_HUB_NAMESPACE)
        for candidate in (short, f"{self.registry}/{short}"):
            try:
                if Reference.parse(candidate, default_registry=default_registry) == self:
                    return candidate
            except ValueError:
                continue  # such as a name of 64 hex digits, which reads as an image id
        return str(self)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.registry}/{self.repository}{tag}{digest}"


def is_host(component: str) -> bool:
    """Whether the first component of a reference is read as a host."""
    return "." in component or ":" in component or component.lower() == "localhost"


def check_registry(registry: str) -> None:
    """Raises: InvalidName unless this is `host[:port]` in lower case, recognisable in a reference.

    A bare word such as `registry` is not: `registry/x` would be read as a repository.
    """
    well_formed = len(registry) <= grammar.HOST_MAX and re.fullmatch(grammar.HOST, registry)
    port = registry.rpartition(":")[2] if well_formed and not registry.endswith("]") else ""
    if not well_formed or (port.isdigit() and ":" in registry and not 0 < int(port) < 65536):
        raise InvalidName(
            f"{shorten(registry)} is not a registry",
            hint="write host or host:port, without http://",
        )
    if not is_host(registry):
        raise InvalidName(
            f"registry {registry!r} would be read as part of a repository name",
            hint=f"add its port, such as {registry}:443",
        )


def _normal_registry(host: str) -> str:
    host = host.lower() if host.isascii() else host
    return DOCKER_HUB if host in _DOCKER_HUB_ALIASES else host
