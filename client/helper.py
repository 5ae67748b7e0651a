"""A credential helper: the program `docker-credential-NAME`, asked through its standard streams.

`get` takes the server's URL on stdin and prints `{"ServerURL", "Username", "Secret"}`; `store`
takes such an object; `erase` takes the URL. The user name `<token>` marks an identity token. On
failure it exits with a status other than 0 and explains itself on stdout.
"""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import time
from shutil import which

from client.errors import CredentialsError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from client.credentials import Credential

MAX_OUTPUT_BYTES = 64 << 10
TIMEOUT_S = 60.0  # a keyring may ask the person to unlock it
NOT_FOUND = "credentials not found"
TOKEN_USER = "<token>"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Helper:
    """Raises CredentialsError for a name that could lead to another program."""

    def __init__(self, name: str, environment: Mapping[str, str]) -> None:
        if not NAME.fullmatch(name):
            raise CredentialsError(f"{name[:80]!r} is not the name of a credential helper")
        self.program = f"docker-credential-{name}"
        self._environment = dict(environment)

    def get(self, server: str) -> Credential | None:
        """The stored credential; None if the helper says it has none."""
        from client.credentials import Credential

        raw = self._run("get", server.encode())
        if raw is None:
            return None
        try:
            document = json.loads(raw)
            username, secret = str(document["Username"]), str(document["Secret"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise CredentialsError(f"{self.program} printed something unusable") from None
        if not secret:
            return None
        if username == TOKEN_USER:
            return Credential(identity_token=secret)
        return Credential(username=username, password=secret)

    def store(self, server: str, credential: Credential) -> None:
        token = credential.identity_token
        document = {
            "ServerURL": server,
            "Username": TOKEN_USER if token else credential.username,
            "Secret": token or credential.password,
        }
        self._run("store", json.dumps(document).encode())

    def erase(self, server: str) -> None:
        self._run("erase", server.encode())

    def _run(self, action: str, given: bytes) -> bytes | None:
        path = which(self.program, path=self._environment.get("PATH", ""))
        if path is None:
            raise CredentialsError(
                f"the credential helper {self.program} is not in PATH",
                hint="install it, or take credsStore/credHelpers out of docker's config.json",
            )
        process = subprocess.Popen(
            [path, action],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self._environment,
        )
        with process:
            try:
                out = self._converse(process, given)
                process.wait(TIMEOUT_S)
            except subprocess.TimeoutExpired:
                raise self._silent() from None
            finally:
                if process.poll() is None:
                    process.kill()
        if process.returncode == 0:
            return out
        said = out.decode(errors="replace").strip()
        if action == "get" and NOT_FOUND in said.lower():
            return None
        first = (said.splitlines() or ["no reason given"])[0][:200]
        raise CredentialsError(f"{self.program} {action} failed: {first}")

    def _converse(self, process: subprocess.Popen[bytes], given: bytes) -> bytes:
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(given)  # far below what a pipe holds, so this cannot block
            process.stdin.close()
        except BrokenPipeError:
            pass  # it did not want to know; its status tells
        out = b""
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            ready, _, _ = select.select(
                [process.stdout], (), (), max(0, deadline - time.monotonic())
            )
            if not ready:
                raise self._silent()
            part = os.read(process.stdout.fileno(), 64 << 10)
            if not part:
                return out
            out += part
            if len(out) > MAX_OUTPUT_BYTES:
                raise CredentialsError(f"{self.program} printed more than {MAX_OUTPUT_BYTES} bytes")

    def _silent(self) -> CredentialsError:
        return CredentialsError(f"{self.program} did not answer within {TIMEOUT_S:.0f} seconds")
