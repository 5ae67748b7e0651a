"""A registry in a process of its own, with short deadlines; `python serving.py ROOT` is it.

What it is asked here comes byte by byte, so there is no client: `converse` sends and collects.
"""

from __future__ import annotations

import asyncio
import base64
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from ocispec.digest import Digest
from registry.app import create_app
from registry.server.protocol import RegistryProtocol
from registry.server.run import Listening, ServerOptions, serve
from registry.settings import Settings
from tests.builders.servers import PASSWORD, ROOT, USER, add_user, pyreg_environment

HEAD_S = 1.0
IDLE_S = 1.0
REPOSITORY = "team/app"
# Whose content may come to harm: random requests delete things, as they may.
PREY = "prey/app"
BLOB = b"the blob that must come back unchanged " * 100
DIGEST = str(Digest.of(BLOB))
AUTHORIZATION = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


@dataclass
class Target:
    """The running server."""

    process: subprocess.Popen[bytes]
    port: int
    root: Path
    log: Path
    before: set[str] = field(default_factory=set)

    def resident(self) -> int:
        """Bytes of memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024

    def outside(self) -> set[str]:
        """Every file around the data directory, and what is at its top."""
        found = {str(path) for path in self.root.parent.rglob("*") if self.root not in path.parents}
        return found | {str(path) for path in (self.root / "registry").iterdir()}

    def strangers(self) -> list[str]:
        """Files in the data directory with names that we never give."""
        top = {"blobs", "uploads", "tmp"}
        names = []
        for path in (self.root / "registry").rglob("*"):
            first, *rest = path.relative_to(self.root / "registry").parts
            if rest and first in top and all(_is_ours(name) for name in rest):
                continue
            if rest or (first not in top and not first.startswith(("metadata.db", "LOCK", "."))):
                names.append(str(path))
        return names

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(20)


def _is_ours(name: str) -> bool:
    return name in ("sha256", "sha512", "upload") or all(
        letter in "0123456789abcdef-." for letter in name
    )


def start(directory: Path) -> Target:
    root = directory / "data"
    root.mkdir()
    add_user(root)
    log = directory / "serve.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, __file__, str(root)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=output,
            env=pyreg_environment(),
        )
    assert process.stdout is not None
    with process.stdout as ready:
        line = ready.readline()
    assert line, log.read_text()[-4000:]
    target = Target(process, int(line), root, log)
    target.before = target.outside()
    return target


def request(method: str, path: str, *headers: str, body: bytes = b"", login: bool = True) -> bytes:
    """A well-formed request, `Host` and a password included."""
    lines = [f"{method} {path} HTTP/1.1", "Host: x", *headers]
    if login:
        lines.append(f"Authorization: {AUTHORIZATION}")
    if body or method in ("PUT", "POST", "PATCH"):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


async def converse(
    target: Target, *pieces: bytes, pause_s: float = 0.0, quiet_s: float = 0.25, end: bool = False
) -> tuple[bytes, bool]:
    """Send pieces, `pause_s` apart; what came back until the end or `quiet_s` of silence, and
    whether the server closed. `end` closes our side after the last piece."""
    reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
    answer, closed = bytearray(), False
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            if pause_s:
                await asyncio.sleep(pause_s)
        if end:
            writer.write_eof()
        while not closed:
            async with asyncio.timeout(quiet_s):
                part = await reader.read(1 << 16)
            answer += part
            closed = not part
    except TimeoutError:
        pass
    except OSError:
        closed = True
    finally:
        writer.close()
        try:
            await writer.wait_closed()
        except OSError:
            pass
    return bytes(answer), closed


def statuses(answer: bytes) -> list[int]:
    """The status of each response in a stream of them; rubbish between them is an error."""
    found = []
    while answer:
        head, mark, rest = answer.partition(b"\r\n\r\n")
        assert mark, answer[:200]
        first, *lines = head.decode("latin-1").split("\r\n")
        version, _, status = first.partition(" ")
        assert version == "HTTP/1.1", answer[:200]
        found.append(int(status[:3]))
        fields = dict(line.lower().split(": ", 1) for line in lines)
        if fields.get("transfer-encoding") == "chunked":
            while True:  # uvicorn's own answers to what is not HTTP
                size, _, rest = rest.partition(b"\r\n")
                rest = rest[int(size, 16) + 2 :]
                if int(size, 16) == 0:
                    break
        elif not rest.startswith(b"HTTP/1.1 "):  # as after HEAD, or 304
            rest = rest[int(fields.get("content-length", "0")) :]
        answer = rest
    return found


def main() -> None:
    RegistryProtocol.head_s = HEAD_S
    RegistryProtocol.unread_s = IDLE_S
    RegistryProtocol.linger_s = 0.2
    settings = Settings(root=sys.argv[1], login_failures=0)
    options = ServerOptions(port=0, idle_s=IDLE_S, graceful_s=1, keep_alive_s=5)

    def ready(listening: Listening) -> None:
        os.write(1, b"%d\n" % listening.port)

    serve(create_app(settings), options, ready)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
