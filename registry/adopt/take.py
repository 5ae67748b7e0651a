"""One adoption from settings to summary: opens the registry of this machine, running or not."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from registry.adopt.adoption import Adoption, Summary
from registry.adopt.tree import NotATree, Tree
from registry.app import open_database
from registry.first_start import make_directory
from registry.settings import Settings
from registry.storage.disk import DiskStorage


def adopt(
    directory: Path,
    settings: Settings,
    *,
    is_dry: bool = False,
    verify: bool = True,
    jobs: int = 0,
    progress: Callable[[Summary], None] = lambda summary: None,
) -> Summary:
    """Blocks. Raises: NotATree if nothing there can be adopted; RegistryError."""
    if settings.storage != "disk":
        raise NotATree(
            "only a registry that keeps its blobs on disk can adopt a tree: files are linked",
            hint="copy the images instead: pull from the old registry and push to this one",
        )
    with Tree(directory) as tree:
        make_directory(settings)
        if tree.device != os.stat(settings.data).st_dev:
            raise NotATree(
                f"{tree.path} and {settings.data} are on different file systems, and files are"
                " linked, not copied",
                hint="name a directory on the same file system with --root, or move the tree",
            )
        storage = DiskStorage(str(settings.data))
        metadata = open_database(settings)
        try:
            adoption = Adoption(
                tree,
                metadata,
                storage,
                max_manifest_bytes=settings.max_manifest_bytes,
                is_dry=is_dry,
                verify=verify,
                jobs=jobs or min(8, os.cpu_count() or 2),
                progress=progress,
            )
            return asyncio.run(adoption.run())
        finally:
            metadata.close()
            storage.close()
