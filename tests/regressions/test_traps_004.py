"""Where the system behind page 004 breaks, and this one must not: one test for each trap."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.swarm.stage import SWARM, Heard, Stage, Without, asked, said, soon, swarm_of

from tertulia import Agent, Message, Runtime, SessionStore, SQLiteStore, Swarm, ToolCall, tool
from tertulia.agents.protocol import ModelEvent, ModelRequest, TextDelta
from tertulia.errors import (
    InvalidInput,
    NavigationError,
    NotConnected,
    PolicyError,
    UnusableAnswer,
)
from tertulia.policies import BAN_MESSAGE, Policy, PolicyContext
from tertulia.swarm import ClientSession, Outgoing
from tertulia.testing import FrozenClock, Pause, ScriptedModel, call


@pytest.fixture(params=["memory", "sqlite"])
async def stage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Stage]:
    """A store, and runtimes on it."""
    made = Stage(request.param, tmp_path, FrozenClock())
    yield made
    await made.close()


def client_of(
    stage: Stage, model: ScriptedModel, *policies: Policy, **options: Any
) -> ClientSession:
    return stage.runtime(swarm_of(model, *policies, **options)).client_session("ann", SWARM)


def check_valid(messages: list[Message]) -> None:
    """What every provider asks for: each call is answered once, right after it."""
    waiting: set[str] = set()
    for message in messages:
        if message.role == "tool":
            assert message.tool_call_id in waiting
            waiting.discard(message.tool_call_id or "")
            continue
        assert waiting == set()
        ids = [made.id for made in message.tool_calls or ()]
        waiting = set(ids)
        assert len(waiting) == len(ids)
    assert waiting == set()


@tool
def look(place: str = "here") -> str:
    """Look somewhere."""
    return f"nothing {place}"


# -- policies and bans


async def test_a_ban_during_a_running_turn_holds_for_the_answer_of_that_turn(
    stage: Stage,
) -> None:
    pause = Pause()
    client = client_of(stage, ScriptedModel([pause, "a fine answer"]), Without("acme"))
    task = asyncio.create_task(client.execute("Hi"))
    await pause.reached()
    await client.swarm.ban("ann", "without-acme")
    pause.release()
    assert await soon(task) == BAN_MESSAGE
    assert "a fine answer" not in str(await client.session.history())


async def test_of_two_policies_that_fail_at_once_each_client_hears_its_own(stage: Stage) -> None:
    policies = [Without("red", ban_message="No red."), Without("blue", ban_message="No blue.")]
    runtime = stage.runtime(swarm_of(ScriptedModel(), *policies))
    ann, bob = (runtime.client_session(name, SWARM) for name in ("ann", "bob"))
    for _ in range(10):
        answers = await asyncio.gather(ann.execute("red"), bob.execute("blue"))
        assert answers == ["No red.", "No blue."]


@pytest.mark.parametrize("direction", ["input", "output"])
async def test_a_validator_that_raises_is_an_error_and_lets_nothing_through(
    stage: Stage, direction: str
) -> None:
    class Broken(Policy):
        def validate_input(self, message: str, context: PolicyContext, /) -> bool:
            return self._fail(context)

        def validate_output(self, text: str, context: PolicyContext, /) -> bool:
            return self._fail(context)

        def _fail(self, context: PolicyContext) -> bool:
            if context.direction == direction:
                raise ZeroDivisionError
            return True

    client = client_of(stage, ScriptedModel("secret"), Broken())
    with pytest.raises(PolicyError):
        await soon(client.execute("Hi"))
    assert await client.session.history() == []


async def test_an_output_that_was_refused_does_not_leak_into_the_history(stage: Stage) -> None:
    model = ScriptedModel("Go to acme.", "fine")
    client = client_of(stage, model, Without("acme", name="rivals"))
    await client.execute("Where?")
    await client.execute("And?")
    assert "acme" not in str(await client.session.history())
    assert "acme" not in asked(model)


# -- going out


async def test_what_is_emitted_while_nothing_runs_reaches_who_is_connected(stage: Stage) -> None:
    got: list[Outgoing] = []
    client = client_of(stage, ScriptedModel())
    client.connect(got.append)
    await client.emit("We close.")
    assert [outgoing.data for outgoing in got] == ["We close."]


async def test_a_notice_where_nobody_is_connected_is_an_error_and_not_silence(
    stage: Stage,
) -> None:
    with pytest.raises(NotConnected, match="connect"):
        await client_of(stage, ScriptedModel()).notify("Hello?")


async def test_output_that_comes_after_the_cancel_goes_nowhere(stage: Stage) -> None:
    began = asyncio.Event()

    async def stubborn(request: ModelRequest) -> AsyncIterator[ModelEvent]:
        try:
            began.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            yield TextDelta("late")

    model = ScriptedModel(stubborn, "next")
    runtime = stage.runtime(swarm_of(model))
    client = runtime.client_session("ann", SWARM)
    got: list[Outgoing] = []
    heard = Heard()
    runtime.bus.listen("ann", "*", heard)
    send = client.connect(got.append)
    task = asyncio.create_task(send("Hi"))
    await began.wait()
    assert await soon(client.cancel())
    assert (await soon(task)).kind == "cancelled"
    assert await soon(client.execute("Again")) == "next"
    await runtime.bus.drain()
    everything = [*got, *heard.events, *await client.session.history(), asked(model)]
    assert "late" not in str(everything)


# -- the end


async def test_a_client_that_is_disposed_in_a_turn_leaves_nobody_waiting(stage: Stage) -> None:
    pause = Pause()
    client = client_of(stage, ScriptedModel([pause, "never"]))
    tasks = [asyncio.create_task(client.execute("Hi")) for _ in range(3)]
    await pause.reached()
    await soon(client.dispose())
    for task in tasks:
        try:
            answer = await soon(task)
            assert answer.kind == "cancelled"
        except Exception as error:
            assert type(error).__name__ == "ClientDisposed"  # noqa: PT017 - either tells it


# -- tools


async def test_a_tool_that_says_nothing_does_not_leave_the_turn_hanging(stage: Stage) -> None:
    @tool
    def silent() -> None:
        """Say nothing."""

    client = client_of(stage, ScriptedModel(call("silent"), "Done."), tools=[silent])
    assert await soon(client.execute("Hi")) == "Done."
    check_valid(await client.session.history())


@pytest.mark.parametrize("made", [tool(timeout=None), tool], ids=["of no timeout", "plain"])
async def test_a_tool_that_never_ends_times_out_with_a_result(stage: Stage, made: Any) -> None:
    @made
    async def endless() -> str:
        """Never end."""
        await asyncio.Event().wait()
        return "never"

    model = ScriptedModel(call("endless"), "It takes too long.")
    client = client_of(stage, model, tools=[endless], tool_timeout=0.02)
    assert await soon(client.execute("Hi"), 5) == "It takes too long."
    history = await client.session.history()
    check_valid(history)
    assert "0.02" in history[2].text


async def test_a_route_that_comes_back_to_an_agent_in_one_turn_ends(stage: Stage) -> None:
    there = [call("transfer_to_b"), call("transfer_to_b"), "from a"]
    back = [call("transfer_to_a"), "from b"]
    a = Agent(name="a", model=ScriptedModel(*there), handoffs=["b"])
    b = Agent(name="b", model=ScriptedModel(*back), handoffs=["a"])
    runtime = stage.runtime(Swarm(SWARM, agents=[a, b]))
    client = runtime.client_session("ann", SWARM)
    answer = await soon(client.execute("Hi"))
    assert (answer, answer.agent) == ("from b", "b")
    assert client.route == []
    history = await client.session.history()
    check_valid(history)
    assert "a -> b -> a" in str([message.text for message in history])


async def test_a_tool_that_changes_the_agent_in_a_circle_gets_an_error(stage: Stage) -> None:
    errors: list[Exception] = []

    @tool
    async def circle() -> str:
        """Go round."""
        await client.change_agent("b")
        try:
            await client.change_agent("a")
        except NavigationError as error:
            errors.append(error)
        return "there"

    a = Agent(name="a", model=ScriptedModel(call("circle")), tools=[circle])
    runtime = stage.runtime(Swarm(SWARM, agents=[a, Agent(name="b", model=ScriptedModel("b!"))]))
    client = runtime.client_session("ann", SWARM)
    assert await soon(client.execute("Hi")) == "b!"
    assert len(errors) == 1


async def test_a_limit_of_no_tool_calls_offers_no_tools_and_runs_none(stage: Stage) -> None:
    model = ScriptedModel("Without tools.")
    client = client_of(stage, model, tools=[look], max_tool_calls=0)
    assert await client.execute("Hi") == "Without tools."
    assert list(model.last_request.tools) == []


async def test_a_model_that_calls_tools_that_it_was_not_offered_runs_none_and_ends(
    stage: Stage,
) -> None:
    ran: list[int] = []

    @tool
    def charge() -> str:
        """Charge."""
        ran.append(1)
        return "charged"

    model = ScriptedModel(call("charge"), "Without it.")
    client = client_of(stage, model, tools=[charge], max_tool_calls=0, rescue="placeholder")
    await soon(client.execute("Hi"))
    assert ran == []
    check_valid(await client.session.history())


async def test_tool_calls_over_the_limit_are_answered_and_do_not_run(stage: Stage) -> None:
    ran: list[str] = []

    @tool
    def charge(amount: int) -> str:
        """Charge."""
        ran.append(str(amount))
        return "charged"

    calls = [call("charge", amount=number) for number in range(4)]
    client = client_of(stage, ScriptedModel(calls, "Done."), tools=[charge], max_tool_calls=2)
    await soon(client.execute("Hi"))
    assert ran == ["0", "1"]
    check_valid(await client.session.history())


@pytest.mark.parametrize("keep", [0, -1])
async def test_an_agent_that_would_remember_nothing_is_refused_where_it_is_made(
    keep: int,
) -> None:
    with pytest.raises(InvalidInput, match="keep_last"):
        Agent(name="a", model=ScriptedModel(), keep_last=keep)


async def test_an_agent_that_remembers_one_message_still_gets_the_question(stage: Stage) -> None:
    model = ScriptedModel("one", call("look"), "two")
    agent = Agent(name="triage", model=model, tools=[look], keep_last=1)
    runtime = stage.runtime(Swarm(SWARM, agents=[agent]))
    client = runtime.client_session("ann", SWARM)
    await client.execute("First")
    await client.execute("Second")
    for request in model.requests[1:]:
        texts = [message.text for message in request.messages]
        assert "Second" in texts
        assert "First" not in texts
        check_valid(list(request.messages))


async def test_two_tool_calls_of_one_id_leave_a_valid_history(stage: Stage) -> None:
    twice = [ToolCall("same", "look", {"place": "up"}), ToolCall("same", "look", {"place": "down"})]
    model = ScriptedModel(twice, "Done.", "Next.")
    client = client_of(stage, model, tools=[look])
    assert await soon(client.execute("Hi")) == "Done."
    assert await soon(client.execute("And?")) == "Next."
    check_valid(await client.session.history())
    check_valid(list(model.last_request.messages))
    results = [m.text for m in await client.session.history() if m.role == "tool"]
    assert results == ["nothing up", "nothing down"]


async def test_a_tool_call_id_that_an_earlier_turn_had_leaves_a_valid_history(
    stage: Stage,
) -> None:
    model = ScriptedModel(
        ToolCall("same", "look", {"place": "up"}),
        "One.",
        ToolCall("same", "look", {"place": "down"}),
        "Two.",
    )
    client = client_of(stage, model, tools=[look])
    assert await soon(client.execute("Hi")) == "One."
    assert await soon(client.execute("And?")) == "Two."
    history = await client.session.history()
    check_valid(history)
    assert [m.text for m in history if m.role == "tool"] == ["nothing up", "nothing down"]


async def test_an_answer_with_braces_is_an_answer(stage: Stage) -> None:
    text = 'Use {"a": 1} and <b>{x}</b>.'
    answer = await client_of(stage, ScriptedModel(text)).execute("How?")
    assert (answer, answer.kind) == (text, "answer")


async def test_an_answer_of_nothing_can_be_told_from_an_answer(stage: Stage) -> None:
    client = client_of(stage, ScriptedModel("", "", "", "", "", ""))
    with pytest.raises(UnusableAnswer):
        await soon(client.execute("Hi"))
    assert await client.session.history() == []


async def test_a_nested_update_of_state_does_not_hang(stage: Stage) -> None:
    @tool
    async def count() -> str:
        """Count."""
        session = client.session

        async def outer(value: int | None) -> int:
            inner = await session.update_state("inner", lambda found: (found or 0) + 1)
            return (value or 0) + int(inner)

        return str(await session.update_state("outer", outer))

    client = client_of(stage, ScriptedModel(call("count"), "Done."), tools=[count])
    assert await soon(client.execute("Hi")) == "Done."


# -- ids


@pytest.mark.parametrize("client_id", ["", "\0"])
async def test_an_empty_client_id_is_refused_and_not_only_logged(
    stage: Stage, client_id: str
) -> None:
    runtime = stage.runtime(swarm_of(ScriptedModel()))
    with pytest.raises(InvalidInput):
        runtime.client_session(client_id, SWARM)
    with pytest.raises(InvalidInput):
        await runtime.swarm(SWARM).ban(client_id)


PATHS = ["../../etc/passwd", "/etc/passwd", "..", ".", "a/b", "a\\b", "C:\\x", "%2e%2e", "a b", "ü"]


class Files(SessionStore):
    """Documents as files that have the names that they are given, as a user would write it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, session_id: str, data: dict[str, Any]) -> None:
        (self.folder / f"{session_id}.json").write_text(json.dumps(data))

    def load(self, session_id: str) -> dict[str, Any] | None:
        path = self.folder / f"{session_id}.json"
        return json.loads(path.read_text()) if path.exists() else None

    def delete(self, session_id: str) -> bool:
        path = self.folder / f"{session_id}.json"
        there = path.exists()
        path.unlink(missing_ok=True)
        return there

    def list_sessions(self) -> list[str]:
        return [path.name.removesuffix(".json") for path in self.folder.glob("*.json")]


@pytest.mark.parametrize("kind", ["sqlite", "documents"])
@pytest.mark.parametrize("client_id", PATHS)
async def test_a_client_id_that_looks_like_a_path_stays_in_its_folder_and_is_itself(
    tmp_path: Path, kind: str, client_id: str
) -> None:
    folder = tmp_path / "inner" / "documents"
    folder.mkdir(parents=True)

    def opened() -> Runtime:
        store = SQLiteStore(folder / "x.db") if kind == "sqlite" else Files(folder)
        model = ScriptedModel("Hello.", "Still here.")
        return Runtime(store, swarms=[swarm_of(model, Without("acme"))])

    async with opened() as runtime:
        client = runtime.client_session(client_id, SWARM)
        assert await client.execute("Hi") == "Hello."
        await client.session.set_state("k", 1, scope="user")
        await runtime.swarm(SWARM).ban(client_id)
    async with opened() as runtime:
        client = runtime.client_session(client_id, SWARM)
        assert said(await client.session.history()) == [("user", "Hi"), ("assistant", "Hello.")]
        assert (await client.execute("Hi")).kind == "ban"
        assert [row.id for row in await runtime.sessions()] == [client_id]
    outside = [
        path for path in tmp_path.rglob("*") if path.is_file() and folder not in path.parents
    ]
    assert outside == []


async def test_clients_whose_ids_differ_only_in_their_case_or_form_are_others(
    tmp_path: Path,
) -> None:
    names = ["ann", "Ann", "ANN", "ann ", "\u00fc", "u\u0308"]
    model = ScriptedModel(*["Hello."] * len(names))
    async with Runtime(Files(tmp_path), swarms=[swarm_of(model)]) as runtime:
        for name in names:
            await runtime.client_session(name, SWARM).execute(f"I am {name!r}")
        for name in names:
            history = await runtime.client_session(name, SWARM).session.history()
            assert history[0].text == f"I am {name!r}"
            assert len(history) == 2
