"""The contract of live events says what the classes say, and its committed copies are fresh."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, cast

import pytest
from scripts import contract as script

from tertulia.server.contract import BASES, asyncapi, event_schema, meaning, sender
from tertulia.wire.events import (
    OWN,
    AgentReady,
    LiveEvent,
    ResponseEnd,
    SystemInit,
    TranscriptUpdate,
    event_types,
)
from tertulia.wire.frames import encode

CONCRETE = [cls for cls in OWN if cls not in BASES]


class Parcel(LiveEvent, type="contract.parcel", kept=True):
    """Something was sent.

    And more is told here.
    """

    weight: float


def references(document: Any) -> Iterator[str]:
    """Every reference in a document."""
    if isinstance(document, dict):
        parts = cast("dict[str, Any]", document)
        if "$ref" in parts:
            yield parts["$ref"]
        document = list(parts.values())
    if isinstance(document, list):
        for value in cast("list[Any]", document):
            yield from references(value)


def followed(document: Any, reference: str) -> Any:
    """What a reference points to."""
    for step in reference.removeprefix("#/").split("/"):
        document = document[step]
    return document


@pytest.mark.parametrize("made", [asyncapi, event_schema])
def test_every_reference_of_a_document_leads_somewhere(made: Any) -> None:
    document = made()
    found = list(references(document))
    assert found
    assert all(followed(document, each) for each in found)


@pytest.mark.parametrize("cls", CONCRETE, ids=lambda cls: cls.__name__)
def test_the_schema_of_an_event_names_its_type_and_all_its_fields(cls: type[LiveEvent]) -> None:
    schema = followed(event_schema(), event_schema()["discriminator"]["mapping"][cls.type])
    assert schema["properties"]["type"] == {"enum": [cls.type]}
    assert set(schema["properties"]) == {"type", *cls.__struct_fields__}


def test_a_frame_has_the_fields_of_its_schema_and_no_other() -> None:
    said = TranscriptUpdate(role="user", content="hello", id="1")
    schema = event_schema()["$defs"]["TranscriptUpdate"]
    assert set(json.loads(encode(said))) == set(schema["properties"])
    assert set(schema["required"]) == {"type", "role", "content"}


def test_nobody_sends_the_types_that_are_only_there_to_derive_from() -> None:
    assert [cls.type for cls in BASES if cls.type in asyncapi()["components"]["messages"]] == []


def test_each_side_sends_its_own_events_and_a_transcript_comes_from_both() -> None:
    operations = asyncapi()["operations"]
    taken, sent = (
        {each["$ref"].rsplit("/", 1)[1] for each in operations[action]["messages"]}
        for action in ("receive", "send")
    )
    assert SystemInit.type in taken - sent
    assert {AgentReady.type, ResponseEnd.type} <= sent - taken
    assert taken & sent == {TranscriptUpdate.type}
    assert taken | sent == {cls.type for cls in CONCRETE}


def test_events_of_an_application_are_in_its_contract_and_may_come_from_both_sides() -> None:
    assert sender(Parcel) == "both"
    assert meaning(Parcel) == "Something was sent."
    assert Parcel.type in asyncapi(event_types().values())["components"]["messages"]
    assert Parcel.type not in asyncapi()["components"]["messages"]


def test_the_address_is_that_of_the_application() -> None:
    assert asyncapi(address="/live")["channels"]["live"]["address"] == "/live"


@pytest.mark.parametrize(
    ("path", "text"), list(script.contents()), ids=lambda value: str(value)[-20:]
)
def test_the_committed_copy_is_what_the_classes_say_now(path: Any, text: str) -> None:
    assert path.read_text() == text, "run: python scripts/contract.py"


def test_the_check_fails_on_a_stale_copy_and_on_none_at_all(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(script, "FOLDER", tmp_path)
    assert script.main(["--check"]) == 1
    assert script.main([]) == 0
    assert script.main(["--check"]) == 0
    (tmp_path / "asyncapi.json").write_text("{}")
    capsys.readouterr()
    assert script.main(["--check"]) == 1
    assert "asyncapi.json is stale" in capsys.readouterr().out
