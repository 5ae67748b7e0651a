"""Small root file systems for containers, as tar archives: busybox and whatever a test adds."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Mapping

BUSYBOX = "/bin/busybox"  # Debian: apt install busybox-static
APPLETS = [
    "sh",
    "ash",
    "ls",
    "cat",
    "true",
    "false",
    "id",
    "env",
    "echo",
    "sleep",
    "mount",
    "ps",
    "yes",
    "head",
    "stty",
    "tty",
    "grep",
    "hostname",
    "touch",
    "mkdir",
    "wc",
    "kill",
    "pwd",
    "chmod",
    "chown",
    "rm",
    "ln",
    "dd",
    "readlink",
    "stat",
    "printf",
    "seq",
    "test",
    "sort",
    "mknod",
]

PASSWD = """root:x:0:0:root:/root:/bin/sh
alice:x:1000:1000::/home/alice:/bin/sh
1000:x:0:0:trap:/root:/bin/sh
"""
GROUP = """root:x:0:
alice:x:1000:
staff:x:50:alice
shadow:x:42:
"""


def is_static(path: str) -> bool:
    """A program that needs no loader, so that it runs alone in a root file system."""
    try:
        with open(path, "rb") as file:
            head = file.read(4096)
    except OSError:
        return False
    return head[:4] == b"\x7fELF" and b"ld-linux" not in head


def busybox_tree() -> dict[str, str | bytes | None]:
    """path → content; None is a directory, text beginning with `->` a symbolic link."""
    with open(BUSYBOX, "rb") as file:
        tree: dict[str, str | bytes | None] = {"bin/busybox": file.read()}
    tree |= {f"bin/{name}": "->busybox" for name in APPLETS}
    tree |= {"etc/passwd": PASSWD, "etc/group": GROUP, "tmp": None, "root": None}
    tree |= {"home/alice": None, "proc": None, "sys": None, "dev": None}
    return tree


def archive(
    tree: Mapping[str, str | bytes | None], owners: Mapping[str, tuple[int, int, int]] | None = None
) -> bytes:
    """The tree as an uncompressed tar; everything belongs to root and may be executed, but what has
    a uid, gid and mode in `owners`."""
    out = io.BytesIO()
    made: set[str] = set()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:

        def own(entry: tarfile.TarInfo) -> None:
            if owners and entry.name in owners:
                entry.uid, entry.gid, entry.mode = owners[entry.name]

        def directory(path: str) -> None:
            parent = os.path.dirname(path)
            if parent and parent not in tree:
                directory(parent)
            if path in made:
                return
            made.add(path)
            entry = tarfile.TarInfo(path)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if path == "tmp" else 0o755
            own(entry)
            tar.addfile(entry)

        for path, content in tree.items():
            if content is None:
                directory(path)
                continue
            if os.path.dirname(path):
                directory(os.path.dirname(path))
            entry = tarfile.TarInfo(path)
            entry.mode = 0o755
            own(entry)
            if isinstance(content, str) and content.startswith("->"):
                entry.type, entry.linkname = tarfile.SYMTYPE, content[2:]
                tar.addfile(entry)
                continue
            raw = content.encode() if isinstance(content, str) else content
            entry.size = len(raw)
            tar.addfile(entry, io.BytesIO(raw))
    return out.getvalue()
