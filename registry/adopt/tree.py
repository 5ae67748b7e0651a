"""A `docker/registry/v2` tree as CNCF distribution's filesystem driver writes it, read warily.

    blobs/<algorithm>/<xx>/<hex>/data
    repositories/<name>/_manifests/revisions/<algorithm>/<hex>/link
    repositories/<name>/_manifests/tags/<tag>/current/link
    repositories/<name>/_layers/<algorithm>/<hex>/link
    repositories/<name>/_uploads/                                   not looked at

A link is a file that holds a digest. Whoever could write the tree may have put anything there: no
symbolic link is followed at any depth, only regular files are read, and links are bounded.

Source: distribution, registry/storage/paths.go.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from ocispec.digest import Digest
from ocispec.distribution.name import RepositoryName, Tag
from ocispec.errors import SpecError
from registry.errors import RegistryError

_MAX_LINK = 256
# A name of 255 characters has no more parts than that.
_MAX_DEPTH = 128
_BELOW = ("docker/registry/v2", "registry/v2", "v2", ".")

#: Told of what is left out: where, and why.
Skip = Callable[[str, str], None]


class NotATree(RegistryError):
    """There is nothing to adopt."""


class BadEntry(Exception):
    """Why something in the tree cannot be taken; for people."""


class Tree:
    """An open tree; a context manager."""

    def __init__(self, directory: Path) -> None:
        """Raises: NotATree. `directory` is the tree or what is above it."""
        for below in _BELOW:
            path = directory / below
            if (path / "repositories").is_dir() and (path / "blobs").is_dir():
                self.path = path
                break
        else:
            raise NotATree(
                f"there is no docker/registry/v2 tree in {directory}",
                hint="name the registry's rootdirectory, usually /var/lib/docker-registry",
            )
        self._root = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._root)

    @property
    def device(self) -> int:
        """The file system that the blobs are on."""
        fd = self._open(("blobs",), os.O_DIRECTORY)
        try:
            return os.fstat(fd).st_dev
        finally:
            os.close(fd)

    def repositories(self, skip: Skip) -> Iterator[RepositoryName]:
        """In no order."""
        waiting: list[tuple[str, ...]] = [()]
        while waiting:
            parts = waiting.pop()
            for name, is_directory in self._entries(("repositories", *parts), skip):
                if name in ("_manifests", "_layers", "_uploads"):
                    if name == "_manifests" and parts:
                        try:
                            yield RepositoryName.parse("/".join(parts))
                        except SpecError as error:
                            skip("/".join(parts), f"not a repository's name: {error}")
                elif not is_directory or len(parts) >= _MAX_DEPTH:
                    skip("/".join((*parts, name)), "not a directory of a repository")
                else:
                    waiting.append((*parts, name))

    def revisions(self, name: RepositoryName, skip: Skip) -> set[Digest]:
        return self._links(name, ("_manifests", "revisions"), skip)

    def layers(self, name: RepositoryName, skip: Skip) -> set[Digest]:
        return self._links(name, ("_layers",), skip)

    def tags(self, name: RepositoryName, skip: Skip) -> dict[Tag, Digest]:
        found: dict[Tag, Digest] = {}
        above = _parts(name, "_manifests", "tags")
        for tag, _ in self._entries(above, skip):
            where = f"{name}:{tag}"
            try:
                found[Tag.parse(tag)] = self._link((*above, tag, "current", "link"))
            except (BadEntry, SpecError) as error:
                skip(where, str(error))
        return found

    def open_blob(self, digest: Digest) -> int:
        """A descriptor of the bytes. Raises: BadEntry."""
        encoded = digest.encoded
        try:
            return self._file(("blobs", digest.algorithm, encoded[:2], encoded, "data"))
        except FileNotFoundError:
            raise BadEntry("its bytes are not there") from None

    def _links(self, name: RepositoryName, kind: tuple[str, ...], skip: Skip) -> set[Digest]:
        found: set[Digest] = set()
        above = _parts(name, *kind)
        for algorithm, _ in self._entries(above, skip):
            for encoded, _ in self._entries((*above, algorithm), skip):
                where = f"{name}@{algorithm}:{encoded}"
                try:
                    digest = Digest.parse(f"{algorithm}:{encoded}")
                    if self._link((*above, algorithm, encoded, "link")) != digest:
                        raise BadEntry("its link holds another digest")
                    found.add(digest)
                except FileNotFoundError:
                    skip(where, "was deleted: its link is not there")
                except (BadEntry, SpecError) as error:
                    skip(where, str(error))
        return found

    def _link(self, parts: tuple[str, ...]) -> Digest:
        try:
            fd = self._file(parts)
        except FileNotFoundError:
            raise BadEntry("was deleted: its link is not there") from None
        try:
            text = os.read(fd, _MAX_LINK + 1)
        finally:
            os.close(fd)
        if len(text) > _MAX_LINK:
            raise BadEntry("its link is no digest: it is too long")
        try:
            return Digest.parse(text.decode("ascii").strip())
        except (ValueError, SpecError):
            raise BadEntry("its link is no digest") from None

    def _entries(self, parts: tuple[str, ...], skip: Skip) -> list[tuple[str, bool]]:
        """Names in a directory, and whether each is one; nothing if it is not there."""
        try:
            fd = self._open(parts, os.O_DIRECTORY)
        except FileNotFoundError:
            return []
        except BadEntry as error:
            skip("/".join(parts), str(error))
            return []
        try:
            with os.scandir(fd) as entries:
                return sorted((e.name, e.is_dir(follow_symlinks=False)) for e in entries)
        finally:
            os.close(fd)

    def _file(self, parts: tuple[str, ...]) -> int:
        fd = self._open(parts, os.O_NONBLOCK)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise BadEntry("is no regular file")
        return fd

    def _open(self, parts: tuple[str, ...], flags: int) -> int:
        """Open by name, step by step, so that no symbolic link leads elsewhere."""
        fd = os.dup(self._root)
        try:
            for number, part in enumerate(parts):
                more = os.O_DIRECTORY if number < len(parts) - 1 else flags
                below = os.open(part, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | more, dir_fd=fd)
                os.close(fd)
                fd = below
        except FileNotFoundError:
            os.close(fd)
            raise
        except (OSError, ValueError) as error:
            os.close(fd)
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise BadEntry(
                f"cannot be opened ({reason}); symbolic links are not followed"
            ) from None
        return fd


def _parts(name: RepositoryName, *more: str) -> tuple[str, ...]:
    return ("repositories", *name.text.split("/"), *more)
