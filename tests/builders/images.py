"""Root file systems and images for tests, made of real files."""

from __future__ import annotations

import io
import tarfile

import pytest

from tests.builders.tools import find_tool


def small_rootfs(*, marker: str = "hello") -> bytes:
    """A tar of a few files; with busybox (when installed) as /bin/sh, echo, true and cat."""
    files: list[tuple[str, bytes, int]] = [
        ("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/:/bin/sh\n", 0o644),
        ("etc/group", b"root:x:0:\ndaemon:x:1:\n", 0o644),
        ("etc/marker", marker.encode(), 0o644),
    ]
    busybox = find_tool("busybox")
    if busybox:
        with open(busybox, "rb") as file:
            files.append(("bin/busybox", file.read(), 0o755))
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in ("bin", "etc", "root", "tmp", "proc", "sys", "dev"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(entry)
        for name, content, mode in files:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            tar.addfile(entry, io.BytesIO(content))
        if busybox:
            for applet in ("sh", "echo", "true", "cat", "ls", "id", "env", "sleep"):
                entry = tarfile.TarInfo(f"bin/{applet}")
                entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(entry)
    return out.getvalue()


def require_busybox() -> None:
    if not find_tool("busybox"):
        pytest.skip("busybox is not installed (apt-get install busybox-static)")
