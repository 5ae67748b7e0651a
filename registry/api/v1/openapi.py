"""The OpenAPI document, made from the table that also serves the requests.

Spec: OpenAPI 3.1.0; schemas are JSON Schema 2020-12.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from registry.api.v1.call import Paging
from registry.api.v1.failures import Problem
from registry.api.v1.shapes import object_schema, schema
from registry.api.v1.table import PREFIX, Endpoint, On, Table, Who

_SECURITY: list[dict[str, list[str]]] = [{"password": []}, {"token": []}]


def document(table: Table, version: str) -> dict[str, Any]:
    """The whole API as one JSON document."""
    components: dict[str, Any] = {}
    for endpoint in table.endpoints:  # first: what a request may not have, its answer says too
        if endpoint.body is not None:
            schema(endpoint.body, components, closed=True)
    paths: dict[str, Any] = {}
    for path, methods in table.paths:
        paths[PREFIX + path] = {
            method.lower(): _operation(endpoint, components) for method, endpoint in methods.items()
        }
    schema(Problem, components, closed=False)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "pyreg",
            "version": version,
            "description": "Administration of a pyreg registry. Images go over /v2/.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "password": {
                    "type": "http",
                    "scheme": "basic",
                    "description": "name and password, or a personal access token as password",
                },
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "from /token with the scope registry:api:*, "
                    "or a personal access token",
                },
            },
        },
    }


def _operation(endpoint: Endpoint, components: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": endpoint.name,
        "summary": endpoint.summary,
        "description": " ".join(filter(None, [endpoint.details, _who(endpoint)])),
        "tags": [endpoint.path.split("/")[1]],
        "security": [] if endpoint.may is Who.ANYBODY else _SECURITY,
        "responses": _responses(endpoint, components),
    }
    if isinstance(endpoint.may, On):
        operation["security"] = [{}, *_SECURITY]  # a policy may allow it to everybody
    parameters = [
        {
            "name": parameter.name,
            "in": "path",
            "required": True,
            "description": parameter.description,
            "schema": {
                "type": "string",
                "minLength": 1,
                "maxLength": parameter.maximum,
                "pattern": f"^(?:{parameter.pattern})$",
            },
        }
        for parameter in endpoint.parameters
    ]
    for kind in ((Paging,) if endpoint.paged else ()) + (
        (endpoint.query,) if endpoint.query is not None else ()
    ):
        parameters += _query(kind)
    if parameters:
        operation["parameters"] = parameters
    if endpoint.body is not None:
        content = {"application/json": {"schema": schema(endpoint.body, components, closed=True)}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _who(endpoint: Endpoint) -> str:
    match endpoint.may:
        case On(action):
            return f"For whom may {action} in the repository."
        case Who.ANYBODY:
            return "For everybody."
        case Who.ACCOUNT:
            return "For every account."
        case Who.OWN:
            return "For the account itself, and administrators."
        case _:
            return "For administrators."


def _query(kind: type) -> Iterable[dict[str, Any]]:
    own = object_schema(kind, {}, True)
    for name, described in own["properties"].items():
        variants = described.get("anyOf")
        if variants is not None:  # in a query, what is not given is not there
            described = variants[0]
        yield {
            "name": name,
            "in": "query",
            "required": name in own.get("required", ()),
            "schema": described,
        }


def _responses(endpoint: Endpoint, components: dict[str, Any]) -> dict[str, Any]:
    good: dict[str, Any] = {"description": "done"}
    if endpoint.answers is not None:
        answer = schema(endpoint.answers, components, closed=False)
        if endpoint.paged:
            answer = {
                "type": "object",
                "properties": {"items": {"type": "array", "items": answer}},
                "required": ["items"],
            }
            good["headers"] = {
                "Link": {"description": "the next page, rel=next", "schema": {"type": "string"}}
            }
        if endpoint.matches:
            good["headers"] = {
                "ETag": {"description": "for If-Match", "schema": {"type": "string"}}
            }
        good["content"] = {"application/json": {"schema": answer}}
    problem = {
        "description": "refused, or failed",
        "content": {
            "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
        },
    }
    return {str(endpoint.status): good, "default": problem}
