"""Write what is generated from the classes of live events, or check that it is not stale.

python scripts/contract.py [--check]
"""

import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from tertulia.server.contract import BASES, asyncapi, event_schema, meaning, sender
from tertulia.wire.events import OWN, LiveEvent

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "reference"
SENDERS = {"client": "client", "server": "server", "both": "client, server"}
PAGE = """# Live events

What client and server of a live session say to each other: one JSON object a frame. Generated
from `tertulia.wire.events` by `scripts/contract.py`; programs read [AsyncAPI](asyncapi.json) and
[JSON Schema](live-events.schema.json). Your own events subclass `LiveEvent`.

Every event has `type`, and these, which the session fills in: `id`, `timestamp` (ISO 8601, UTC),
`session_id`, `seq` (its place in the durable log; null where it is not kept), `direction` (`in`
from the client, `out` to it) and `metadata`. What is kept is in the log and comes again after a
reconnect; everything else is of the moment. A field without a default must be given.

| type | class | sent by | kept | fields | says that |
|---|---|---|---|---|---|
"""


def main(arguments: list[str]) -> int:
    """Write the files, or name those that are stale and fail."""
    stale = [path for path, text in contents() if not path.exists() or path.read_text() != text]
    if "--check" not in arguments:
        for path, text in contents():
            path.write_text(text)
        print(f"contract: {len(stale)} written")
        return 0
    for path in stale:
        print(f"error: docs/reference/{path.name} is stale; run: python scripts/contract.py")
    print(f"contract: {len(stale)} stale")
    return 1 if stale else 0


def contents() -> Iterator[tuple[Path, str]]:
    """Every generated file with what it should hold."""
    yield FOLDER / "asyncapi.json", as_json(asyncapi())
    yield FOLDER / "live-events.schema.json", as_json(event_schema())
    yield FOLDER / "live-events.md", PAGE + "".join(rows())


def as_json(value: dict[str, Any]) -> str:
    """JSON that people can read and compare."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def rows() -> Iterator[str]:
    """One row of the table for each class."""
    for cls in OWN:
        if cls not in BASES:
            kept = "yes" if cls.kept else "no"
            cells = f"`{cls.type}`", f"`{cls.__name__}`", SENDERS[sender(cls)], kept
            said = meaning(cls).replace("``", "`")
            yield f"| {' | '.join((*cells, fields(cls), said))} |\n"


def fields(cls: type[LiveEvent]) -> str:
    """The fields of its own, each with its type in JSON and its default."""
    schema = msgspec.json.schema_components([cls])[1][cls.__name__]
    own = [name for name in cls.__struct_fields__ if name in inspect.get_annotations(cls)]
    return ", ".join(f"`{field(name, schema['properties'][name])}`" for name in own)


def field(name: str, schema: dict[str, Any]) -> str:
    """One field, as `name: type = default`."""
    if "default" not in schema:
        return f"{name}: {kind(schema)}"
    default = "{…}" if "$ref" in schema else json.dumps(schema["default"])
    return f"{name}: {kind(schema)} = {default}"


def kind(schema: dict[str, Any]) -> str:
    """The type of a field in words."""
    if "anyOf" in schema:
        return " or ".join(kind(each) for each in schema["anyOf"])
    if "enum" in schema:
        return " or ".join("null" if each is None else f'"{each}"' for each in schema["enum"])
    if "items" in schema:
        return f"array of {kind(schema['items'])}"
    return schema["$ref"].rsplit("/", 1)[1] if "$ref" in schema else schema["type"]


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
