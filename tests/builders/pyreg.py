"""The pyreg command on a store of its own, as root or as an ordinary user."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

from tests.builders.rootfs import archive, busybox_tree

PROJECT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Pyreg:
    """`uid` 0 is root; any other runs the command as that user, with a HOME in the store."""

    def __init__(
        self, root: str, *, uid: int = 0, python: str = sys.executable, project: str = PROJECT
    ) -> None:
        self.root = root
        self.project = project
        self._uid = uid
        self._python = python
        os.makedirs(root, exist_ok=True)
        if uid:
            os.chown(root, uid, uid)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": self.root,
            "PYREG_ROOT": self.root,
            "PYTHONPATH": self.project,
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def command(self, *words: str) -> list[str]:
        return [self._python, "-m", "pyreg", *words]

    def __call__(
        self,
        *words: str,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        timeout_s: float = 60,
    ) -> subprocess.CompletedProcess[str]:
        """Run to the end; output as text."""
        done = subprocess.run(
            self.command(*words),
            input=stdin,
            capture_output=True,
            env=self.environment | dict(env or {}),
            timeout=timeout_s,
            check=False,
            cwd="/",
            **self._identity,
        )
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
        )

    @property
    def _identity(self) -> dict[str, int | list[int]]:
        return {"user": self._uid, "group": self._uid, "extra_groups": []} if self._uid else {}

    def begin(self, *words: str, **options: object) -> subprocess.Popen[bytes]:
        """Start without waiting."""
        return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
            self.command(*words), env=self.environment, cwd="/", **self._identity, **options
        )

    def load(
        self,
        name: str,
        tree: Mapping[str, str | bytes | None],
        *changes: str,
        owners: Mapping[str, tuple[int, int, int]] | None = None,
    ) -> None:
        """Make an image of a tree; `changes` are Dockerfile instructions, `owners` as `archive`."""
        words = [word for change in changes for word in ("--change", change)]
        done = self("import", *words, "-", name, stdin=archive(tree, owners))
        assert done.returncode == 0, done.stderr

    def load_busybox(self, name: str = "bb") -> None:
        self.load(name, busybox_tree(), 'CMD ["sh"]')

    def leftovers(self) -> list[str]:
        """What a container that is gone should have taken with it."""
        found = []
        for place in ("containers", "names", "snapshots", "run/containers", "volumes"):
            directory = os.path.join(self.root, place)
            if os.path.isdir(directory):
                found += [f"{place}/{name}" for name in os.listdir(directory)]
        with open("/proc/mounts", encoding="utf-8") as file:
            found += [line.strip() for line in file if self.root in line]
        return found


def lines(done: subprocess.CompletedProcess[str]) -> Sequence[str]:
    """The output lines of a command that succeeded."""
    assert done.returncode == 0, done.stderr
    found: Sequence[str] = done.stdout.splitlines()
    return found
