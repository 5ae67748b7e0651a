"""How much one layer may ask of the machine: every bound has a name, a number and a reason."""

from __future__ import annotations

from ocispec.value import value

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


@value
class Limits:
    """Checked while a layer is read, before the resource is used. See `LimitExceeded.limit`."""

    archive_bytes: int = 256 * GIB
    """Uncompressed archive. The largest public layers (model weights) are tens of GiB."""
    content_bytes: int = 256 * GIB
    """Sum of all file sizes, holes included: a sparse file costs no archive bytes."""
    ratio: int = 1000
    """Uncompressed to compressed bytes. Real layers stay below 100; deflate ends at 1032."""
    ratio_free_bytes: int = 64 * MIB
    """The ratio is not looked at before this much came out: small layers may be all zeros."""
    entries: int = 10_000_000
    """Each takes an inode; the largest images seen have about one million."""
    directories: int = 1_000_000
    """Their times are set at the end, so each is remembered (about 300 bytes)."""
    depth: int = 256
    """Nested directories. Tools that walk the tree recurse this deep."""
    path_bytes: int = 4096
    """PATH_MAX: a longer name cannot be given to any system call."""
    link_bytes: int = 4095
    """Linux's limit for the target of a symbolic link."""
    extension_bytes: int = MIB
    """One PAX header or GNU long name, held in memory. Go's archive/tar has the same bound."""
    xattr_bytes: int = 64 * KIB
    """XATTR_SIZE_MAX of the kernel."""
    sparse_regions: int = 65_536
    """Regions of one sparse file, held in memory (a bomb of Go's archive/tar: CVE-2025-58183)."""
    window_log: int = 27
    """zstd's window is at most 2**27 bytes of memory, which is also zstd's own default bound."""
    implicit_directories: int = 4096
    """Parents that the archive left out and that are remembered, see `unpack`."""
