"""Login and logout: a credential is proven to its registry before it is written down."""

from __future__ import annotations

from client.credentials import Credential, FileKeychain, FixedKeychain
from client.errors import Unauthorized
from client.remote import Registry
from ocispec.value import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from client.transport import Transport


@value
class LoggedIn:
    """where: the file or helper that keeps it now. is_token: not the password was kept."""

    where: str
    is_token: bool


def login(
    registry: str, credential: Credential, transport: Transport, keychain: FileKeychain
) -> LoggedIn:
    """Prove the credential with the registry, then store it.

    Where the registry hands out an identity token, that is stored in place of the password.

    Raises: Unauthorized and nothing is stored; RegistryUnavailable; CredentialsError.
    """
    probe = Registry(registry, transport, FixedKeychain(credential))
    auth = probe.auth()
    auth.offline = True
    try:
        probe.check()
    except Unauthorized as error:
        raise Unauthorized(
            f"{registry}: incorrect username or password",
            registry=registry,
            status=error.status,
            hint=auth.explain_withheld() if auth.withheld else "",
        ) from error
    kept = credential
    if auth.identity_token:
        kept = Credential(username=credential.username, identity_token=auth.identity_token)
    return LoggedIn(where=keychain.store(registry, kept), is_token=bool(auth.identity_token))
