"""A machine with pyreg: a store, a home, and the command line as a person or a script uses it."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tests.builders.rootfs import archive, busybox_tree
from tests.builders.servers import PASSWORD, USER, pyreg_command, pyreg_environment

# What no message to a person may hold, whatever went wrong.
UNCLEAR = re.compile(r"Traceback|internal error|Exception ignored|File \".*\", line \d+|\x1b")
NOTHING: Mapping[str, str | bytes | None] = MappingProxyType({})
CGROUPS = "/sys/fs/cgroup"


class Done:
    """A finished command: its words, status and output as text."""

    def __init__(self, words: tuple[str, ...], status: int, out: bytes, err: bytes) -> None:
        self.words = words
        self.status = status
        self.out = out.decode()
        self.err = err.decode()
        found = UNCLEAR.search(self.err)
        assert found is None, f"pyreg {' '.join(words)}:\n{self.err}"

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def error(self) -> str:
        """The one line that says what went wrong."""
        found = [line for line in self.err.splitlines() if line.startswith("pyreg: ")]
        assert len(found) == 1, f"one clear line expected of {self.words}:\n{self.err}"
        return found[0].removeprefix("pyreg: ")

    @property
    def hint(self) -> str:
        """What stands below the error."""
        return f"\n{self.err}".partition("\npyreg: ")[2].partition("\n")[2].strip()


class Machine:
    """`registry` is where names without a host go."""

    def __init__(
        self,
        directory: Path,
        registry: str,
        *,
        root: Path | None = None,
        prefix: tuple[str, ...] = (),
    ) -> None:
        self.home = directory
        self.root = root or directory / "data"
        self.registry = registry
        self._prefix = prefix
        directory.mkdir(parents=True, exist_ok=True)

    def command(self, *words: str) -> list[str]:
        return [*self._prefix, *pyreg_command(), "--root", str(self.root), *words]

    @property
    def environment(self) -> dict[str, str]:
        return pyreg_environment(HOME=str(self.home), PYREG_DEFAULT_REGISTRY=self.registry)

    def __call__(
        self,
        *words: str,
        given: bytes = b"",
        status: int | None = 0,
        env: Mapping[str, str] | None = None,
        timeout_s: float = 90,
    ) -> Done:
        """Run to the end. `status` is what is expected; None takes any."""
        done = subprocess.run(
            self.command(*words),
            input=given,
            capture_output=True,
            timeout=timeout_s,
            env={**self.environment, **(env or {})},
        )
        finished = Done(words, done.returncode, done.stdout, done.stderr)
        if status is not None:
            assert done.returncode == status, f"{words}: {done.returncode}\n{finished.err}"
        return finished

    def begin(self, *words: str) -> Running:
        """Start without waiting."""
        return Running(self, words)

    def login(self, user: str = USER, password: str = PASSWORD) -> None:
        words = ("login", "-u", user, "--password-stdin", self.registry)
        assert self(*words, given=password.encode()).out == "Login Succeeded\n"

    def load(
        self, name: str, *changes: str, files: Mapping[str, str | bytes | None] = NOTHING
    ) -> str:
        """Import busybox and these files under a name; the image's id."""
        tree = {**busybox_tree(), **files}
        words = [word for change in changes for word in ("-c", change)]
        return self("import", *words, "-", name, given=archive(tree)).out.strip()

    def names(self) -> list[str]:
        """`repository:tag` of every image that is visible."""
        return sorted(self("images", "--format", "{{.Repository}}:{{.Tag}}").lines)

    def inspect(self, name: str) -> Any:
        return json.loads(self("inspect", name).out)[0]

    # -- what must not be left -------------------------------------------------------------------

    def unpacked(self) -> list[str]:
        """The layers that could be mounted."""
        return sorted(_names(self.root / "layers"))

    def half_unpacked(self) -> list[str]:
        return [name for name in self.unpacked() if ".tmp-" in name]

    def container_ids(self) -> set[str]:
        """Of everything that has been begun, visible or not."""
        places = ("containers", "run/containers", "snapshots")
        return {name[:64] for place in places for name in _names(self.root / place)}

    def leftovers(self, ids: set[str]) -> list[str]:
        """What is left of containers that are gone, and processes and mounts of this store."""
        found = [
            f"{place}/{name}"
            for place in ("containers", "names", "snapshots", "run/containers")
            for name in _names(self.root / place)
        ]
        with open("/proc/self/mounts", encoding="utf-8") as file:
            found += [
                line.strip() for line in file if f"{self.root}/" in line and "/snapshots/" in line
            ]
        for directory, folders, _ in os.walk(CGROUPS):
            if directory.count("/") > CGROUPS.count("/") + 2:
                folders.clear()
            found += [f"{directory}/{name}" for name in folders if name[:64] in ids]
        return found + self.processes()

    def processes(self) -> list[str]:
        """Command lines that name this store: ours, and those they forked."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if os.fsencode(self.root) in words and state not in "ZX":
                found.append(f"{pid} {b' '.join(words).decode(errors='replace')}")
        return found


class Running:
    """A command on its way."""

    def __init__(self, machine: Machine, words: tuple[str, ...]) -> None:
        self._words = words
        self.process = subprocess.Popen(
            machine.command(*words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=machine.environment,
        )

    def kill(self) -> None:
        """SIGKILL to this process alone, as the kernel's out-of-memory killer does."""
        self.process.kill()

    def end(self, timeout_s: float = 90) -> Done:
        """Wait for it; any status."""
        out, err = self.process.communicate(timeout=timeout_s)
        return Done(self._words, self.process.returncode, out, err)


def _names(directory: Path) -> list[str]:
    return os.listdir(directory) if directory.is_dir() else []
