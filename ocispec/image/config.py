"""Image configs: what an image is made of, and how its program is started."""

from __future__ import annotations

from ocispec.digest import Digest
from ocispec.errors import InvalidDigest
from ocispec.jsondoc import Fields, canonical, parse_object
from ocispec.value import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from ocispec.image.platform import Platform

# Real configs have a few kilobytes; BuildKit's inline cache makes some of several hundred.
MAX_CONFIG_BYTES = 8 * 1024 * 1024


@value
class History:
    """One step of how an image came to be; every field but the last may be "".

    created: RFC 3339. created_by: the command. author, comment: free text.
    empty_layer: whether the step made no layer.
    """

    created: str = ""
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False

    def to_json(self) -> dict[str, Any]:
        texts = {
            "created": self.created,
            "created_by": self.created_by,
            "author": self.author,
            "comment": self.comment,
        }
        document: dict[str, Any] = {name: text for name, text in texts.items() if text}
        if self.empty_layer:
            document["empty_layer"] = True
        return document


@value
class ImageConfig:
    """The configuration of an image. Spec: image-spec config.md.

    raw: the exact bytes, unknown fields included; their digest is the image id.
    architecture, os, variant: what it runs on, in Go's words; "" if not given.
    created: RFC 3339, or "". author: free text.
    env: `NAME=value` entries, as they are: neither unique nor certain to contain a `=`.
    cmd, entrypoint: None if not given, which is not the same as empty.
    working_dir: "" means `/`. user: `name`, `uid`, `name:group`, … or "".
    labels: free text by key; treat as immutable.
    exposed_ports: such as `80/tcp`. volumes: paths.
    stop_signal: a name or number, or "". shell, on_build: used by builders only.
    healthcheck: Docker's object as parsed, or None; treat as immutable.
    diff_ids: digests of the uncompressed layers, from the base up.
    history: from the base up; may be shorter or longer than the layers.

    The constructor does not check; `parse` does. Nothing here has been checked for being safe to
    use: paths, users and variables are what a stranger wrote.
    """

    raw: bytes
    architecture: str = ""
    os: str = ""
    variant: str = ""
    created: str = ""
    author: str = ""
    env: tuple[str, ...] = ()
    cmd: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    working_dir: str = ""
    user: str = ""
    labels: Mapping[str, str] = {}
    exposed_ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    stop_signal: str = ""
    shell: tuple[str, ...] = ()
    on_build: tuple[str, ...] = ()
    healthcheck: Mapping[str, Any] | None = None
    diff_ids: tuple[Digest, ...] = ()
    history: tuple[History, ...] = ()

    @classmethod
    def parse(cls, raw: bytes, *, limit: int = MAX_CONFIG_BYTES) -> ImageConfig:
        """Read a config. Absent and null members read as empty; a wrong type is an error.

        Raises: InvalidDocument
        """
        fields = Fields(parse_object(raw, limit=limit, what="image config"))
        run = fields.child("config") or Fields({}, "config", fields.problems)
        healthcheck = run.child("Healthcheck")
        config = cls(
            raw=bytes(raw),
            architecture=fields.text("architecture"),
            os=fields.text("os"),
            variant=fields.text("variant"),
            created=fields.text("created"),
            author=fields.text("author"),
            env=run.texts("Env"),
            cmd=run.optional_texts("Cmd"),
            entrypoint=run.optional_texts("Entrypoint"),
            working_dir=run.text("WorkingDir"),
            user=run.text("User"),
            labels=run.text_map("Labels"),
            exposed_ports=run.keys("ExposedPorts"),
            volumes=run.keys("Volumes"),
            stop_signal=run.text("StopSignal"),
            shell=run.texts("Shell"),
            on_build=run.texts("OnBuild"),
            healthcheck=None if healthcheck is None else healthcheck.members,
            diff_ids=_read_diff_ids(fields),
            history=_read_history(fields),
        )
        fields.check("image config")
        return config

    @property
    def digest(self) -> Digest:
        """The SHA-256 digest of `raw`, computed at each call; Docker's image id."""
        return Digest.of(self.raw)

    def __hash__(self) -> int:
        return hash(self.raw)

    def __repr__(self) -> str:
        return f"ImageConfig({self.os}/{self.architecture}, {len(self.diff_ids)} layers)"


def new_config(
    platform: Platform,
    *,
    diff_ids: Iterable[Digest] = (),
    history: Iterable[History] = (),
    created: str = "",
    author: str = "",
    env: Iterable[str] = (),
    cmd: Iterable[str] | None = None,
    entrypoint: Iterable[str] | None = None,
    working_dir: str = "",
    user: str = "",
    labels: Mapping[str, str] = {},
    exposed_ports: Iterable[str] = (),
    volumes: Iterable[str] = (),
    stop_signal: str = "",
    shell: Iterable[str] = (),
    on_build: Iterable[str] = (),
    healthcheck: Mapping[str, Any] | None = None,
) -> ImageConfig:
    """Make a config; its bytes are written here, once. Empty members are left out."""
    run: dict[str, Any] = {
        "User": user,
        "ExposedPorts": {port: {} for port in exposed_ports},
        "Env": list(env),
        "Entrypoint": None if entrypoint is None else list(entrypoint),
        "Cmd": None if cmd is None else list(cmd),
        "Healthcheck": None if healthcheck is None else dict(healthcheck),
        "Volumes": {path: {} for path in volumes},
        "WorkingDir": working_dir,
        "OnBuild": list(on_build),
        "Labels": dict(labels),
        "StopSignal": stop_signal,
        "Shell": list(shell),
    }
    told_when_empty = {"Entrypoint", "Cmd", "Healthcheck"}
    run = {
        name: item
        for name, item in run.items()
        if item or (item is not None and name in told_when_empty)
    }
    document: dict[str, Any] = {
        "created": created,
        "author": author,
        "architecture": platform.architecture,
        "os": platform.os,
        "os.version": platform.os_version,
        "os.features": list(platform.os_features),
        "variant": platform.variant,
    }
    document = {name: item for name, item in document.items() if item}
    document["config"] = run
    document["rootfs"] = {"type": "layers", "diff_ids": [str(diff_id) for diff_id in diff_ids]}
    steps = [step.to_json() for step in history]
    if steps:
        document["history"] = steps
    return ImageConfig.parse(canonical(document))


def _read_diff_ids(fields: Fields) -> tuple[Digest, ...]:
    rootfs = fields.child("rootfs")
    if rootfs is None:
        return ()
    found = []
    for i, text in enumerate(rootfs.texts("diff_ids")):
        try:
            found.append(Digest.parse(text))
        except InvalidDigest as error:
            rootfs.problem(f"diff_ids[{i}]", f"is wrong: {error}")
    return tuple(found)


def _read_history(fields: Fields) -> tuple[History, ...]:
    return tuple(
        History(
            created=step.text("created"),
            created_by=step.text("created_by"),
            author=step.text("author"),
            comment=step.text("comment"),
            empty_layer=step.boolean("empty_layer"),
        )
        for step in fields.children("history")
    )
