"""What the user configured, as the client needs it. Nothing here is read from the environment."""

from __future__ import annotations

from ocispec.value import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_NOTHING: Mapping[str, str] = {}  # shared default: never changed


@value
class ClientOptions:
    """Settings of every transfer.

    default_registry: completes names without a host
    insecure_registries: `host[:port]` that may be spoken to without TLS or without a valid
        certificate; loopback addresses always may be plain http
    ca_file: certificates to trust beside the system's, PEM
    docker_config: directory of docker's config.json
    docker_auth_config: JSON text that comes before any file (DOCKER_AUTH_CONFIG)
    auth_files: further credential files, asked in order after docker's
    proxies: `http`, `https`, `all`, `no` as in the usual variables
    helper_environment: variables a credential helper is started with; PATH is searched for it
    trusted_realms: hosts that may be given any registry's credentials when it names them
    foreign_layers: fetch non-distributable layers from their URLs, without credentials
    """

    default_registry: str
    insecure_registries: tuple[str, ...] = ()
    ca_file: str = ""
    docker_config: str = ""
    docker_auth_config: str = ""
    auth_files: tuple[str, ...] = ()
    proxies: Mapping[str, str] = _NOTHING
    helper_environment: Mapping[str, str] = _NOTHING
    trusted_realms: tuple[str, ...] = ()
    foreign_layers: bool = False
    parallel: int = 4  # blobs in flight
    attempts: int = 5  # tries of one request, the first included
    connect_timeout_s: float = 15.0
    read_timeout_s: float = 60.0  # silence on a connection
    answer_timeout_s: float = 120.0  # the whole of a manifest, token or list
    longest_wait_s: float = 60.0  # a Retry-After above this is an error
    user_agent: str = "pyreg"
