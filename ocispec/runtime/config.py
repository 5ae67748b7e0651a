"""The runtime-spec's config.json as frozen values: what a container is to be, before it runs.

Only what a Linux container needs is modelled. `parse_config` refuses what it cannot read but leaves
out members it does not know, as the spec asks; `Config.to_json` writes the spec's spelling, and the
two are inverse on everything modelled here.

Spec: runtime-spec config.md, config-linux.md.
"""

from __future__ import annotations

from ocispec.errors import InvalidDocument
from ocispec.value import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypeVar

    T = TypeVar("T")

SPEC_VERSION = "1.2.0"

NAMESPACE_TYPES = ("cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts")


@value
class User:
    """Who the process runs as, inside the container."""

    uid: int = 0
    gid: int = 0
    additional_gids: tuple[int, ...] = ()
    umask: int | None = None
    name: str = ""
    """`user[:group]` to be looked up in the container's own files when it starts; overrides ids."""


@value
class Capabilities:
    """Capability names (`CAP_CHOWN`) of the five sets."""

    bounding: tuple[str, ...] = ()
    effective: tuple[str, ...] = ()
    permitted: tuple[str, ...] = ()
    inheritable: tuple[str, ...] = ()
    ambient: tuple[str, ...] = ()


@value
class Rlimit:
    type: str  # RLIMIT_NOFILE ...
    soft: int
    hard: int


@value
class Process:
    """The program, and everything that is set for it last."""

    args: tuple[str, ...]
    cwd: str = "/"  # absolute
    env: tuple[str, ...] = ()  # NAME=value
    user: User = User()
    terminal: bool = False
    console_size: tuple[int, int] | None = None  # rows, columns
    capabilities: Capabilities | None = None  # None: as the caller has them
    rlimits: tuple[Rlimit, ...] = ()
    no_new_privileges: bool = False
    oom_score_adj: int | None = None


@value
class Root:
    path: str
    readonly: bool = False


@value
class Mount:
    """One mount, in order; `options` in mount(8)'s words."""

    destination: str
    type: str = ""
    source: str = ""
    options: tuple[str, ...] = ()


@value
class Namespace:
    """A namespace to make, or with `path` to join."""

    type: str
    path: str = ""


@value
class IdMapping:
    container_id: int
    host_id: int
    size: int


@value
class Device:
    """A node to make below /dev."""

    path: str
    type: str  # c, b, u, p
    major: int
    minor: int
    mode: int = 0o666
    uid: int = 0
    gid: int = 0


@value
class DeviceRule:
    """What the cgroup allows; -1 is any number."""

    allow: bool
    type: str = "a"
    major: int = -1
    minor: int = -1
    access: str = "rwm"


@value
class Linux:
    """config-linux.md, the part every container has."""

    namespaces: tuple[Namespace, ...] = ()
    uid_mappings: tuple[IdMapping, ...] = ()
    gid_mappings: tuple[IdMapping, ...] = ()
    devices: tuple[Device, ...] = ()
    device_rules: tuple[DeviceRule, ...] = ()
    cgroups_path: str = ""
    seccomp: Mapping[str, Any] | None = None
    """The spec's `linux.seccomp` object as it stands: only the filter's compiler reads it."""
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    sysctl: tuple[tuple[str, str], ...] = ()
    rootfs_propagation: str = ""

    def has_namespace(self, kind: str) -> bool:
        return any(namespace.type == kind for namespace in self.namespaces)


@value
class Config:
    """One container."""

    process: Process
    root: Root
    hostname: str = ""
    domainname: str = ""
    mounts: tuple[Mount, ...] = ()
    linux: Linux = Linux()
    annotations: tuple[tuple[str, str], ...] = ()
    oci_version: str = SPEC_VERSION

    def to_json(self) -> dict[str, Any]:
        """The object to write as config.json; members that say nothing are left out."""
        return _slim(
            {
                "ociVersion": self.oci_version,
                "process": _process_json(self.process),
                "root": {"path": self.root.path, "readonly": self.root.readonly},
                "hostname": self.hostname,
                "domainname": self.domainname,
                "mounts": [_mount_json(mount) for mount in self.mounts],
                "linux": _linux_json(self.linux),
                "annotations": dict(self.annotations),
            }
        )


def _slim(members: dict[str, Any]) -> dict[str, Any]:
    return {name: item for name, item in members.items() if item not in (None, "", [], {}, ())}


def _process_json(process: Process) -> dict[str, Any]:
    user = process.user
    caps = process.capabilities
    size = process.console_size
    return {
        **_slim(
            {
                "terminal": process.terminal or None,
                "consoleSize": {"height": size[0], "width": size[1]} if size else None,
                "args": list(process.args),
                "env": list(process.env),
                "noNewPrivileges": process.no_new_privileges or None,
                "oomScoreAdj": process.oom_score_adj,
                "rlimits": [
                    {"type": limit.type, "hard": limit.hard, "soft": limit.soft}
                    for limit in process.rlimits
                ],
            }
        ),
        "cwd": process.cwd,
        "user": {
            "uid": user.uid,
            "gid": user.gid,
            **_slim(
                {
                    "additionalGids": list(user.additional_gids),
                    "umask": user.umask,
                    "username": user.name,
                }
            ),
        },
        **(
            {
                "capabilities": {
                    "bounding": list(caps.bounding),
                    "effective": list(caps.effective),
                    "permitted": list(caps.permitted),
                    "inheritable": list(caps.inheritable),
                    "ambient": list(caps.ambient),
                }
            }
            if caps is not None
            else {}
        ),
    }


def _mount_json(mount: Mount) -> dict[str, Any]:
    return _slim(
        {
            "destination": mount.destination,
            "type": mount.type,
            "source": mount.source,
            "options": list(mount.options),
        }
    )


def _linux_json(linux: Linux) -> dict[str, Any]:
    def ids(mappings: tuple[IdMapping, ...]) -> list[dict[str, int]]:
        return [
            {"containerID": m.container_id, "hostID": m.host_id, "size": m.size} for m in mappings
        ]

    def rule(item: DeviceRule) -> dict[str, Any]:
        numbers = {"major": item.major, "minor": item.minor}
        return {
            "allow": item.allow,
            "type": item.type,
            **{name: number for name, number in numbers.items() if number >= 0},
            "access": item.access,
        }

    return _slim(
        {
            "namespaces": [_slim({"type": n.type, "path": n.path}) for n in linux.namespaces],
            "uidMappings": ids(linux.uid_mappings),
            "gidMappings": ids(linux.gid_mappings),
            "devices": [
                {
                    "path": d.path,
                    "type": d.type,
                    "major": d.major,
                    "minor": d.minor,
                    "fileMode": d.mode,
                    "uid": d.uid,
                    "gid": d.gid,
                }
                for d in linux.devices
            ],
            "resources": _slim({"devices": [rule(item) for item in linux.device_rules]}),
            "cgroupsPath": linux.cgroups_path,
            "seccomp": dict(linux.seccomp) if linux.seccomp else None,
            "maskedPaths": list(linux.masked_paths),
            "readonlyPaths": list(linux.readonly_paths),
            "sysctl": dict(linux.sysctl),
            "rootfsPropagation": linux.rootfs_propagation,
        }
    )


def parse_config(document: Mapping[str, Any]) -> Config:
    """Read a config.json that JSON has already decoded.

    Raises: InvalidDocument(problems) naming each member that is missing or of the wrong kind.
    """
    reader = _Reader(document, "")
    process = reader.object("process")
    root = reader.object("root")
    config = Config(
        oci_version=reader.text("ociVersion", required=True),
        process=_parse_process(process),
        root=Root(path=root.text("path", required=True), readonly=root.flag("readonly")),
        hostname=reader.text("hostname"),
        domainname=reader.text("domainname"),
        mounts=tuple(
            Mount(
                destination=item.text("destination", required=True),
                type=item.text("type"),
                source=item.text("source"),
                options=item.texts("options"),
            )
            for item in reader.objects("mounts")
        ),
        linux=_parse_linux(reader.object("linux")),
        annotations=reader.text_pairs("annotations"),
    )
    if not config.process.args:
        reader.problem("process.args", "must name a program")
    if not config.process.cwd.startswith("/"):
        reader.problem("process.cwd", "must be absolute")
    if not config.oci_version.startswith("1."):
        reader.problem("ociVersion", f"{config.oci_version!r} is not a version 1")
    if reader.problems:
        raise InvalidDocument("config.json is not valid", problems=tuple(reader.problems))
    return config


def _parse_process(reader: _Reader) -> Process:
    user = reader.object("user")
    size = reader.object("consoleSize")
    caps = reader.object("capabilities")
    return Process(
        args=reader.texts("args"),
        cwd=reader.text("cwd", required=True),
        env=reader.texts("env"),
        user=User(
            uid=user.number("uid"),
            gid=user.number("gid"),
            additional_gids=user.numbers("additionalGids"),
            umask=user.number("umask") if user.has("umask") else None,
            name=user.text("username"),
        ),
        terminal=reader.flag("terminal"),
        console_size=(
            (size.number("height"), size.number("width")) if reader.has("consoleSize") else None
        ),
        capabilities=(
            Capabilities(
                bounding=caps.texts("bounding"),
                effective=caps.texts("effective"),
                permitted=caps.texts("permitted"),
                inheritable=caps.texts("inheritable"),
                ambient=caps.texts("ambient"),
            )
            if reader.has("capabilities")
            else None
        ),
        rlimits=tuple(
            Rlimit(
                type=item.text("type", required=True),
                soft=item.number("soft"),
                hard=item.number("hard"),
            )
            for item in reader.objects("rlimits")
        ),
        no_new_privileges=reader.flag("noNewPrivileges"),
        oom_score_adj=reader.number("oomScoreAdj") if reader.has("oomScoreAdj") else None,
    )


def _parse_linux(reader: _Reader) -> Linux:
    def ids(name: str) -> tuple[IdMapping, ...]:
        return tuple(
            IdMapping(item.number("containerID"), item.number("hostID"), item.number("size"))
            for item in reader.objects(name)
        )

    namespaces = tuple(
        Namespace(type=item.text("type", required=True), path=item.text("path"))
        for item in reader.objects("namespaces")
    )
    for namespace in namespaces:
        if namespace.type not in NAMESPACE_TYPES:
            reader.problem("namespaces", f"unknown type {namespace.type!r}")
    return Linux(
        namespaces=namespaces,
        uid_mappings=ids("uidMappings"),
        gid_mappings=ids("gidMappings"),
        devices=tuple(
            Device(
                path=item.text("path", required=True),
                type=item.text("type", required=True),
                major=item.number("major"),
                minor=item.number("minor"),
                mode=item.number("fileMode") if item.has("fileMode") else 0o666,
                uid=item.number("uid"),
                gid=item.number("gid"),
            )
            for item in reader.objects("devices")
        ),
        device_rules=tuple(
            DeviceRule(
                allow=item.flag("allow"),
                type=item.text("type") or "a",
                major=item.number("major") if item.has("major") else -1,
                minor=item.number("minor") if item.has("minor") else -1,
                access=item.text("access") or "rwm",
            )
            for item in reader.object("resources").objects("devices")
        ),
        cgroups_path=reader.text("cgroupsPath"),
        seccomp=reader.mapping("seccomp") if reader.has("seccomp") else None,
        masked_paths=reader.texts("maskedPaths"),
        readonly_paths=reader.texts("readonlyPaths"),
        sysctl=reader.text_pairs("sysctl"),
        rootfs_propagation=reader.text("rootfsPropagation"),
    )


class _Reader:
    """Typed access to one JSON object; what is wrong is collected, so all of it is told at once."""

    def __init__(
        self, members: Mapping[str, Any], path: str, problems: list[str] | None = None
    ) -> None:
        self._members = members
        self._path = path
        self.problems: list[str] = [] if problems is None else problems

    def problem(self, name: str, what: str) -> None:
        self.problems.append(f"{self._path}{name}: {what}")

    def has(self, name: str) -> bool:
        return self._members.get(name) is not None

    def _typed(self, name: str, accepted: Callable[[Any], bool], wanted: str, empty: T) -> T:
        found = self._members.get(name)
        if found is None:
            return empty
        if not accepted(found):
            self.problem(name, f"must be {wanted}")
            return empty
        result: T = found
        return result

    def text(self, name: str, *, required: bool = False) -> str:
        if required and not self.has(name):
            self.problem(name, "is missing")
        return self._typed(name, _is_text, "a string without NUL", "")

    def flag(self, name: str) -> bool:
        return self._typed(name, lambda found: isinstance(found, bool), "true or false", False)

    def number(self, name: str) -> int:
        return self._typed(name, _is_number, "a whole number of 64 bits", 0)

    def mapping(self, name: str) -> Mapping[str, Any]:
        return self._typed(name, lambda found: isinstance(found, dict), "an object", {})

    def object(self, name: str) -> _Reader:
        return _Reader(self.mapping(name), f"{self._path}{name}.", self.problems)

    def _list(self, name: str, item: Callable[[Any], bool], wanted: str) -> list[Any]:
        return self._typed(
            name,
            lambda found: isinstance(found, list) and all(item(each) for each in found),
            f"a list of {wanted}",
            [],
        )

    def texts(self, name: str) -> tuple[str, ...]:
        return tuple(self._list(name, _is_text, "strings"))

    def numbers(self, name: str) -> tuple[int, ...]:
        return tuple(self._list(name, _is_number, "whole numbers"))

    def objects(self, name: str) -> list[_Reader]:
        found = self._list(name, lambda each: isinstance(each, dict), "objects")
        return [
            _Reader(each, f"{self._path}{name}[{i}].", self.problems)
            for i, each in enumerate(found)
        ]

    def text_pairs(self, name: str) -> tuple[tuple[str, str], ...]:
        members = self.mapping(name)
        if not all(isinstance(found, str) for found in members.values()):
            self.problem(name, "must map strings to strings")
            return ()
        return tuple(members.items())


def _is_text(found: Any) -> bool:
    return isinstance(found, str) and "\0" not in found


def _is_number(found: Any) -> bool:
    whole = isinstance(found, int) and not isinstance(found, bool)
    return whole and -(1 << 63) <= found < 1 << 64
