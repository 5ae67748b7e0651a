"""Doing something as the root of a user namespace: what an ordinary user's containers wrote belongs
to ids that only exist there, so only there it can be deleted."""

from __future__ import annotations

import os

from runtime.errors import EngineError
from runtime.linux import flags as f
from runtime.linux import idmap, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.linux.idmap import IdMaps


def run_as_namespace_root(maps: IdMaps, work: Callable[[], None]) -> None:
    """Run `work` in a forked process with all capabilities over the ids of `maps`, and wait.

    Raises: EngineError if it fails, with what it met.
    """
    go_read, go_write = os.pipe()
    report_read, report_write = os.pipe()
    pid, _ = syscalls.clone3(f.CLONE_NEWUSER)
    if pid == 0:
        status = 1
        try:
            os.close(go_write)
            if os.read(go_read, 1):
                os.setresgid(0, 0, 0)
                os.setresuid(0, 0, 0)
                work()
                status = 0
        except Exception as error:
            os.write(report_write, str(error).encode(errors="replace")[:4000])
        finally:
            os._exit(status)
    os.close(go_read)
    os.close(report_write)
    try:
        idmap.write(pid, maps)
        os.write(go_write, b"g")
    finally:
        os.close(go_write)
        message = b""
        while chunk := os.read(report_read, 4096):
            message += chunk
        os.close(report_read)
        status = os.waitpid(pid, 0)[1]
    if status:
        raise EngineError(f"in the user namespace: {message.decode(errors='replace')}")
