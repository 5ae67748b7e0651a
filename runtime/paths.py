"""Where the engine keeps things; the only module that joins these names.

    <root>/                        /var/lib/pyreg, or ~/.local/share/pyreg without root
    ├── lock                       flock: shared while a layer is taken, exclusive to remove one
    ├── images/                    OCI image layout: oci-layout, index.json, blobs/<algorithm>/<hex>
    ├── layers/
    │   ├── <algorithm>-<hex>/     one unpacked layer, named by its diff id
    │   │   ├── diff/              the files
    │   │   └── layer.json         size, entries, short name
    │   └── <...>.tmp-<random>/    being unpacked or being removed; never read
    ├── l/<short>                  symbolic link to ../layers/<...>/diff: overlay's options are one
    │                              page, so 500 layers need names of four letters
    ├── snapshots/<key>/           the writable part of a container (key: its id) or of a build step
    │   ├── snapshot.json          which layers it stands on
    │   ├── upper/  work/          overlay
    │   └── tree/                  a full copy, where overlay is impossible
    ├── containers/<id>/
    │   ├── config.json            the runtime-spec configuration it was created with
    │   ├── state.json             status, pid and start time, exit status
    │   ├── container.json         what the user asked for: name, image, options
    │   ├── hostname  hosts  resolv.conf
    │   ├── container.log          json-file log, rotated to container.log.1 ...
    │   └── rootfs/                mount point, used only inside the container's mount namespace
    ├── names/<name>               symbolic link to ../containers/<id>: a name is taken by making it
    ├── volumes/<name>/data/
    └── networks/<name>.json
    <run>/                         /run/pyreg, or $XDG_RUNTIME_DIR/pyreg: gone after a boot
    └── containers/<id>/           lock, attach.sock, monitor.pid

Every directory has mode 0700: a layer holds setuid files that no other user may reach.
"""

from __future__ import annotations

import os

from runtime.errors import EngineError, SystemCallFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocispec.digest import Digest

PRIVATE = 0o700
TEMPORARY = ".tmp-"

_COMPONENT_LIMIT = 200  # a file name has 255 bytes and we append suffixes


class Paths:
    """The tree under one root; joining never leaves it, as every component is checked.

    Making a `Paths` touches nothing on disk; call `create` once before the first write.
    """

    __slots__ = (
        "containers",
        "images",
        "layers",
        "lock",
        "names",
        "networks",
        "root",
        "run",
        "run_containers",
        "short_links",
        "snapshots",
        "volumes",
    )

    def __init__(self, root: str, run: str) -> None:
        self.root = os.path.abspath(root)
        self.run = os.path.abspath(run)
        self.lock = self.root + "/lock"
        self.images = self.root + "/images"
        self.layers = self.root + "/layers"
        self.short_links = self.root + "/l"
        self.snapshots = self.root + "/snapshots"
        self.containers = self.root + "/containers"
        self.names = self.root + "/names"
        self.volumes = self.root + "/volumes"
        self.networks = self.root + "/networks"
        self.run_containers = self.run + "/containers"

    def create(self) -> None:
        """Make the directories that are missing. Safe to call again and from many processes."""
        for directory in (
            self.root,
            self.images,
            self.layers,
            self.short_links,
            self.snapshots,
            self.containers,
            self.names,
            self.volumes,
            self.networks,
            self.run,
            self.run_containers,
        ):
            make_private_directory(directory)

    def layer(self, diff_id: Digest) -> str:
        return f"{self.layers}/{layer_name(diff_id)}"

    def layer_tree(self, diff_id: Digest) -> str:
        return f"{self.layers}/{layer_name(diff_id)}/diff"

    def layer_record(self, diff_id: Digest) -> str:
        return f"{self.layers}/{layer_name(diff_id)}/layer.json"

    def snapshot(self, key: str) -> str:
        return f"{self.snapshots}/{component(key)}"

    def snapshot_record(self, key: str) -> str:
        return f"{self.snapshots}/{component(key)}/snapshot.json"

    def container(self, container_id: str) -> str:
        return f"{self.containers}/{component(container_id)}"

    def container_config(self, container_id: str) -> str:
        return f"{self.containers}/{component(container_id)}/config.json"

    def container_state(self, container_id: str) -> str:
        return f"{self.containers}/{component(container_id)}/state.json"

    def container_record(self, container_id: str) -> str:
        return f"{self.containers}/{component(container_id)}/container.json"

    def container_log(self, container_id: str) -> str:
        return f"{self.containers}/{component(container_id)}/container.log"

    def container_rootfs(self, container_id: str) -> str:
        return f"{self.containers}/{component(container_id)}/rootfs"

    def container_file(self, container_id: str, name: str) -> str:
        """A file we write for the container: hostname, hosts, resolv.conf."""
        return f"{self.containers}/{component(container_id)}/{component(name)}"

    def container_run(self, container_id: str) -> str:
        return f"{self.run_containers}/{component(container_id)}"

    def name(self, name: str) -> str:
        return f"{self.names}/{component(name)}"

    def volume(self, name: str) -> str:
        return f"{self.volumes}/{component(name)}"

    def volume_data(self, name: str) -> str:
        return f"{self.volumes}/{component(name)}/data"

    def network(self, name: str) -> str:
        return f"{self.networks}/{component(name)}.json"


def layer_name(diff_id: Digest) -> str:
    """The directory name of a layer. No colon: overlay separates its layers with one."""
    return f"{diff_id.algorithm}-{diff_id.encoded}"


def component(name: str) -> str:
    """`name` if it is a safe single path component, as docker defines names and ids.

    Spec: `[a-zA-Z0-9][a-zA-Z0-9_.-]*`. Raises: EngineError.
    """
    bare = name.replace("_", "a").replace(".", "a").replace("-", "a")
    if not (name and name[0].isalnum() and bare.isalnum() and name.isascii()):
        raise EngineError(
            f"{name!r} is not a valid name",
            hint="use letters, digits, '_', '.' and '-', and begin with a letter or digit",
        )
    if len(name) > _COMPONENT_LIMIT:
        raise EngineError(f"the name {name[:40]!r}... is longer than {_COMPONENT_LIMIT} characters")
    return name


def make_private_directory(path: str) -> None:
    """Make `path` and missing parents with mode 0700; one that exists is left as it is."""
    try:
        os.mkdir(path, PRIVATE)
    except FileExistsError:
        if not os.path.isdir(path):
            raise EngineError(f"{path} exists and is not a directory") from None
    except FileNotFoundError:
        make_private_directory(os.path.dirname(path))
        make_private_directory(path)
    except OSError as error:
        raise SystemCallFailed(
            "mkdir",
            error.errno or 0,
            subject=path,
            hint="choose another directory with --root, or check its owner",
        ) from error
