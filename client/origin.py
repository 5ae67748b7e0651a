"""Where a registry lives: host, port and whether it must be spoken to through TLS.

The one place that decides about plain http. A registry may be plain only if it is a loopback
address, where nobody can listen in, or if the user listed it as insecure.
"""

from __future__ import annotations

from client.errors import RegistryUnavailable
from ocispec.value import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from client.options import ClientOptions

PORTS = {"http": 80, "https": 443}
# docker.io is a name, not a host: its registry answers elsewhere.
HOSTS = {"docker.io": "registry-1.docker.io", "index.docker.io": "registry-1.docker.io"}


@value
class Origin:
    """Scheme, host and port: what credentials may be sent to, and no further."""

    scheme: str  # "http" or "https"
    host: str  # lower case, without brackets
    port: int

    @classmethod
    def parse(cls, url: str) -> tuple[Origin, str]:
        """Split an absolute URL into its origin and the path with query; the fragment is dropped.

        Raises: ValueError for anything but http and https, and for user information in the URL.
        """
        from urllib.parse import urlsplit

        parts = urlsplit(url)
        if parts.scheme not in PORTS or not parts.hostname or "@" in parts.netloc:
            raise ValueError(f"not a usable URL: {url[:200]!r}")
        if not url.isascii() or any(c <= " " or c == "\x7f" for c in url):
            raise ValueError(f"not a usable URL: {url[:200]!r}")
        origin = cls(parts.scheme, parts.hostname.lower(), parts.port or PORTS[parts.scheme])
        target = parts.path or "/"
        return origin, f"{target}?{parts.query}" if parts.query else target

    @property
    def netloc(self) -> str:
        """`host[:port]` as the Host header has it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        return is_loopback(self.host)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc}"


def split_registry(registry: str) -> tuple[str, int | None]:
    """`host[:port]` as a reference has it, in parts; brackets of IPv6 are taken off."""
    if registry.startswith("["):
        host, _, port = registry[1:].partition("]")
        port = port.removeprefix(":")
    else:
        host, _, port = registry.partition(":")
    return host.lower(), int(port) if port else None


def is_loopback(host: str) -> bool:
    """Is this certainly this machine, without asking a resolver that could lie?"""
    if host == "localhost" or host.endswith(".localhost") or host == "::1":
        return True
    parts = host.split(".")
    return parts[0] == "127" and len(parts) == 4 and all(p.isdigit() for p in parts)


def candidates(registry: str, options: ClientOptions) -> tuple[Origin, ...]:
    """The origins to try, in order; more than one only where plain http is allowed.

    Loopback is tried plain first, because that is what runs there; a registry listed as insecure
    through TLS first.
    """
    host, port = split_registry(registry)
    host = HOSTS.get(host, host) if port is None else host
    secure = Origin("https", host, port or 443)
    plain = Origin("http", host, port or 80)
    if is_loopback(host):
        return (plain, secure)
    if registry in options.insecure_registries:
        return (secure, plain)
    return (secure,)


def may_be_plain(origin: Origin, options: ClientOptions) -> bool:
    names = (origin.netloc, origin.host, f"{origin.host}:{origin.port}")
    return origin.is_loopback or any(name in options.insecure_registries for name in names)


def require_allowed(origin: Origin, options: ClientOptions) -> None:
    """Raises RegistryUnavailable if this origin is plain http without having been allowed."""
    if origin.scheme == "http" and not may_be_plain(origin, options):
        raise RegistryUnavailable(
            f"refusing to use {origin} without TLS",
            is_final=True,
            hint=f'to allow it: insecure_registries = ["{origin.netloc}"] in the configuration',
        )
