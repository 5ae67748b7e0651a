"""From the environment to the client's objects: the store, the registries, the credentials."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from client.credentials import FileKeychain
    from client.local import LocalStore
    from client.options import ClientOptions
    from client.remote import Registry
    from client.transport import Transport
    from ocispec.distribution.reference import Reference
    from pyreg.environment import Environment


def local_store(env: Environment) -> LocalStore:
    """The images of this machine. Imports nothing that a start of a container must not pay for."""
    from client.local import LocalStore

    return LocalStore(os.path.join(env.root, "images"), default_registry=env.default_registry)


def client_options(env: Environment) -> ClientOptions:
    from client.options import ClientOptions
    from pyreg.version import VERSION

    return ClientOptions(
        default_registry=env.default_registry,
        insecure_registries=env.insecure_registries,
        ca_file=env.ca_file,
        docker_config=env.docker_config,
        docker_auth_config=env.docker_auth_config,
        auth_files=env.auth_files,
        proxies=env.proxies,
        helper_environment=env.variables,
        trusted_realms=env.trusted_realms,
        foreign_layers=env.foreign_layers,
        user_agent=f"pyreg/{VERSION}",
    )


def reference(env: Environment, text: str) -> Reference:
    from ocispec.distribution.reference import Reference

    return Reference.parse(text, default_registry=env.default_registry)


def familiar(name: str, default_registry: str) -> str:
    """A full name as a person writes it: without the default registry."""
    from ocispec.distribution.reference import Reference

    return Reference.parse(name, default_registry=default_registry).familiar(default_registry)


class Remotes:
    """The registries one command talks to. A context manager: leaving closes every connection.

    Nothing of HTTP is imported before the first registry is asked for, so that what a pull forks
    for unpacking is forked from a small process.
    """

    def __init__(self, env: Environment) -> None:
        self.options: ClientOptions = client_options(env)
        self._transport: Transport | None = None

    @property
    def transport(self) -> Transport:
        if self._transport is None:
            from client.transport import Transport

            self._transport = Transport(self.options)
        return self._transport

    @property
    def keychain(self) -> FileKeychain:
        from client.credentials import FileKeychain

        return FileKeychain(self.options)

    def registry(self, name: str) -> Registry:
        from client.remote import Registry

        return Registry(name, self.transport, self.keychain)

    def __enter__(self) -> Remotes:
        return self

    def __exit__(self, *_: object) -> None:
        if self._transport is not None:
            self._transport.close()
