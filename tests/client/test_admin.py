"""The administration API from the client's side: over HTTP, and in process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from client.admin import Admin, HttpCarrier, path_of
from client.credentials import Credential
from client.errors import Denied, NotFound, Unauthorized
from pyreg.administration import LocalCarrier
from registry.settings import Settings
from tests.builders.servers import Server, start_pyreg
from tests.client.conftest import Client


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("administered")
    server = start_pyreg(root)
    yield server
    server.stop()


def test_one_interface_over_http_and_in_process(client: Client, registry: Server) -> None:
    right = Credential(registry.username, registry.password)
    over_http = Admin(HttpCarrier(client.registry(registry.host, right)))
    me = over_http.get("/me")
    assert me["name"] == registry.username
    with pytest.raises(Denied, match="administrator"):
        over_http.get("/users")
    with pytest.raises(NotFound, match="no path"):
        over_http.get("/no/such")
    with pytest.raises(Unauthorized, match="authentication required"):
        Admin(HttpCarrier(client.registry(registry.host))).get("/me")


def test_in_process_everything_may_be_done(tmp_path: Path) -> None:
    with LocalCarrier(Settings(root=str(tmp_path))) as carrier:
        admin = Admin(carrier)
        assert admin.get("/me")["administrator"] is True
        made = admin.post("/users", {"name": "zoe", "password": "long enough", "role": "reader"})
        assert made["role"] == "reader"
        for number in range(5):
            admin.post("/users", {"name": f"u{number}", "password": "long enough"})
        names = [user["name"] for user in admin.items("/users", n=2)]
        assert names == ["u0", "u1", "u2", "u3", "u4", "zoe"]
        admin.delete(path_of("users", "zoe"))
        with pytest.raises(NotFound, match="zoe"):
            admin.get(path_of("users", "zoe"))


def test_paths_are_made_of_segments() -> None:
    assert path_of("repositories", "a/b", "_tags", "..") == "/repositories/a%2Fb/_tags/.."
