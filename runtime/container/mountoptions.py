"""mount(8)'s words as the kernel's bits."""

from __future__ import annotations

from ocispec.value import value
from runtime.linux import flags as f

FLAGS = {
    "ro": f.MS_RDONLY,
    "nosuid": f.MS_NOSUID,
    "nodev": f.MS_NODEV,
    "noexec": f.MS_NOEXEC,
    "sync": f.MS_SYNCHRONOUS,
    "dirsync": f.MS_DIRSYNC,
    "noatime": f.MS_NOATIME,
    "nodiratime": f.MS_NODIRATIME,
    "relatime": f.MS_RELATIME,
    "strictatime": f.MS_STRICTATIME,
}
CLEARS = {
    "rw": f.MS_RDONLY,
    "suid": f.MS_NOSUID,
    "dev": f.MS_NODEV,
    "exec": f.MS_NOEXEC,
    "async": f.MS_SYNCHRONOUS,
    "atime": f.MS_NOATIME,
    "diratime": f.MS_NODIRATIME,
}
PROPAGATION = {
    "private": f.MS_PRIVATE,
    "rprivate": f.MS_PRIVATE | f.MS_REC,
    "slave": f.MS_SLAVE,
    "rslave": f.MS_SLAVE | f.MS_REC,
    "shared": f.MS_SHARED,
    "rshared": f.MS_SHARED | f.MS_REC,
}
# Options that mean something to us and not to the kernel.
IGNORED = frozenset(("defaults", "newinstance"))

_ATTRIBUTES = (
    (f.MS_RDONLY, f.MOUNT_ATTR_RDONLY),
    (f.MS_NOSUID, f.MOUNT_ATTR_NOSUID),
    (f.MS_NODEV, f.MOUNT_ATTR_NODEV),
    (f.MS_NOEXEC, f.MOUNT_ATTR_NOEXEC),
)


@value
class MountOptions:
    """The options of one mount, sorted by who reads them."""

    flags: int = 0  # MS_*
    propagation: int = 0  # MS_PRIVATE ..., maybe with MS_REC
    bind: bool = False
    recursive: bool = False  # of the bind
    recursive_attributes: bool = False  # rro and the like: the mounts below as well
    data: str = ""  # for the file system

    @property
    def attributes(self) -> int:
        """The flags as MOUNT_ATTR_* for mount_setattr(2)."""
        found = 0
        for flag, attribute in _ATTRIBUTES:
            if self.flags & flag:
                found |= attribute
        return found


def parse_mount_options(words: tuple[str, ...]) -> MountOptions:
    """Later words win over earlier ones; what is not known goes to the file system."""
    flags = propagation = 0
    bind = recursive = recursive_attributes = False
    data = []
    for word in words:
        if word in FLAGS:
            flags |= FLAGS[word]
        elif word in CLEARS:
            flags &= ~CLEARS[word]
        elif word in PROPAGATION:
            propagation = PROPAGATION[word]
        elif word in ("bind", "rbind"):
            bind, recursive = True, word == "rbind"
        elif word == "rro":
            flags |= f.MS_RDONLY
            recursive_attributes = True
        elif word not in IGNORED:
            data.append(word)
    return MountOptions(flags, propagation, bind, recursive, recursive_attributes, ",".join(data))
