"""Every operation of /api/v1 as its OpenAPI document says, by schemathesis: generated from the
document, so that whoever adds an endpoint has it tested.

The server is a real one. Checked: never a 5xx, only documented statuses and media types, answers
that match their schema, no answer without credentials where they are needed, and every request that
breaks its schema is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from registry.api.v1.endpoints import TABLE
from registry.api.v1.table import PREFIX, Endpoint
from tests.builders.servers import Server, add_user, start_pyreg

ADMIN = ("schema-admin", "the password of an admin")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("conformance")
    add_user(root, *ADMIN, role="admin")
    server = start_pyreg(root, environment={"PYREG_LOGIN_FAILURES": "0"})
    yield server
    server.stop()


@pytest.fixture(scope="module")
def document(server: Server) -> Any:
    where = f"http://127.0.0.1:{server.port}/api/v1/openapi.json"
    return schemathesis.openapi.from_url(where)


@pytest.mark.parametrize("mode", ["positive", "negative"])
@pytest.mark.parametrize("endpoint", TABLE.endpoints, ids=lambda endpoint: endpoint.name)
def test_every_operation_is_as_described(document: Any, endpoint: Endpoint, mode: str) -> None:
    operation = document[PREFIX + endpoint.path][endpoint.method]
    if mode == "negative" and not (endpoint.parameters or endpoint.body or endpoint.paged):
        return  # there is nothing to be wrong

    @given(case=operation.as_strategy(schemathesis.GenerationMode(mode)))
    @settings(
        max_examples=8,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def check(case: Any) -> None:
        answer = case.call_and_validate(auth=ADMIN, excluded_checks=[positive_data_acceptance])
        if mode == "positive" and answer.status_code == 400:
            # What a schema cannot say (a page that never was) may be refused; never its shape.
            assert answer.json()["problems"] == [], answer.text

    check()
