"""An image as `docker image inspect` describes it."""

from __future__ import annotations

import json

from ocispec.distribution.reference import Reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from client.localimage import LocalImage


def image_document(image: LocalImage, default_registry: str) -> dict[str, Any]:
    """Docker's fields; names without the default registry, as docker shows its own."""
    config = image.config
    run = json.loads(config.raw).get("config") or {}
    manifest = image.manifest

    def short(name: str) -> str:
        return Reference.parse(name, default_registry=default_registry).familiar(default_registry)

    return {
        "Id": str(image.id),
        "RepoTags": [short(name) for name in image.names if "@" not in name],
        "RepoDigests": [short(name) for name in image.repo_digests],
        "Comment": config.history[-1].comment if config.history else "",
        "Created": config.created,
        "Author": config.author,
        "Config": {
            "User": config.user,
            "ExposedPorts": run.get("ExposedPorts"),
            "Env": list(config.env),
            "Cmd": None if config.cmd is None else list(config.cmd),
            "Entrypoint": None if config.entrypoint is None else list(config.entrypoint),
            "Volumes": run.get("Volumes"),
            "WorkingDir": config.working_dir,
            "Labels": dict(config.labels) or None,
            "StopSignal": config.stop_signal,
            "Shell": list(config.shell) or None,
            "OnBuild": list(config.on_build) or None,
            "Healthcheck": config.healthcheck and dict(config.healthcheck),
        },
        "Architecture": config.architecture,
        "Variant": config.variant,
        "Os": config.os,
        "Size": image.size,
        "RootFS": {"Type": "layers", "Layers": [str(d) for d in config.diff_ids]},
        "Metadata": {"LastTagTime": ""},
        "Descriptor": {
            "mediaType": image.target.media_type,
            "digest": str(image.target.digest),
            "size": image.target.size,
        },
        "Manifest": {
            "mediaType": manifest.media_type,
            "digest": str(image.descriptor.digest),
            "size": image.descriptor.size,
            "layers": [
                {"mediaType": d.media_type, "digest": str(d.digest), "size": d.size}
                for d in manifest.layers
            ],
        },
    }
