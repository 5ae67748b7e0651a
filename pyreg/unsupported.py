"""The flags of `docker run` that pyreg knows and does not have, each with a reason or another way.

Only read when a flag is unknown, so that its user is told more than "unknown flag".
"""

from __future__ import annotations

SHORT = {"a": "attach", "p": "publish", "P": "publish-all"}

_WINDOWS = "it is for containers of Windows"
_NETWORK = "containers are on --network none or host so far"
_PUBLISH = "there is no network to publish from yet; with --network host its ports are the host's"
_DNS = "the host's /etc/resolv.conf is used; mount your own with -v FILE:/etc/resolv.conf"
_HEALTH = "health checks are not run"
_CGROUP = "--memory, --memory-swap, --cpus, --cpu-shares and --pids-limit are the limits there are"
_NAMESPACE = "this namespace is always the container's own"
_DEVICE = "a container has the default devices only"
_LOG = "logs are json-file, three files of 10 MB"

RUN = {
    "annotation": "",
    "attach": "a container in the foreground is attached to; leave out --detach",
    "blkio-weight": _CGROUP,
    "blkio-weight-device": _CGROUP,
    "cgroup-parent": "",
    "cgroupns": _NAMESPACE,
    "cpu-count": _WINDOWS,
    "cpu-percent": _WINDOWS,
    "cpu-period": "use --cpus",
    "cpu-quota": "use --cpus",
    "cpu-rt-period": _CGROUP,
    "cpu-rt-runtime": _CGROUP,
    "cpuset-cpus": _CGROUP,
    "cpuset-mems": _CGROUP,
    "detach-keys": "a container in the foreground ends with its command; use --detach",
    "device": _DEVICE,
    "device-cgroup-rule": _DEVICE,
    "device-read-bps": _CGROUP,
    "device-read-iops": _CGROUP,
    "device-write-bps": _CGROUP,
    "device-write-iops": _CGROUP,
    "disable-content-trust": "every layer is checked against its digest in any case",
    "dns": _DNS,
    "dns-opt": _DNS,
    "dns-option": _DNS,
    "dns-search": _DNS,
    "domainname": "write the whole name as --hostname",
    "expose": _PUBLISH,
    "gpus": _DEVICE,
    "group-add": "write the group as --user USER:GROUP",
    "health-cmd": _HEALTH,
    "health-interval": _HEALTH,
    "health-retries": _HEALTH,
    "health-start-interval": _HEALTH,
    "health-start-period": _HEALTH,
    "health-timeout": _HEALTH,
    "init": "",
    "io-maxbandwidth": _WINDOWS,
    "io-maxiops": _WINDOWS,
    "ip": _NETWORK,
    "ip6": _NETWORK,
    "ipc": _NAMESPACE,
    "isolation": _WINDOWS,
    "kernel-memory": _CGROUP,
    "label-file": "write each line as --label",
    "link": _NETWORK,
    "link-local-ip": _NETWORK,
    "log-driver": _LOG,
    "log-opt": _LOG,
    "mac-address": _NETWORK,
    "memory-reservation": _CGROUP,
    "memory-swappiness": _CGROUP,
    "mount": "use --volume or --tmpfs",
    "net-alias": _NETWORK,
    "network-alias": _NETWORK,
    "no-healthcheck": "health checks are never run; leave it out",
    "oom-kill-disable": _CGROUP,
    "oom-score-adj": "",
    "pid": _NAMESPACE,
    "publish": _PUBLISH,
    "publish-all": _PUBLISH,
    "restart": "containers are not restarted",
    "runtime": "pyreg is its own runtime",
    "stop-timeout": "",
    "storage-opt": "",
    "sysctl": "",
    "use-api-socket": "there is no API socket",
    "userns": "as an ordinary user a container always has a user namespace, as root it never has",
    "uts": _NAMESPACE,
    "volume-driver": "volumes are directories of the host",
    "volumes-from": "write each volume as --volume",
}


def run_flag(name: str) -> str:
    """The sentence about a flag of `docker run`, by its long name or its letter; "" if unknown."""
    name = SHORT.get(name, name)
    if name not in RUN:
        return ""
    reason = RUN[name]
    return f"--{name} is not supported" + (f": {reason}" if reason else "")
