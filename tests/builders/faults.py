"""A disk that fails on command, for one process: see faults.c."""

from __future__ import annotations

import errno
import mmap
import os
import struct
import subprocess
from pathlib import Path

from tests.builders.tools import require_tool

_CONTROL = struct.Struct("16siiii")
CALLS = ("open", "mkdir", "write", "fdatasync", "fsync", "rename")
ERRORS = {"EIO": errno.EIO, "ENOSPC": errno.ENOSPC}


class Faults:
    """Arms and disarms; `environment` is for the process that shall fail."""

    def __init__(self, directory: Path, root: Path) -> None:
        library = directory / "faults.so"
        source = Path(__file__).with_name("faults.c")
        compiler = [require_tool("gcc"), "-shared", "-fPIC", "-O1", "-o", str(library)]
        subprocess.run([*compiler, str(source), "-ldl"], check=True)
        control = directory / "faults"
        control.write_bytes(bytes(_CONTROL.size))
        with open(control, "r+b") as file:
            self._shared = mmap.mmap(file.fileno(), _CONTROL.size)
        self.environment = {
            "LD_PRELOAD": str(library),
            "PYREG_FAULTS": str(control),
            "PYREG_FAULTS_ROOT": os.path.realpath(root),
        }

    def arm(self, call: str, error: int, *, skip: int = 0, times: int = 1) -> None:
        """After `skip` more of them, the next `times` calls fail with `error` (an errno)."""
        self._shared[:] = _CONTROL.pack(call.encode(), skip, times, error, 0)

    def disarm(self) -> int:
        """How many calls have failed."""
        hits: int = _CONTROL.unpack(self._shared[:])[4]
        self._shared[:] = bytes(_CONTROL.size)
        return hits

    def close(self) -> None:
        self._shared.close()
