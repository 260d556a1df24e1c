"""What a session says becomes memory, once, with its sources."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from tertulia import Agent, AgentRouter, Memory, MemoryStore, Runtime, Session, configure
from tertulia.errors import (
    AccessDenied,
    ConfigurationError,
    InvalidInput,
    ModelError,
    SchemaValidationError,
    SessionNotFound,
)
from tertulia.memory import MemoryEntry
from tertulia.testing.models import ScriptedModel


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def answer(*facts: tuple[str, list[int]]) -> str:
    return json.dumps([{"fact": fact, "sources": sources} for fact, sources in facts])


def contents(entries: Sequence[MemoryEntry]) -> list[str]:
    return [entry.content for entry in entries]


async def talk(runtime: Runtime, name: str = "s", **options: Any) -> tuple[Session, list[int]]:
    """A session in which something was said, and the positions of its messages."""
    session = runtime.session(name, **({"user_id": "ann"} | options))
    said = await session.send_messages(
        [user("I moved to Oslo."), assistant("Nice!"), user("I cannot eat nuts.")]
    )
    return session, [message.seq or 0 for message in said]


async def test_facts_are_remembered_with_their_sources(runtime: Runtime) -> None:
    session, (first, _, third) = await talk(runtime)
    model = ScriptedModel(
        answer(("The user lives in Oslo.", [first]), ("The user has a nut allergy.", [third]))
    )
    made = await session.memory.ingest_from_session(session, strategy="smart", model=model)
    assert contents(made) == ["The user lives in Oslo.", "The user has a nut allergy."]
    assert made[0].metadata == {
        "source_session": "s",
        "source_seqs": [first],
        "strategy": "smart",
    }
    [found] = await session.memory.search("nut")
    assert found.metadata["source_seqs"] == [third]
    [request] = model.requests
    shown = [json.loads(line) for line in request.messages[-1].text.splitlines()]
    assert [line["text"] for line in shown] == ["I moved to Oslo.", "Nice!", "I cannot eat nuts."]


async def test_ingesting_twice_remembers_once(runtime: Runtime) -> None:
    session, (first, second, third) = await talk(runtime)
    model = ScriptedModel(
        answer(("Lives in Oslo.", [first])),
        answer(("lives in  OSLO.", [first]), ("No nuts.", [third]), ("No nuts.", [second])),
    )
    await session.memory.ingest_from_session(session, model=model)
    await session.memory.ingest_from_session(session, model=model)
    entries = await session.memory.entries()
    assert contents(entries) == ["lives in  OSLO.", "No nuts."]
    assert entries[1].metadata["source_seqs"] == [second, third]


async def test_what_the_user_said_is_remembered_without_a_model(runtime: Runtime) -> None:
    session, _ = await talk(runtime)
    memory = session.memory
    for _ in range(2):
        made = await memory.ingest_from_session(session, strategy="messages")
        assert contents(made) == ["I moved to Oslo.", "I cannot eat nuts."]
    assert len(await memory.entries()) == 2
    assert contents(await memory.search("nuts")) == ["I cannot eat nuts."]


async def test_a_long_message_is_remembered_in_pieces_and_many_messages_one_by_one(
    runtime: Runtime,
) -> None:
    session = runtime.session("s", user_id="ann")
    long = " ".join(str(n) for n in range(20_000))
    sent = await session.send_message(user(long))
    made = await session.memory.ingest_from_session(session, strategy="messages")
    assert "".join(contents(made)) == long
    assert {tuple(entry.metadata["source_seqs"]) for entry in made} == {(sent.seq,)}
    await session.send_messages([user(f"number {n}") for n in range(1_100)])
    made = await session.memory.ingest_from_session(session, strategy="messages")
    assert contents(made)[-1_100:] == [f"number {n}" for n in range(1_100)]


@pytest.mark.parametrize(
    "bad", ["I have kept that.", '[{"fact": "x", "sources": [99]}]', '[{"fact": "x"']
)
async def test_an_answer_that_is_no_list_of_facts_stores_nothing(
    runtime: Runtime, bad: str
) -> None:
    session, _ = await talk(runtime)
    with pytest.raises(SchemaValidationError, match='strategy="messages"'):
        await session.memory.ingest_from_session(session, model=ScriptedModel(bad))
    assert await session.memory.entries() == []


async def test_a_model_that_fails_in_the_second_part_stores_nothing(runtime: Runtime) -> None:
    session = runtime.session("long", user_id="ann")
    [one, _] = await session.send_messages([user("a" * 20_000), user("b" * 20_000)])
    model = ScriptedModel(answer(("Likes a.", [one.seq or 0])), ModelError("no"))
    with pytest.raises(ModelError):
        await session.memory.ingest_from_session(session, model=model)
    assert len(model.requests) == 2
    assert await session.memory.entries() == []


async def test_the_model_of_the_sessions_agent_is_asked_unless_another_is_given(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = [ScriptedModel(*["[]"] * 9) for _ in range(3)]
    agent = Agent(name="a", model=models[0], runtime=runtime)
    session, _ = await talk(runtime, agent=agent)
    await session.memory.ingest_from_session(session)
    await session.memory.ingest_from_session(session, model=models[1])
    router = AgentRouter([Agent(name="b", model=models[2]), agent])
    routed, _ = await talk(runtime, "routed", agent=router)
    await routed.memory.ingest_from_session(routed)
    assert [len(model.requests) for model in models] == [1, 1, 1]
    bare, _ = await talk(runtime, "bare")
    with pytest.raises(ConfigurationError, match="no model is configured"):
        await bare.memory.ingest_from_session(bare)


async def test_the_offline_model_says_what_to_do_instead(runtime: Runtime) -> None:
    session, _ = await talk(runtime)
    with pytest.raises(SchemaValidationError, match="another model="):
        await session.memory.ingest_from_session(session, model="offline")


async def test_a_session_of_another_user_or_app_is_refused(runtime: Runtime) -> None:
    session, _ = await talk(runtime, "s", app_name="shop")
    for memory in (
        runtime.memory("bob", "shop"),
        runtime.memory("ann"),
        runtime.memory(None, "bank"),
    ):
        with pytest.raises(AccessDenied, match=r"session\.memory"):
            await memory.ingest_from_session(session, strategy="messages")
        assert await memory.entries() == []
    assert len(await runtime.memory(None, "shop").ingest_from_session(session, "messages")) == 2


async def test_a_session_that_has_no_owner_may_become_anyones_memory(runtime: Runtime) -> None:
    session, _ = await talk(runtime, user_id=None)
    made = await runtime.memory("ann").ingest_from_session(session, "messages")
    assert len(made) == 2


async def test_what_cannot_be_ingested_is_refused(runtime: Runtime) -> None:
    session, _ = await talk(runtime)
    with pytest.raises(InvalidInput, match="there are smart, messages"):
        await session.memory.ingest_from_session(session, strategy="clever")
    unknown = runtime.session("unknown", user_id="ann")
    with pytest.raises(SessionNotFound):
        await unknown.memory.ingest_from_session(unknown, "messages")
    async with Runtime(MemoryStore()) as other:
        with pytest.raises(InvalidInput, match="another store"):
            await other.memory("ann").ingest_from_session(session, "messages")


async def test_an_empty_session_gives_nothing(runtime: Runtime) -> None:
    session = runtime.session("s", user_id="ann")
    await session.send_message({"role": "assistant", "content": "Hello?"})
    assert await session.memory.ingest_from_session(session, "messages") == []


async def test_a_running_turn_and_what_is_hidden_are_left_out(runtime: Runtime) -> None:
    session, _ = await talk(runtime)
    await session.prune("keep_last_1")
    async with session.turn("This may still fail."):
        made = await session.memory.ingest_from_session(session, "messages")
    assert contents(made) == ["I cannot eat nuts."]


async def test_what_was_taken_from_a_session_goes_with_it(runtime: Runtime) -> None:
    session, _ = await talk(runtime)
    other, _ = await talk(runtime, "other")
    app = runtime.memory()
    await session.memory.store("said", "by hand")
    await session.memory.ingest_from_session(session, "messages")
    await app.ingest_from_session(session, "messages")
    await other.memory.ingest_from_session(other, "messages")
    await session.delete()
    assert {entry.metadata.get("source_session") for entry in await other.memory.entries()} == {
        None,
        "other",
    }
    assert await app.entries() == []
    assert len(await other.memory.search("Oslo")) == 1


async def test_what_a_fork_inherited_goes_with_the_session_it_came_from(runtime: Runtime) -> None:
    session, _ = await talk(runtime)
    fork = await session.fork("fork")
    await fork.send_message(user("I like skiing."))
    memory = fork.memory
    assert len(await memory.ingest_from_session(fork, "messages")) == 3
    await session.delete()
    assert contents(await memory.entries()) == ["I like skiing."]


async def test_an_ended_conversation_can_still_be_ingested(runtime: Runtime) -> None:
    session, _ = await talk(runtime)
    await session.end("done")
    assert len(await session.memory.ingest_from_session(session, "messages")) == 2


async def test_the_configured_model_is_asked_last(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Runtime(MemoryStore()) as runtime:
        session, _ = await talk(runtime)
        monkeypatch.setenv("TERTULIA_MODEL", "offline")
        with pytest.raises(SchemaValidationError):
            await Memory(user_id="ann").ingest_from_session(session)
        assert configure() is None
