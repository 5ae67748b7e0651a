"""An administrator's hands on a running registry: accounts, tokens and rules over /api/v1."""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Sequence
from typing import Any

ADMIN = "root"
ADMIN_PASSWORD = "the password of root"
SECOND_PASSWORD = "another password!"


class Administrator:
    """Calls the API of the registry on a port of loopback with a password."""

    def __init__(self, port: int, name: str = ADMIN, password: str = ADMIN_PASSWORD) -> None:
        self.port = port
        self._login = base64.b64encode(f"{name}:{password}".encode()).decode()

    def __call__(self, method: str, path: str, body: object = None) -> Any:
        """The answer's JSON, None for an empty one. Anything but 2xx fails the test."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            headers = {"Authorization": f"Basic {self._login}", "Content-Type": "application/json"}
            raw = None if body is None else json.dumps(body)
            connection.request(method, f"/api/v1{path}", raw, headers)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        assert answer.status // 100 == 2, f"{method} {path}: {answer.status} {text!r}"
        return json.loads(text) if text else None

    def user(self, name: str, role: str = "user", password: str = SECOND_PASSWORD) -> None:
        self("POST", "/users", {"name": name, "password": password, "role": role})

    def disable(self, name: str, disabled: bool = True) -> None:
        self("PATCH", f"/users/{name}", {"disabled": disabled})

    def robot(self, name: str) -> str:
        """A new robot; its secret."""
        secret: str = self("POST", "/robots", {"name": name})["secret"]
        return secret

    def token(
        self, account: str, actions: Sequence[str] = (), repositories: Sequence[str] = ()
    ) -> tuple[str, int]:
        """A personal access token of an account: its secret and its id."""
        body = {"name": "test", "actions": list(actions), "repositories": list(repositories)}
        made = self("POST", f"/accounts/{account}/tokens", body)
        return made["secret"], made["id"]

    def revoke(self, account: str, token: int) -> None:
        self("DELETE", f"/accounts/{account}/tokens/{token}")

    def rule(self, repositories: str, subject: str, *actions: str, effect: str = "allow") -> int:
        body = {
            "repositories": repositories,
            "subject": subject,
            "actions": list(actions),
            "effect": effect,
        }
        made: int = self("POST", "/policy/rules", body)["id"]
        return made

    def remove_rule(self, rule: int) -> None:
        self("DELETE", f"/policy/rules/{rule}")

    def immutable(self, repositories: str, tags: str) -> int:
        made: int = self("POST", "/policy/immutable", {"repositories": repositories, "tags": tags})[
            "id"
        ]
        return made

    def group(self, name: str, *members: str) -> None:
        self("POST", "/groups", {"name": name})
        for member in members:
            self("PUT", f"/groups/{name}/members/{member}")

    def leave(self, group: str, member: str) -> None:
        self("DELETE", f"/groups/{group}/members/{member}")
