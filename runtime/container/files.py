"""The three files the engine writes for a container: hostname, hosts and resolv.conf.

Pure but for `write_files`: they are the container's own from then on, and it may change them.
"""

from __future__ import annotations

import os

from runtime.container.spec import Files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.container.options import RunOptions
    from runtime.paths import Paths

HOSTS = """127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""
READ_LIMIT = 64 << 10


def hosts_text(options: RunOptions, host_text: str) -> str:
    """/etc/hosts: the host's own with the host's network, else Docker's; then --add-host."""
    text = host_text if options.network == "host" and host_text else HOSTS
    if not text.endswith("\n"):
        text += "\n"
    return text + "".join(f"{address}\t{name}\n" for name, address in options.extra_hosts)


def write_files(paths: Paths, container_id: str, options: RunOptions, hostname: str) -> Files:
    """Write them into the container's directory, and the mount point of its root."""
    files = Files(
        rootfs=paths.container_rootfs(container_id),
        resolv_conf=paths.container_file(container_id, "resolv.conf"),
        hostname=paths.container_file(container_id, "hostname"),
        hosts=paths.container_file(container_id, "hosts"),
    )
    os.mkdir(files.rootfs, 0o700)
    _write(files.hostname, hostname + "\n")
    _write(files.hosts, hosts_text(options, _read("/etc/hosts")))
    _write(files.resolv_conf, _read("/etc/resolv.conf"))
    return files


def _write(path: str, text: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    fd = os.open(path, flags, 0o644)
    try:
        os.fchmod(fd, 0o644)  # whatever the umask: the container's users read it
        os.write(fd, text.encode(errors="surrogateescape"))
    finally:
        os.close(fd)


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.read(READ_LIMIT).decode(errors="surrogateescape")
    except OSError:
        return ""
