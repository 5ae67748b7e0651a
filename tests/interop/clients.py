"""Other people's clients behind one small interface: what each calls log in, push and pull."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.builders.servers import Server

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def run(words: Sequence[str], *, stdin: bytes = b"", check: bool = True) -> str:
    done = subprocess.run(words, input=stdin, capture_output=True, timeout=300)
    text = done.stdout.decode() + done.stderr.decode()
    if check and done.returncode:
        raise AssertionError(f"{' '.join(words)}: {done.returncode}\n{text}")
    return text if check else f"{done.returncode} {text}"


class Docker:
    """docker against an engine of our own."""

    name = "docker"

    def __init__(self, client: list[str]) -> None:
        self.client = client

    def login(self, registry: Server, password: str, *, name: str = "", check: bool = True) -> str:
        words = [*self.client, "login", "-u", name or registry.username, "--password-stdin"]
        return run([*words, registry.host], stdin=password.encode(), check=check)

    def logout(self, registry: Server) -> str:
        return run([*self.client, "logout", registry.host])

    def make(self, rootfs: Path, reference: str) -> None:
        """An image in the client's own store."""
        run([*self.client, "import", str(rootfs), reference])

    def try_push(self, reference: str) -> str:
        """Status and output."""
        return run([*self.client, "push", reference], check=False)

    def try_pull(self, reference: str) -> str:
        return run([*self.client, "pull", reference], check=False)

    def push_new(self, rootfs: Path, reference: str) -> str:
        """Make an image of a root file system and push it; the manifest digest."""
        run([*self.client, "import", str(rootfs), reference])
        return self._pushed(run([*self.client, "push", reference]))

    def pull(self, reference: str) -> str:
        """Remove, pull again; the manifest digest."""
        run([*self.client, "rmi", "-f", reference], check=False)
        found = DIGEST.search(run([*self.client, "pull", reference]))
        assert found
        return found[0]

    def push_again(self, reference: str) -> str:
        return self._pushed(run([*self.client, "push", reference]))

    @staticmethod
    def _pushed(output: str) -> str:
        found = re.search(r"digest: (sha256:[0-9a-f]{64})", output)
        assert found, output
        return found[1]


class Podman:
    """podman with storage of its own."""

    name = "podman"
    import_words = ("import",)

    def __init__(self, program: str, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.auth = str(root / "auth.json")
        self.digest_file = root / "digest"
        self.client = [
            program,
            "--root", str(root / "storage"),
            "--runroot", str(root / "run"),
            "--storage-driver", "vfs",
        ]  # fmt: skip
        self.tls = ["--tls-verify=false", "--authfile", self.auth]

    def login(self, registry: Server, password: str, *, name: str = "", check: bool = True) -> str:
        words = [*self.client, "login", *self.tls, "-u", name or registry.username]
        words += ["--password-stdin", registry.host]
        return run(words, stdin=password.encode(), check=check)

    def logout(self, registry: Server) -> str:
        return run([*self.client, "logout", "--authfile", self.auth, registry.host])

    def make(self, rootfs: Path, reference: str) -> None:
        run([*self.client, "import", str(rootfs), reference])

    def try_push(self, reference: str) -> str:
        return run([*self.client, "push", *self.tls, reference], check=False)

    def try_pull(self, reference: str) -> str:
        return run([*self.client, "pull", *self.tls, reference], check=False)

    def push_new(self, rootfs: Path, reference: str) -> str:
        run([*self.client, "import", str(rootfs), reference])
        return self.push_again(reference)

    def push_again(self, reference: str) -> str:
        run([*self.client, "push", *self.tls, "--digestfile", str(self.digest_file), reference])
        return self.digest_file.read_text().strip()

    def pull(self, reference: str) -> str:
        run([*self.client, "rmi", "-f", reference], check=False)
        run([*self.client, "pull", *self.tls, reference])
        return run([*self.client, "inspect", "--format", "{{.Digest}}", reference]).strip()


class Buildah(Podman):
    """buildah: the same storage, an image from a working container."""

    name = "buildah"

    def push_new(self, rootfs: Path, reference: str) -> str:
        container = run([*self.client, "from", "scratch"]).strip()
        run([*self.client, "add", container, str(rootfs), "/"])
        run([*self.client, "commit", container, reference])
        return self.push_again(reference)

    def pull(self, reference: str) -> str:
        run([*self.client, "rmi", "-f", reference], check=False)
        run([*self.client, "pull", *self.tls, reference])
        found = run([*self.client, "inspect", "--type", "image", "--format", "{{.FromImageDigest}}",
                     reference])  # fmt: skip
        return found.strip()


class Skopeo:
    """skopeo: copies between a directory and the registry, bytes untouched."""

    name = "skopeo"

    def __init__(self, program: str, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.program = program
        self.auth = str(root / "auth.json")
        self.root = root
        self.digest_file = root / "digest"

    def login(self, registry: Server, password: str, *, name: str = "", check: bool = True) -> str:
        words = [self.program, "login", "--tls-verify=false", "--authfile", self.auth]
        words += ["-u", name or registry.username, "--password-stdin", registry.host]
        return run(words, stdin=password.encode(), check=check)

    def logout(self, registry: Server) -> str:
        return run([self.program, "logout", "--authfile", self.auth, registry.host])

    def make(self, rootfs: Path, reference: str) -> None:
        kept = self._kept(reference)
        shutil.rmtree(kept.partition(":")[2], ignore_errors=True)  # a layout without a name has one
        run([self.program, "copy", "-q", f"tarball:{rootfs}", kept])

    def try_push(self, reference: str) -> str:
        return self._try(self._kept(reference), f"docker://{reference}")

    def try_pull(self, reference: str) -> str:
        return self._try(f"docker://{reference}", f"oci:{self.root / 'pulled'}:x")

    def push_new(self, rootfs: Path, reference: str) -> str:
        """A tarball image made by skopeo itself (transport `tarball:`)."""
        return self._copy(f"tarball:{rootfs}", f"docker://{reference}")

    def push_again(self, reference: str) -> str:
        return self._copy(self._kept(reference), f"docker://{reference}")

    def pull(self, reference: str) -> str:
        return self._copy(f"docker://{reference}", self._kept(reference))

    def _kept(self, reference: str) -> str:
        """A layout of its own for every reference."""
        return f"oci:{self.root / reference.replace('/', '_').replace(':', '_')}"

    def _copy(self, source: str, target: str) -> str:
        run(self._words(source, target))
        return self.digest_file.read_text().strip()

    def _try(self, source: str, target: str) -> str:
        return run(self._words(source, target), check=False)

    def _words(self, source: str, target: str) -> list[str]:
        words = [self.program, "copy", "-q", "--authfile", self.auth]
        words += ["--digestfile", str(self.digest_file)]
        for side, url in (("src", source), ("dest", target)):
            if url.startswith("docker:"):
                words.append(f"--{side}-tls-verify=false")
        return [*words, source, target]
