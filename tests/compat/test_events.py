"""Events under the names of the other SDK."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tertulia.compat import atoms
from tertulia.compat.atoms import events
from tertulia.compat.atoms.events import (
    CallerContext,
    ConversationType,
    EventType,
    SDKAgentSpeakEvent,
    SDKAgentTransferConversationEvent,
    SDKEvent,
    SDKSystemInitEvent,
    SessionContext,
    TransferOption,
    context_of,
)
from tertulia.compat.atoms.session import EventCodec
from tertulia.errors import InvalidFrame
from tertulia.wire.events import SessionContext as Told
from tertulia.wire.events import TransferCall, event_types

CLASSES = {name: getattr(events, name) for name in dir(events) if name.startswith("SDK")}


def test_there_are_the_23_classes_of_the_sdk_and_each_type_is_on_the_wire() -> None:
    assert len(CLASSES) == 23
    types = {each.type for each in CLASSES.values()}
    assert types == set(EventType)
    assert all(event_types()[kind] in CLASSES.values() for kind in types)


def test_every_name_can_be_imported_from_one_place() -> None:
    for name in atoms.__all__:
        assert getattr(atoms, name).__name__
    assert CLASSES.keys() <= set(atoms.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        _ = atoms.nothing


def test_the_reference_tells_every_name() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "atoms.md").read_text()
    told = set(re.findall(r"`(\w+)`", page))
    assert set(atoms.__all__) <= told


@pytest.mark.parametrize(
    ("older", "between", "newest"),
    [
        ("AgentSession", "SwarmSession", "CrewSession"),
        ("AtomsApp", "AtomsSwarmApp", "AtomsCrewApp"),
        ("Node", "SwarmNode", "CrewNode"),
        ("OutputAgentNode", "OutputSwarmNode", "OutputCrewNode"),
        ("BackgroundAgentNode", "BackgroundSwarmNode", "BackgroundCrewNode"),
    ],
)
def test_the_three_sets_of_names_are_the_same_classes(
    older: str, between: str, newest: str
) -> None:
    assert getattr(atoms, older) is getattr(atoms, between) is getattr(atoms, newest)


def test_an_event_keeps_its_type_and_fields_over_the_wire() -> None:
    codec = EventCodec()
    sent = json.loads(codec.encode(SDKAgentSpeakEvent(text="hi")))
    assert (sent["type"], sent["text"]) == ("agent.speak", "hi")
    received = codec.decode(sent)
    assert isinstance(received, SDKAgentSpeakEvent)
    assert received.text == "hi"
    with pytest.raises(InvalidFrame, match=r"did you mean 'agent\.speak'"):
        codec.decode({"type": "agent.speek"})


def test_an_event_of_an_application_is_a_subclass_with_a_type() -> None:
    class Mood(SDKEvent, type="compat.mood"):
        score: float
        tags: list[str] = []  # noqa: RUF012 each event gets a list of its own

    received = EventCodec().decode({"type": "compat.mood", "score": 0.5, "other": 1})
    assert isinstance(received, Mood)
    assert (received.type, received.score, received.tags) == ("compat.mood", 0.5, [])


def test_the_options_of_a_transfer_come_back_as_ours() -> None:
    options: Any = TransferOption(type="warm_transfer")
    event = SDKAgentTransferConversationEvent(
        transfer_call_number="+1555", transfer_options=options
    )
    received = EventCodec().decode(json.loads(EventCodec().encode(event)))
    assert isinstance(received, TransferCall)
    assert received.transfer_options.kind == options.kind == "warm_transfer"
    assert received.on_hold_music is None


def test_a_context_can_be_made_as_the_sdk_makes_it() -> None:
    context = SessionContext({"a": 1}, "webcall", CallerContext(user_number="+1", plan="gold"))
    assert context.conversation_type is ConversationType.WEBCALL
    init = SDKSystemInitEvent(version="1", session_context=context)  # pyright: ignore[reportArgumentType]
    assert context_of(init.session_context) is context
    assert context.caller is not None
    assert context.caller.model_dump() == {
        "user_number": "+1",
        "agent_number": None,
        "direction": None,
        "call_id": None,
        "plan": "gold",
    }
    assert repr(context.caller) == "CallerContext(user_number='+1', plan='gold')"
    with pytest.raises(ValueError, match="telepathy"):
        SessionContext({}, "telepathy")


def test_a_context_from_the_wire_is_read_as_the_sdks() -> None:
    assert context_of(None) is None
    told = context_of(Told(initial_variables={"a": 1}, conversation_type="chat"))
    assert told == SessionContext({"a": 1}, "chat", None)
    told = context_of(Told(caller={"call_id": "c1"}))
    assert told is not None
    assert told.caller == CallerContext(call_id="c1")
