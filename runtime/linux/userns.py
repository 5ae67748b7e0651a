"""Work done as the root of a user namespace: files of ids that exist only there, an image's other
users and what containers wrote, can only there be made and removed."""

from __future__ import annotations

import os

from runtime.errors import EngineError
from runtime.linux import flags as f
from runtime.linux import idmap, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.linux.idmap import IdMaps


def fork_as_root(maps: IdMaps) -> int:
    """`os.fork`, whose child is the root of a new user namespace with the ids of `maps`.

    Gives the child's pid, and 0 in the child. Raises: MappingFailed; there is no child then.
    """
    go_read, go_write = os.pipe()
    pid, _ = syscalls.clone3(f.CLONE_NEWUSER)
    if pid == 0:
        try:
            os.close(go_write)
            if not os.read(go_read, 1):
                os._exit(1)
            os.close(go_read)
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
        except BaseException:
            os._exit(1)  # nobody may go on as somebody else
        return 0
    os.close(go_read)
    try:
        idmap.write(pid, maps)
        os.write(go_write, b"g")
    except BaseException:
        os.close(go_write)
        os.waitpid(pid, 0)
        raise
    os.close(go_write)
    return pid


def run_as_root(maps: IdMaps, work: Callable[[], object]) -> None:
    """Run `work` in a forked process with all capabilities over the ids of `maps`, and wait.

    Raises: EngineError if it fails, with what it met.
    """
    report_read, report_write = os.pipe()
    pid = fork_as_root(maps)
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        except Exception as error:
            os.write(report_write, str(error).encode(errors="replace")[:4000])
        finally:
            os._exit(status)
    os.close(report_write)
    message = b""
    while chunk := os.read(report_read, 4096):
        message += chunk
    os.close(report_read)
    status = os.waitpid(pid, 0)[1]
    if status:
        raise EngineError(f"in the user namespace: {message.decode(errors='replace')}")


def as_owner(work: Callable[[], object]) -> None:
    """Run `work` with every right over what this user's containers and images have on disk.

    For an ordinary user that is in a process of its own. Raises: as `work`; EngineError.
    """
    maps = idmap.of_caller()
    if maps is None:
        work()
    else:
        run_as_root(maps, work)
