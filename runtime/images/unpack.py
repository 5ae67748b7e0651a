"""One layer's archive turned into a directory tree that overlayfs can stack.

The layers of an image are unpacked independently, in any order and at the same time, each into an
empty directory. What belongs to a lower layer is therefore not there to be followed or linked to.
What a layer says about lower layers becomes overlay's own marks: a whiteout is a character device
0:0, an opaque directory has an extended attribute. Marks in the archive that only overlay may make
(`trusted.overlay.*`, a device 0:0) are dropped, or an image could hide or redirect what it likes.

Nothing of a name is ever joined to a path; see `rootdir`. Every entry is made new with O_EXCL,
never opened, so no link, FIFO or device of the image is followed or opened. Directories get their
mode, owner and time last, children first; until then they are 0700, so nobody else can come in
and a read-only directory can be filled.
"""

from __future__ import annotations

import errno
import os
import stat

from ocispec.value import value
from runtime.errors import (
    EngineError,
    HostileEntry,
    InvalidArchive,
    InvalidCompression,
    LayerError,
    LayerMismatch,
    LimitExceeded,
    NotEnoughSpace,
)
from runtime.images.archive import ArchiveReader
from runtime.images.compression import Decompressor
from runtime.images.limits import Limits
from runtime.images.readahead import ReadAhead
from runtime.images.rootdir import Directory, RootDirectory, is_whiteout
from runtime.images.store import raise_if_full
from runtime.images.tarheader import (
    BLOCK_DEVICE,
    CHARACTER_DEVICE,
    DIRECTORY,
    FIFO,
    HARD_LINK,
    REGULAR,
    SYMLINK,
    printable,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocispec.digest import Digest
    from runtime.images.archive import Entry
    from runtime.images.compression import Readable

_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_META = b".wh..wh."  # aufs's own bookkeeping
_ACL = b"system.posix_acl_"
_WRITE_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SPECIAL_BITS = 0o7000
_MAJORS, _MINORS = 1 << 12, 1 << 20
_NAME_BYTES = 256 << 20  # of directories remembered until the end
_ACL_BYTES = 16 << 20
_UNSUPPORTED = (errno.ENOTSUP, errno.EPERM, errno.EACCES)


@value
class Rules:
    """What this process may do with a layer.

    keep_owners: give files to the archive's ids; else everything is ours, which a container with
        a single mapped id sees as root's.
    uids, gids: how many ids there are, from 0 on; what belongs to others becomes root's.
    make_devices: make device nodes; else they are left out and counted.
    mark: the prefix of overlay's attributes, `trusted.overlay.` or, in a user namespace,
        `user.overlay.`
    """

    keep_owners: bool = True
    uids: int = 1 << 32
    gids: int = 1 << 32
    make_devices: bool = True
    mark: str = "trusted.overlay."


ROOT_RULES = Rules()
ROOTLESS_RULES = Rules(keep_owners=False, make_devices=False, mark="user.overlay.")


@value
class Unpacked:
    """What became of a layer.

    entries, size: how many, and the bytes of all files (holes included).
    opaque: the layer hides everything below it (an opaque mark in its root).
    implicit: real paths of parents the archive left out; they exist here with mode 0755, and a
        container must see the lower layer's attributes instead.
    skipped: what was left out, with how often, for a warning.
    """

    entries: int
    size: int
    opaque: bool
    implicit: tuple[str, ...]
    skipped: tuple[str, ...]


def unpack_layer(
    file: Readable,
    root: int,
    *,
    digest: Digest,
    size: int,
    diff_id: Digest,
    rules: Rules = ROOT_RULES,
    limits: Limits | None = None,
    ahead: bool = False,
) -> Unpacked:
    """Unpack the blob `file` into the empty directory `root` (a descriptor).

    Everything is verified: when this returns, the blob had this digest and size and its archive
    had this diff id. Until then the tree means nothing: on an error throw it away. The process's
    umask is changed for the duration, so call it where no other thread makes files. `ahead`
    inflates and hashes in a thread of its own.

    Raises: LayerError and its kinds; NotEnoughSpace.
    """
    limits = limits or Limits()
    source = Decompressor(file, digest=digest, diff_id=diff_id, limits=limits)
    chunks = ReadAhead(source.read) if ahead else source
    reader = ArchiveReader(chunks.read, limits)
    extractor = Extractor(root, reader, rules=rules, limits=limits)
    umask = os.umask(0)
    try:
        extractor.extract()
        reader.finish()
    except (InvalidArchive, InvalidCompression) as error:
        if isinstance(chunks, ReadAhead):
            chunks.close()
        # A damaged blob looks like a damaged archive; say which of the two it is.
        source.drain()
        _check("size of the blob", size, source.compressed_size, error)
        _check("digest of the blob", digest, source.compressed_digest, error)
        raise
    finally:
        if isinstance(chunks, ReadAhead):
            chunks.close()
        os.umask(umask)
        extractor.close()
    _check("size of the blob", size, source.compressed_size)
    _check("digest of the blob", digest, source.compressed_digest)
    _check("diff id", diff_id, source.diff_id)
    return extractor.result()


def _check(what: str, expected: object, found: object, cause: Exception | None = None) -> None:
    if expected != found:
        raise LayerMismatch(what, expected=expected, found=found) from cause


class Extractor:
    """Applies the entries of one archive to one directory. Use once."""

    def __init__(self, root: int, reader: ArchiveReader, *, rules: Rules, limits: Limits) -> None:
        self._reader = reader
        self._rules = rules
        self._limits = limits
        self._root = RootDirectory(
            root,
            depth=limits.depth,
            path_bytes=limits.path_bytes,
            make_missing=self._make_implicit,
        )
        self._own = (os.geteuid(), os.getegid())
        # What a directory will look like, by real path: (mode, uid, gid, mtime, acls).
        self._finally: dict[bytes, tuple[int, int, int, int, dict[bytes, bytes] | None]] = {}
        self._name_bytes = 0
        self._acl_bytes = 0
        self._implicit: dict[bytes, None] = {}
        self._skipped: dict[str, int] = {}
        self._entries = 0
        self._size = 0
        self._opaque = False

    def extract(self) -> None:
        """Raises: LayerError and its kinds, NotEnoughSpace."""
        reader, place = self._reader, self._place
        while (entry := reader.next()) is not None:
            try:
                place(entry)
            except OSError as error:
                raise _explained(error, entry.name) from error
            self._entries += 1
        try:
            self._finish_directories()
        except OSError as error:
            raise _explained(error, error.filename or b"/") from error

    def result(self) -> Unpacked:
        return Unpacked(
            entries=self._entries,
            size=self._size,
            opaque=self._opaque,
            implicit=tuple(os.fsdecode(path) for path in self._implicit),
            skipped=tuple(f"{what} ({count})" for what, count in self._skipped.items()),
        )

    def close(self) -> None:
        self._root.forget()

    def _place(self, entry: Entry) -> None:
        if entry.uid >= self._rules.uids or entry.gid >= self._rules.gids:
            entry.uid = entry.gid = 0
            if self._rules.keep_owners:
                self._skip("owner outside of the ids this user may map (see /etc/subuid)")
        path = clean_name(entry.name, self._limits)
        if not path:
            self._place_root(entry)
            return
        parent_path, _, name = path.rpartition(b"/")
        if _WHITEOUT in path:
            if parent_path.startswith(_WHITEOUT) or b"/" + _WHITEOUT in parent_path:
                if not parent_path.startswith(_META) and b"/" + _META not in parent_path:
                    raise HostileEntry("it is inside a whiteout", name=printable(entry.name))
                return
            if name.startswith(_WHITEOUT):
                self._place_whiteout(entry, parent_path, name)
                return
        kind = entry.kind
        parent = self._root.directory(parent_path)
        if kind == REGULAR:
            self._place_file(entry, parent, name)
        elif kind == DIRECTORY:
            self._place_directory(entry, parent, name)
        elif kind == SYMLINK:
            self._place_symlink(entry, parent, name)
        elif kind == HARD_LINK:
            self._place_hard_link(entry, parent, name)
        else:
            self._place_special(entry, parent, name)

    def _place_file(self, entry: Entry, parent: Directory, name: bytes) -> None:
        size = entry.size
        self._size += size
        if self._size > self._limits.content_bytes:
            raise LimitExceeded(
                f"files of more than {self._limits.content_bytes >> 20} MiB",
                limit="content_bytes",
            )
        mode, xattrs = entry.mode, entry.xattrs
        # With attributes to set the owner must be able to write, whatever the final mode.
        first_mode = mode & 0o777 if xattrs is None else 0o600
        try:
            fd = os.open(name, _WRITE_NEW, first_mode, dir_fd=parent.fd)
        except FileExistsError:
            parent = self._clear(parent, name)
            fd = os.open(name, _WRITE_NEW, first_mode, dir_fd=parent.fd)
        try:
            if entry.regions is not None:
                self._write_sparse(entry, fd)
            elif size:
                write, piece = os.write, self._reader.piece
                while data := piece():
                    written = write(fd, data)
                    while written < len(data):
                        written += write(fd, data[written:])
            if self._rules.keep_owners and (entry.uid, entry.gid) != self._own:
                os.fchown(fd, entry.uid, entry.gid)
            if xattrs is not None:
                self._set_xattrs(fd, xattrs, acls=False)
            # Writing and chown(2) both take setuid away, so it comes after them.
            if mode & _SPECIAL_BITS or xattrs is not None:
                os.fchmod(fd, mode)
            if xattrs is not None:
                self._set_xattrs(fd, xattrs, acls=True)
            os.utime(fd, ns=(entry.mtime, entry.mtime))
        finally:
            os.close(fd)

    def _write_sparse(self, entry: Entry, fd: int) -> None:
        os.ftruncate(fd, entry.size)
        data = memoryview(b"")
        for start, length in entry.regions or ():
            os.lseek(fd, start, os.SEEK_SET)
            while length:
                data = data or self._reader.piece()
                written = os.write(fd, data[:length])
                data = data[written:]
                length -= written

    def _place_directory(self, entry: Entry, parent: Directory, name: bytes) -> None:
        path = parent.child(name)
        self._root.check_depth(path)
        try:
            os.mkdir(name, 0o700, dir_fd=parent.fd)
        except FileExistsError:
            state = os.stat(name, dir_fd=parent.fd, follow_symlinks=False)
            if not stat.S_ISDIR(state.st_mode):
                parent = self._clear(parent, name)
                os.mkdir(name, 0o700, dir_fd=parent.fd)
                if is_whiteout(state):
                    self._mark_opaque(parent, name)
            self._implicit.pop(path, None)
        acls = None
        if entry.xattrs is not None:
            fd = os.open(name, _OPEN_DIRECTORY, dir_fd=parent.fd)
            try:
                self._set_xattrs(fd, entry.xattrs, acls=False)
            finally:
                os.close(fd)
            acls = self._keep_acls(entry.xattrs)
        self._remember(path, entry, acls)

    def _place_root(self, entry: Entry) -> None:
        if entry.kind != DIRECTORY:
            raise HostileEntry("it would replace the root", name=printable(entry.name))
        acls = None
        if entry.xattrs is not None:
            fd = os.open(".", _OPEN_DIRECTORY, dir_fd=self._root.root.fd)
            try:
                self._set_xattrs(fd, entry.xattrs, acls=False)
            finally:
                os.close(fd)
            acls = self._keep_acls(entry.xattrs)
        self._remember(b"", entry, acls)

    def _place_symlink(self, entry: Entry, parent: Directory, name: bytes) -> None:
        target = entry.link
        if not target or len(target) > self._limits.link_bytes:
            raise HostileEntry(
                "a symbolic link with an empty or endless target", name=printable(entry.name)
            )
        try:
            os.symlink(target, name, dir_fd=parent.fd)
        except FileExistsError:
            parent = self._clear(parent, name)
            os.symlink(target, name, dir_fd=parent.fd)
        self._finish_nofollow(entry, parent, name)

    def _place_hard_link(self, entry: Entry, parent: Directory, name: bytes) -> None:
        target = clean_name(entry.link, self._limits)
        target_parent, _, target_name = target.rpartition(b"/")
        try:
            source = self._root.existing(target_parent, beside=parent)
            state = os.stat(target_name, dir_fd=source.fd, follow_symlinks=False)
        except FileNotFoundError:
            state = None
        if state is None or is_whiteout(state):
            raise HostileEntry(
                f"a hard link to {printable(entry.link)}, which is not in this layer before it",
                name=printable(entry.name),
            )
        if stat.S_ISDIR(state.st_mode):
            raise HostileEntry("a hard link to a directory", name=printable(entry.name))
        if source.path == parent.path and target_name == name:
            return  # a link to itself is already there
        # The link has the metadata of its file; what the entry says about it is not applied.
        try:
            _link(source, target_name, parent, name)
        except FileExistsError:
            if _same_file(state, parent, name):
                return
            if self._holds(parent.child(name), source.path):
                raise HostileEntry(
                    "a hard link that would replace the directory of its own target",
                    name=printable(entry.name),
                ) from None
            parent = self._clear(parent, name)
            source = self._root.existing(target_parent, beside=parent)
            _link(source, target_name, parent, name)

    def _place_special(self, entry: Entry, parent: Directory, name: bytes) -> None:
        if entry.kind == FIFO:
            kind, device = stat.S_IFIFO, 0
        else:
            major, minor = entry.device_major, entry.device_minor
            if not (0 <= major < _MAJORS and 0 <= minor < _MINORS):
                raise HostileEntry(
                    f"device {major}:{minor} does not exist on Linux", name=printable(entry.name)
                )
            kind = stat.S_IFCHR if entry.kind == CHARACTER_DEVICE else stat.S_IFBLK
            device = os.makedev(major, minor)
            if entry.kind == CHARACTER_DEVICE and device == 0:
                self._skip("character device 0:0, overlay's mark for a deleted file")
                return
            if not self._rules.make_devices:
                self._skip("device node, which needs root")
                return
        mode = kind | entry.mode & 0o777
        try:
            os.mknod(name, mode, device, dir_fd=parent.fd)
        except FileExistsError:
            parent = self._clear(parent, name)
            os.mknod(name, mode, device, dir_fd=parent.fd)
        except PermissionError:
            if entry.kind not in (CHARACTER_DEVICE, BLOCK_DEVICE):
                raise
            self._skip("device node, which this process may not make")
            return
        self._finish_nofollow(entry, parent, name)

    def _place_whiteout(self, entry: Entry, parent_path: bytes, name: bytes) -> None:
        """`.wh.x` hides x of the layers below, never x of this layer, wherever it stands in it."""
        if name == _OPAQUE:
            if not parent_path:
                self._opaque = True
                return
            parent = self._root.directory(parent_path)
            self._set_mark(parent.fd, b".")
            return
        if name.startswith(_META):
            return
        hidden = name[len(_WHITEOUT) :]
        if hidden in (b"", b".", b".."):
            raise HostileEntry("a whiteout of the directory itself", name=printable(entry.name))
        parent = self._root.directory(parent_path)
        try:
            os.mknod(hidden, stat.S_IFCHR, 0, dir_fd=parent.fd)  # 0:0 needs no privilege
        except FileExistsError:
            state = os.stat(hidden, dir_fd=parent.fd, follow_symlinks=False)
            if stat.S_ISDIR(state.st_mode):
                self._mark_opaque(parent, hidden)

    def _make_implicit(self, parent: Directory, name: bytes) -> None:
        """A parent that the archive has no entry for (yet), or has whited out before."""
        try:
            os.mkdir(name, 0o700, dir_fd=parent.fd)
        except FileExistsError:
            os.unlink(name, dir_fd=parent.fd)
            os.mkdir(name, 0o700, dir_fd=parent.fd)
            self._mark_opaque(parent, name)
        path = parent.child(name)
        if len(self._implicit) < self._limits.implicit_directories and len(path) < 512:
            self._implicit[path] = None
        if path not in self._finally:
            self._count_directory(path)
            uid, gid = (0, 0) if self._rules.keep_owners else self._own
            self._finally[path] = (0o755, uid, gid, 0, None)

    def _remember(self, path: bytes, entry: Entry, acls: dict[bytes, bytes] | None) -> None:
        if path not in self._finally:
            self._count_directory(path)
        self._finally[path] = (entry.mode, entry.uid, entry.gid, entry.mtime, acls)

    def _count_directory(self, path: bytes) -> None:
        self._name_bytes += len(path)
        if len(self._finally) >= self._limits.directories or self._name_bytes > _NAME_BYTES:
            raise LimitExceeded(
                f"more than {self._limits.directories} directories, or with too long names",
                limit="directories",
            )

    def _finish_directories(self) -> None:
        """Mode, owner, times: children before parents, as a parent may become unreadable."""
        if b"" not in self._finally:
            self._finally[b""] = (0o755, *self._own, 0, None)
        for path in sorted(self._finally, reverse=True):
            mode, uid, gid, mtime, acls = self._finally[path]
            parent_path, _, name = path.rpartition(b"/")
            parent = self._root.directory(parent_path)
            fd = os.open(name or b".", _OPEN_DIRECTORY, dir_fd=parent.fd)
            try:
                if self._rules.keep_owners and (uid, gid) != self._own:
                    os.fchown(fd, uid, gid)
                os.fchmod(fd, mode)
                if acls:
                    self._set_xattrs(fd, acls, acls=True)
                os.utime(fd, ns=(mtime, mtime))
            finally:
                os.close(fd)

    def _finish_nofollow(self, entry: Entry, parent: Directory, name: bytes) -> None:
        if self._rules.keep_owners and (entry.uid, entry.gid) != self._own:
            os.chown(name, entry.uid, entry.gid, dir_fd=parent.fd, follow_symlinks=False)
        os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=parent.fd, follow_symlinks=False)

    def _clear(self, parent: Directory, name: bytes) -> Directory:
        """Remove what an earlier entry made; return the parent, opened again if need be."""
        state = os.stat(name, dir_fd=parent.fd, follow_symlinks=False)
        if stat.S_ISDIR(state.st_mode):
            self._remove_directory(parent.fd, name, parent.child(name))
        else:
            os.unlink(name, dir_fd=parent.fd)
            if not stat.S_ISLNK(state.st_mode):
                return parent
        # Paths that led through it mean something else now.
        path = parent.path
        self._root.forget()
        return self._root.directory(path)

    def _remove_directory(self, parent: int, name: bytes, path: bytes) -> None:
        fd = os.open(name, _OPEN_DIRECTORY, dir_fd=parent)
        try:
            with os.scandir(fd) as entries:
                found = [(os.fsencode(e.name), e.is_dir(follow_symlinks=False)) for e in entries]
            for child, is_directory in found:
                if is_directory:
                    self._remove_directory(fd, child, path + b"/" + child)
                else:
                    os.unlink(child, dir_fd=fd)
        finally:
            os.close(fd)
        os.rmdir(name, dir_fd=parent)
        self._finally.pop(path, None)
        self._implicit.pop(path, None)

    @staticmethod
    def _holds(outer: bytes, inner: bytes) -> bool:
        return inner == outer or inner.startswith(outer + b"/")

    def _mark_opaque(self, parent: Directory, name: bytes) -> None:
        """Nothing of the lower layers shows through the directory `name`."""
        self._set_mark(parent.fd, name)

    def _set_mark(self, parent: int, name: bytes) -> None:
        fd = os.open(name, _OPEN_DIRECTORY, dir_fd=parent)
        try:
            os.setxattr(fd, self._rules.mark + "opaque", b"y")
        finally:
            os.close(fd)

    def _set_xattrs(self, fd: int, xattrs: dict[bytes, bytes], *, acls: bool) -> None:
        for name, content in xattrs.items():
            if name.startswith(_ACL) != acls:
                continue
            if not _is_kept(name):
                self._skip(f"attribute {printable(name)}, which only the host may set")
                continue
            try:
                os.setxattr(fd, name, content)
            except OSError as error:
                if error.errno not in _UNSUPPORTED:
                    raise
                self._skip(f"attribute {printable(name)}, not possible here")

    def _keep_acls(self, xattrs: dict[bytes, bytes]) -> dict[bytes, bytes] | None:
        found = {name: acl for name, acl in xattrs.items() if name.startswith(_ACL)}
        self._acl_bytes += sum(map(len, found.values()))
        if self._acl_bytes > _ACL_BYTES:
            raise LimitExceeded("access lists of directories over 16 MiB", limit="xattr_bytes")
        return found or None

    def _skip(self, what: str) -> None:
        if what in self._skipped or len(self._skipped) < 32:
            self._skipped[what] = self._skipped.get(what, 0) + 1


def _explained(error: OSError, name: bytes | str) -> EngineError:
    """The kernel's refusal as an error of the layer, or of the disk."""
    try:
        raise_if_full(error, "the layer store")
    except NotEnoughSpace as full:
        return full
    shown = printable(os.fsencode(name))
    if error.errno == errno.ENAMETOOLONG:
        return LimitExceeded(f"a name that is too long: {shown}", limit="path_bytes")
    return LayerError(f"entry {shown}: {os.strerror(error.errno or 0)}")


def clean_name(name: bytes, limits: Limits) -> bytes:
    """A name as a path below the root: no empty, `.` or `..` component; the root is empty.

    A leading slash means the root, as in docker; `a/../b` is `b`, by the letters alone.
    Raises: HostileEntry if it is empty or leaves the root; LimitExceeded.
    """
    path = name.strip(b"/")
    if b"/." in path or b"//" in path or path[:1] == b"." or not path:
        if not name:
            raise HostileEntry("it has no name", name="''")
        kept: list[bytes] = []
        for component in path.split(b"/"):
            if component == b"..":
                if not kept:
                    raise HostileEntry("it leaves the layer", name=printable(name))
                kept.pop()
            elif component not in (b"", b"."):
                kept.append(component)
        path = b"/".join(kept)
    if len(path) >= limits.path_bytes:
        raise LimitExceeded(
            f"a path of {len(path)} bytes, at most {limits.path_bytes - 1}", limit="path_bytes"
        )
    if path.count(b"/") >= limits.depth:
        raise LimitExceeded(f"more than {limits.depth} nested directories", limit="depth")
    return path


def _is_kept(name: bytes) -> bool:
    """Attributes that belong to the image: capabilities, access lists, the user's own."""
    if name.startswith(b"user."):
        return not name.startswith(b"user.overlay.")
    return name == b"security.capability" or name.startswith(_ACL)


def _link(source: Directory, target: bytes, parent: Directory, name: bytes) -> None:
    os.link(target, name, src_dir_fd=source.fd, dst_dir_fd=parent.fd, follow_symlinks=False)


def _same_file(state: os.stat_result, parent: Directory, name: bytes) -> bool:
    other = os.stat(name, dir_fd=parent.fd, follow_symlinks=False)
    return (state.st_dev, state.st_ino) == (other.st_dev, other.st_ino)
