"""Login and logout: a credential is proven to its registry before it is written down."""

from __future__ import annotations

from client.credentials import Credential, FileKeychain, FixedKeychain
from client.errors import ClientError, Unauthorized
from client.remote import Registry
from ocispec.errors import SpecError
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


@value
class LoggedOut:
    """was_in: a credential was here. problem: why the registry may still accept it; or empty."""

    was_in: bool
    problem: str


def logout(registry: str, transport: Transport, keychain: FileKeychain) -> LoggedOut:
    """Forget a registry's credential. An identity token is ended at the registry as well.

    The credential goes from here even where the registry cannot be told. Raises: CredentialsError.
    """
    problem = ""
    found = keychain.find(registry)
    if found is not None and found.identity_token:
        try:
            remote = Registry(registry, transport, FixedKeychain(found))
            remote.auth().revoke(found.identity_token)
        except (ClientError, SpecError) as error:
            problem = str(error)
    return LoggedOut(was_in=keychain.erase(registry), problem=problem)
