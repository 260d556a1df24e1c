"""The OpenAPI document of the HTTP API, from the table of its operations and their types."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

import tertulia
from tertulia.server.operations import Operation
from tertulia.server.problems import Problem
from tertulia.server.sse import Failure

Schema = dict[str, Any]
_TEMPLATE = "#/components/schemas/{name}"
_PARAMETER = re.compile(r"{(\w+)}")
_HEADERS = {
    "followEvents": ("Last-Event-ID", "The seq that the client has seen last."),
    "runTurn": ("Idempotency-Key", "A repetition with the same key runs once."),
    "executeMessage": ("Idempotency-Key", "A repetition with the same key runs once."),
    "appendMessages": ("Idempotency-Key", "A repetition with the same key is stored once."),
}
"""The headers that an operation reads."""


def document(operations: Iterable[Operation], *, secured: bool) -> bytes:
    """The document as JSON; `secured` says that requests need a bearer token."""
    operations = tuple(operations)
    schemas, components = _schemas(operations)
    paths: dict[str, Schema] = {}
    for operation in operations:
        described = _operation(operation, schemas, components)
        if secured and not operation.public:
            described["security"] = [{"bearer": []}]
        paths.setdefault(operation.path, {})[operation.method.lower()] = described
    parts: Schema = {"schemas": components}
    if secured:
        parts["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": "Tertulia", "version": tertulia.__version__},
            "paths": paths,
            "components": parts,
        }
    )


def _schemas(operations: Iterable[Operation]) -> tuple[dict[Any, Schema], dict[str, Schema]]:
    """The schema of every type that an operation takes or gives, and what they refer to."""
    kinds: dict[Any, None] = {Problem: None, Failure: None}
    for each in operations:
        named = (each.query, each.body, each.answer, *each.streams)
        kinds.update((kind, None) for kind in named if kind is not None)
    made, components = msgspec.json.schema_components(kinds, ref_template=_TEMPLATE)
    return dict(zip(kinds, made, strict=True)), components


def _operation(
    operation: Operation, schemas: dict[Any, Schema], components: dict[str, Schema]
) -> Schema:
    described: Schema = {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": list(_parameters(operation, components)),
        "responses": {
            str(operation.status): _answer(operation, schemas),
            "default": {
                "description": "What went wrong",
                "content": {"application/json": {"schema": schemas[Problem]}},
            },
        },
    }
    body = operation.body
    if body is not None:
        described["requestBody"] = {
            "required": bool(components[body.__name__].get("required")),
            "content": {"application/json": {"schema": schemas[body]}},
        }
    return described


def _answer(operation: Operation, schemas: dict[Any, Schema]) -> Schema:
    content: Schema = {}
    if operation.answer is not None:
        content["application/json"] = {"schema": schemas[operation.answer]}
    if operation.streams:
        data = {"anyOf": [*(schemas[kind] for kind in operation.streams), schemas[Failure]]}
        content["text/event-stream"] = {
            "schema": {
                "type": "string",
                "description": "Events whose data is JSON of the schema below.",
                "contentMediaType": "application/json",
                "contentSchema": data,
            }
        }
    answer: Schema = {"description": operation.summary, "content": content}
    if operation.status == 201 and operation.method == "POST":
        answer["headers"] = {"Location": {"schema": {"type": "string"}}}
    return answer


def _parameters(operation: Operation, components: dict[str, Schema]) -> Iterator[Schema]:
    for name in _PARAMETER.findall(operation.path):
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
    for name, schema in components[operation.query.__name__]["properties"].items():
        yield {"name": name, "in": "query", "required": False, "schema": _said(schema)}
    header = _HEADERS.get(operation.name)
    if header is not None:
        yield {
            "name": header[0],
            "in": "header",
            "required": False,
            "description": header[1],
            "schema": {"type": "string"},
        }


def _said(schema: Schema) -> Schema:
    """The schema of a parameter where it is given: a query has no null."""
    either = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    return either[0] if len(either) == 1 else schema
