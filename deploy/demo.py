"""`make demo`: pyreg doing its main job on a real image, step by step.

A Debian root file system with wget becomes an image, is pushed to a registry of our own with a
login, removed, pulled again and run in a container. Everything lives under build/demo; the
registry listens on a free loopback port and is stopped at the end.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
WORK = CHECKOUT / "build" / "demo"
ROOTFS = WORK / "debian-wget.tar"
SUITE = "bookworm"
IMAGE = "omrisiri/wget"
PYREG = Path(sys.executable).with_name("pyreg")


class Demo:
    """The steps, their times, and the words to repeat each of them by hand."""

    def __init__(self) -> None:
        self.port = free_port()
        self.host = f"localhost:{self.port}"
        self.colour = sys.stdout.isatty()
        self.environment = {
            **os.environ,
            "PYREG_ROOT": str(WORK / "data"),
            "PYREG_DEFAULT_REGISTRY": self.host,
            "DOCKER_CONFIG": str(WORK / "docker"),  # the login must not touch the user's own
        }
        self.times: list[tuple[str, float]] = []
        self.server: subprocess.Popen[str] | None = None

    def say(self, text: str) -> None:
        print(f"\033[1m{text}\033[0m" if self.colour else text, flush=True)

    def step(self, title: str) -> Step:
        return Step(self, title)

    def pyreg(self, *words: str, secret: str = "", capture: bool = False) -> str:
        """Run one pyreg command, shown as a person would type it; its output as text if wanted."""
        print(f"   $ pyreg {' '.join(words)}", flush=True)
        done = subprocess.run(
            [str(PYREG), *words],
            env=self.environment,
            input=secret or None,
            stdin=None if secret else subprocess.DEVNULL,
            stdout=subprocess.PIPE if capture else None,
            text=True,
        )
        if capture:
            print("".join(f"     {line}\n" for line in done.stdout.splitlines()[:4]), end="")
        if done.returncode:
            raise DemoError(f"pyreg {words[0]} ended with status {done.returncode}")
        return done.stdout or ""

    def serve(self) -> str:
        """Start the registry on fresh data; the password it printed for `admin`."""
        log = WORK / "serve.log"
        words = ["serve", "--host", "127.0.0.1", "--port", str(self.port)]
        print(f"   $ pyreg {' '.join(words)} &", flush=True)
        with open(log, "w") as output:
            self.server = subprocess.Popen(
                [str(PYREG), *words], env=self.environment, stdout=output, stderr=output, text=True
            )
        deadline = time.monotonic() + 30
        while not answers(self.port):
            if self.server.poll() is not None or time.monotonic() > deadline:
                raise DemoError(f"the registry did not start:\n{log.read_text()}")
            time.sleep(0.05)
        found = re.search(r"password\W+(\S{12,})", log.read_text())
        if not found:
            raise DemoError(f"the registry printed no password:\n{log.read_text()}")
        return found[1]

    def stop(self) -> None:
        if self.server is not None and self.server.poll() is None:
            self.server.terminate()
            self.server.wait(20)


class Step:
    """One step: a title before, the time it took after."""

    def __init__(self, demo: Demo, title: str) -> None:
        self.demo, self.title = demo, title

    def __enter__(self) -> None:
        self.demo.say(f"{len(self.demo.times) + 1}. {self.title}")
        self.started = time.monotonic()

    def __exit__(self, kind: object, *_: object) -> None:
        took = time.monotonic() - self.started
        self.demo.times.append((self.title, took))
        if kind is None:
            print(f"   done in {took:.2f} s\n", flush=True)


class DemoError(Exception):
    """A step did not work; the text says which."""


def free_port() -> int:
    """5000 if nobody has it, else any."""
    for port in (5000, 0):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            bound: int = probe.getsockname()[1]
            return bound
    raise DemoError("no free port on 127.0.0.1")


def answers(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/", timeout=2)
    except urllib.error.HTTPError as error:
        return error.code == 401
    except OSError:
        return False
    return True


def check_requirements() -> None:
    """Say everything that is missing, before anything starts."""
    wanted: list[str] = []
    if sys.platform != "linux":
        wanted.append("Linux: containers are a feature of its kernel")
    if os.geteuid() != 0:
        wanted.append("root, for debootstrap and the container: sudo make demo")
    packages = [tool for tool in ("debootstrap",) if not shutil.which(tool)]
    if packages and not ROOTFS.exists():
        wanted.append(f"Debian packages: apt-get install {' '.join(packages)}")
    if wanted:
        print("The demo needs:", *(f"  - {line}" for line in wanted), sep="\n", file=sys.stderr)
        sys.exit(1)


def make_rootfs() -> None:
    """Debian's minimal system with wget, from the mirror this machine uses for its own packages."""
    tree = WORK / "rootfs"
    shutil.rmtree(tree, ignore_errors=True)
    words = ["debootstrap", "--variant=minbase", "--include=wget,ca-certificates", SUITE, str(tree)]
    if mirror := debian_mirror():
        words.append(mirror)
    print(f"   $ {' '.join(words[:-1] if mirror else words)}", flush=True)
    with open(WORK / "debootstrap.log", "w") as log:
        if subprocess.run(words, stdout=log, stderr=log).returncode:
            raise DemoError(f"debootstrap failed; see {WORK / 'debootstrap.log'}")
    shutil.rmtree(tree / "var/cache/apt", ignore_errors=True)
    unfinished = ROOTFS.with_suffix(".part")
    tar = ["tar", "--numeric-owner", "--sort=name", "-C", str(tree), "-cf", str(unfinished), "."]
    print(f"   $ {' '.join(tar)}", flush=True)
    subprocess.run(tar, check=True)
    unfinished.rename(ROOTFS)
    shutil.rmtree(tree, ignore_errors=True)


def debian_mirror() -> str:
    """The first Debian archive of this machine's own APT sources; empty if it is not a Debian."""
    names = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    for name in names:
        if not name.is_file():
            continue
        for line in name.read_text(errors="replace").splitlines():
            found = re.match(
                r"(?:URIs:\s*|deb\s+(?:\[[^]]*\]\s*)?)(https?://\S+/debian)/?(?:\s|$)", line
            )
            if found:
                return found[1]
    return ""


def main(words: list[str]) -> int:
    check_requirements()
    WORK.mkdir(parents=True, exist_ok=True)
    if words == ["--only-rootfs"]:  # what benchmarks need of the demo
        if not ROOTFS.exists():
            make_rootfs()
        return 0
    shutil.rmtree(WORK / "data", ignore_errors=True)
    shutil.rmtree(WORK / "docker", ignore_errors=True)
    demo = Demo()
    try:
        with demo.step("Make a Debian root file system with wget"):
            if ROOTFS.exists():
                print(f"   kept from an earlier run: {ROOTFS}")
            else:
                make_rootfs()
        with demo.step("Start our own registry"):
            password = demo.serve()
            print(f"   it made the user 'admin' with a random password, and listens on {demo.host}")
        with demo.step("Make an image of it, and tag it for the registry"):
            demo.pyreg("import", "-c", 'CMD ["/bin/bash"]', str(ROOTFS), "wget")
            demo.pyreg("tag", "wget", IMAGE)
            demo.pyreg("images")
        with demo.step("Log in and push"):
            demo.pyreg("login", "-u", "admin", "--password-stdin", secret=password)
            demo.pyreg("push", IMAGE)
        with demo.step("Remove it here; only the registry has it now"):
            demo.pyreg("rmi", "wget", IMAGE)
            demo.pyreg("images")
            demo.pyreg("search", "wget")
        with demo.step("Pull it again"):
            demo.pyreg("pull", IMAGE)
        with demo.step("Run it in a container of its own namespaces"):
            version = demo.pyreg("run", "--rm", IMAGE, "wget", "--version", capture=True)
            if not version.startswith("GNU Wget"):
                raise DemoError("the container did not print wget's version")
        with demo.step("What the container sees: its own processes, and its own root"):
            seen = demo.pyreg(
                "run", "--rm", "--hostname", "demo", IMAGE,
                "sh", "-c", "hostname; echo pid $$; cat /etc/debian_version", capture=True,
            ).split()  # fmt: skip
            if seen[:3] != ["demo", "pid", "1"]:
                raise DemoError("the container does not have namespaces of its own")
    except (DemoError, subprocess.SubprocessError, OSError) as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        return 1
    finally:
        demo.stop()
    demo.say("The main job works. Times:")
    for title, took in demo.times:
        print(f"   {took:7.2f} s  {title}")
    print(f"""
What to try next:
   make serve                the registry on localhost:5000, data in /var/lib/pyreg
   {PYREG} login   with the password it printed
   {PYREG} import {ROOTFS.relative_to(CHECKOUT)} wget
   {PYREG} run --rm -it wget bash   a shell in a container
   {PYREG} run -d --name sleeper wget sleep 60; {PYREG} ps; {PYREG} rm -f sleeper
   docker login localhost:5000    every Docker client works against it, too
""")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
