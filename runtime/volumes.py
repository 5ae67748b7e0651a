"""Volumes: directories that outlive containers, and the sources of bind mounts.

volumes/<name>/data/    what containers see; a name of 64 hexadecimal digits is an anonymous one
"""

from __future__ import annotations

import os

from ocispec.runtime.config import Mount
from ocispec.value import value
from runtime.errors import VolumeError
from runtime.paths import make_private_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.container.options import VolumeRequest
    from runtime.paths import Paths


@value
class PreparedVolumes:
    """The mounts of one container, their sources in place."""

    mounts: tuple[Mount, ...]
    anonymous: tuple[str, ...]  # names of volumes made for this container alone
    copy_up: frozenset[str]  # destinations whose empty volume takes what the image has there


def prepare_volumes(
    paths: Paths,
    container_id: str,
    requests: tuple[VolumeRequest, ...],
    image_volumes: tuple[str, ...],
) -> PreparedVolumes:
    """Find or make every source: the user's, then the image's volumes nobody asked to replace.

    A host path that is missing becomes a directory, as docker's -v does.
    Raises: VolumeError, also for two mounts at one place.
    """
    from runtime.container.options import VolumeRequest

    taken: dict[str, VolumeRequest] = {}
    for request in requests:
        destination = request.destination.rstrip("/")
        if destination in taken:
            raise VolumeError(f"Duplicate mount point: {request.destination}")
        taken[destination] = request
    for destination in image_volumes:
        taken.setdefault(destination.rstrip("/"), VolumeRequest(destination=destination))
    mounts, anonymous, copy_up = [], [], []
    for request in taken.values():
        if request.is_bind:
            source = request.source
            _make_source(source)
        else:
            name = request.source or container_id[:32] + os.urandom(16).hex()
            if not request.source:
                anonymous.append(name)
            source = make_volume(paths, name)
            if request.copy and not os.listdir(source):
                copy_up.append(request.destination)
        options = (
            "rbind" if request.recursive else "bind",
            request.propagation,
            "ro" if request.read_only else "rw",
        )
        mounts.append(Mount(request.destination, "bind", source, options))
    return PreparedVolumes(tuple(mounts), tuple(anonymous), frozenset(copy_up))


def anonymous_volumes(paths: Paths, container_id: str) -> list[str]:
    """The names of the anonymous volumes that were made for a container."""
    begin = container_id[:32]
    return [name for name in os.listdir(paths.volumes) if len(name) == 64 and name[:32] == begin]


def make_volume(paths: Paths, name: str) -> str:
    """The directory of a volume, made if it is new. A container's users may need to enter it."""
    data = paths.volume_data(name)
    make_private_directory(paths.volume(name))
    try:
        os.mkdir(data, 0o755)
        os.chmod(data, 0o755)
    except FileExistsError:
        pass
    return data


def _make_source(path: str) -> None:
    try:
        os.makedirs(path, exist_ok=True)
    except FileExistsError:
        pass  # a file, a socket: mounted as what it is
    except OSError as error:
        raise VolumeError(f"cannot make the bind mount source {path}: {error.strerror}") from error
