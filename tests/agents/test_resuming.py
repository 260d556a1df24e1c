"""Going on with a turn that waits: through every door, with every end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from tests.agents.histories import bodies, check_valid, check_whole, kinds, said

from tertulia import Agent, AgentRouter, RunContext, Runtime, Session, tool
from tertulia.agents import streaming
from tertulia.agents.protocol import ModelEvent, ModelRequest, TextDelta, UsageReport
from tertulia.errors import (
    AccessDenied,
    InvalidInput,
    ModelError,
    SessionEnded,
    SessionNotFound,
    TurnTimeout,
    UsageError,
)
from tertulia.testing.models import Pause, ScriptedModel, call


@tool(requires_approval=True, read_only=True)
def ask(what: str = "") -> str:
    """Ask for something that needs consent, and changes nothing."""
    return f"got {what}"


@tool(requires_approval=True)
def pay(what: str = "") -> str:
    """Pay for something."""
    return f"paid {what}"


async def waiting(
    runtime: Runtime, *steps: Any, first: Any = None, tools: Any = (), **options: Any
) -> tuple[Session, ScriptedModel]:
    """A session whose turn was suspended, and whose calls are approved."""
    model = ScriptedModel(first or call("ask", what="x"), *steps)
    agent = Agent("ann", model, tools=[ask, pay, *tools], runtime=runtime)
    session = agent.session("s", **options)
    await session.run_async("Go")
    for each in session.pending:
        session.approve(each.id)
    return session, model


async def test_an_agent_resumes_the_session_that_it_is_given(runtime: Runtime) -> None:
    session, model = await waiting(runtime, "Done.")
    agent = Agent("ann", model, tools=[ask])
    response = await agent.resume(session)
    assert (response.text, response.agent) == ("Done.", "ann")
    with pytest.raises(UsageError, match="needs the session"):
        await agent.resume()


async def test_an_agent_resumes_its_own_session(runtime: Runtime) -> None:
    session = runtime.session("own")
    agent = Agent("ann", ScriptedModel(call("ask"), "Done."), tools=[ask], session=session)
    await agent.run("Go")
    session.approve(session.pending[0].id)
    assert (await agent.resume()).text == "Done."


async def test_options_of_the_resume_are_used(runtime: Runtime) -> None:
    session, model = await waiting(runtime, "7", system="Be brief.")
    response = await session.resume_async(temperature=0.5, max_tokens=3, output_type=int)
    assert response.output == 7
    request = model.last_request
    assert (request.temperature, request.max_tokens, request.system) == (0.5, 3, "Be brief.")
    with pytest.raises(InvalidInput, match="unknown options"):
        session.resume_async(wait=1)


async def test_what_is_not_there_cannot_be_resumed(runtime: Runtime) -> None:
    agent = Agent("ann", ScriptedModel("Hi."), tools=[ask], runtime=runtime)
    with pytest.raises(SessionNotFound):
        await agent.session("none").resume_async()
    assert await runtime.sessions() == []
    session = agent.session("s", user_id="kim")
    await session.run_async("Hi")
    with pytest.raises(AccessDenied):
        await agent.session("s", user_id="lee").resume_async()
    await session.end()
    with pytest.raises(SessionEnded):
        await session.resume_async()
    await check_whole(session)


async def test_a_turn_cannot_resume_itself(runtime: Runtime) -> None:
    @tool
    async def again(context: RunContext) -> str:
        """Resume from inside."""
        try:
            return str(await context.session.resume_async())
        except UsageError as error:
            return str(error)

    model = ScriptedModel(call("again"), "Done.")
    session = Agent(model=model, tools=[again], runtime=runtime).session()
    response = await session.run_async("Go")
    assert "in a turn of the calling code" in response.messages[2].text


async def test_while_the_turn_runs_here_a_resume_waits_as_long_as_it_may(
    runtime: Runtime,
) -> None:
    pause = Pause()
    session, _ = await waiting(runtime, [pause, "Done."])
    first = asyncio.ensure_future(session.resume_async())
    await pause.reached()
    with pytest.raises(TurnTimeout):
        await session.resume_async(timeout=0.01)
    pause.release()
    assert (await first).text == "Done."


@pytest.mark.parametrize("harmful", [False, True])
async def test_a_model_that_fails_after_the_resume_fails_the_turn(
    runtime: Runtime, harmful: bool
) -> None:
    first = call("pay" if harmful else "ask", what="x")
    session, _ = await waiting(runtime, ModelError("it broke"), "Next.", first=first)
    with pytest.raises(ModelError, match="it broke"):
        await session.resume_async()
    history = await check_whole(session)
    assert [text for _, text in said(history)] == (["Go", "", "paid x"] if harmful else [])
    assert (await kinds(session))[-1] == ("turn.interrupted" if harmful else "turn.failed")
    with pytest.raises(UsageError, match="nothing to resume"):
        await session.resume_async()
    assert (await session.run_async("More")).text == "Next."


async def test_a_resume_that_is_cancelled_interrupts_the_turn(runtime: Runtime) -> None:
    running = asyncio.Event()

    @tool(requires_approval=True)
    async def wait() -> str:
        """Wait for ever."""
        running.set()
        await asyncio.Event().wait()
        return "never"

    session, _ = await waiting(runtime, "Next.", first=call("wait"), tools=[wait])
    task = asyncio.ensure_future(session.resume_async())
    await running.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    history = await check_whole(session)
    assert (history[-1].metadata or {})["outcome"] == "unknown"
    assert (await kinds(session))[-1] == "turn.interrupted"
    assert (await session.run_async("More")).text == "Next."


async def test_a_resumed_turn_may_be_interrupted_by_another(runtime: Runtime) -> None:
    asked = asyncio.Event()

    async def stuck(request: ModelRequest) -> AsyncIterator[ModelEvent]:
        asked.set()
        await asyncio.Event().wait()
        yield TextDelta("never")

    session, model = await waiting(runtime, stuck, "Other.")
    task = asyncio.ensure_future(session.resume_async())
    await asked.wait()
    assert (await session.run_async("Now", busy="interrupt")).text == "Other."
    assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], Exception)
    history = await check_whole(session)
    assert [text for _, text in said(history)] == ["Go", "", "got x", "Now", "Other."]
    check_valid(model.last_request.messages)


async def test_usage_of_all_parts_is_in_the_audit(runtime: Runtime) -> None:
    session, _ = await waiting(
        runtime,
        [UsageReport(20, 2), "Done."],
        first=[UsageReport(10, 1), call("ask")],
    )
    await session.resume_async()
    used = [(body["input_tokens"], body["agent"]) for body in await bodies(session, "usage")]
    assert used == [(10, "ann"), (20, "ann")]


async def test_the_answer_counts_what_the_whole_turn_consumed(runtime: Runtime) -> None:
    session, _ = await waiting(
        runtime,
        [UsageReport(20, 2), "Done."],
        first=[UsageReport(10, 1), call("ask")],
    )
    response = await session.resume_async()
    assert (response.usage.requests, response.usage.input_tokens) == (2, 30)
    assert [made.name for made in response.tool_calls] == ["ask"]


async def test_a_router_resumes_with_the_agent_that_was_at_it(runtime: Runtime) -> None:
    def router(*steps: Any) -> AgentRouter:
        theirs = Agent("bob", ScriptedModel(*steps), tools=[ask])
        agents = [Agent("ann", ScriptedModel("Ann.")), theirs]
        return AgentRouter(agents, lambda text, given: "bob", runtime=runtime)

    await router(call("ask")).session("s").run_async("Go")
    session = router("Bob.").session("s")
    session.approve(session.pending[0].id)
    response = await session.resume_async()
    assert (response.text, response.agent) == ("Bob.", "bob")


async def test_an_agent_that_fails_after_the_resume_has_the_others_as_stand_ins(
    runtime: Runtime,
) -> None:
    theirs = ScriptedModel(call("ask"), ModelError("it broke"), ModelError("asked twice"))
    bob = Agent("bob", theirs, tools=[ask])
    ann = Agent("ann", ScriptedModel("Ann stands in."))
    session = AgentRouter([ann, bob], lambda text, given: "bob", runtime=runtime).session("s")
    await session.run_async("Go")
    session.approve(session.pending[0].id)
    response = await session.resume_async()
    assert (response.text, response.agent) == ("Ann stands in.", "ann")
    assert len(theirs.requests) == 2


@pytest.mark.parametrize("scope", ["session", "user", "app"])
async def test_state_set_before_is_read_after_and_written_at_the_end(
    runtime: Runtime, scope: str
) -> None:
    read: list[Any] = []

    @tool
    def write(context: RunContext) -> str:
        """Set one key, delete another."""
        context.session.set_state("k", {"n": [1]}, scope=scope)
        context.session.delete_state("gone", scope=scope)
        return "written"

    @tool
    def recall(context: RunContext) -> str:
        """Read both, and set it again."""
        state = context.session
        read.append((state.get_state("k", scope=scope), state.get_state("gone", scope=scope)))
        state.set_state("k", 2, scope=scope)
        return "read"

    agent = Agent("ann", ScriptedModel("Hi."), runtime=runtime)
    await agent.session("s", user_id="kim").run_async("Hi")
    await runtime.session("s").set_state("gone", "here", scope=scope)
    both = [call("write"), call("ask")]
    session, _ = await waiting(
        runtime, call("recall"), "Done.", first=both, tools=[write, recall], user_id="kim"
    )
    assert session.get_state("k", scope=scope) is None
    assert session.get_state("gone", scope=scope) == "here"
    assert session.state_keys(scope) == ["gone"]
    await session.resume_async()
    assert read == [({"n": [1]}, None)]
    assert session.get_state("k", scope=scope) == 2
    assert session.state_keys(scope) == ["k"]
    await check_whole(session)


async def test_shared_state_that_others_set_meanwhile_is_overwritten_at_the_end(
    runtime: Runtime,
) -> None:
    @tool
    def write(context: RunContext) -> str:
        """Set what the user shares."""
        context.state.user["k"] = "of the turn"
        return "written"

    both = [call("write"), call("ask")]
    session, _ = await waiting(runtime, "Done.", first=both, tools=[write], user_id="kim")
    other = runtime.session("other", user_id="kim")
    await other.set_state("k", "of another", scope="user")
    assert other.get_state("k", scope="user") == "of another"
    await session.resume_async()
    assert other.get_state("k", scope="user") == "of the turn"
    assert await session.verify()
    assert await other.verify()


async def test_an_update_at_once_before_the_suspension_is_not_undone_by_the_resume(
    runtime: Runtime,
) -> None:
    @tool
    async def add(context: RunContext) -> str:
        """Set, then add."""
        context.state.user["n"] = 1
        await context.session.send_message({"role": "user", "content": "between"})
        await context.session.update_state("n", lambda n: n + 1, scope="user")
        return "added"

    both = [call("add"), call("ask")]
    session, _ = await waiting(runtime, "Done.", first=both, tools=[add], user_id="kim")
    assert session.get_state("n", scope="user") == 2
    other = runtime.session("other", user_id="kim")
    await other.update_state("n", lambda n: n + 1, scope="user")
    await session.resume_async()
    assert session.get_state("n", scope="user") == 3


# -- synchronous doors


def test_resume_works_in_a_script_and_from_a_thread() -> None:
    model = ScriptedModel(call("ask", what="1"), "One.", call("ask", what="2"), "Two.")
    session = Agent(model=model, tools=[ask]).session()
    session.run("Go")
    session.approve(session.pending[0].id)
    assert session.resume().text == "One."
    session.run("Go")
    answers: list[str] = []

    def on_a_thread() -> None:
        session.approve(session.pending[0].id)
        answers.append(session.resume().text)

    thread = threading.Thread(target=on_a_thread)
    thread.start()
    thread.join()
    assert answers == ["Two."]
    assert [m.text for m in session.messages if m.role == "tool"] == ["got 1", "got 2"]


def test_of_many_threads_that_resume_one_does() -> None:
    session = Agent(model=ScriptedModel(call("ask"), "Done."), tools=[ask]).session()
    session.run("Go")
    session.approve(session.pending[0].id)

    def resume(_: int) -> str:
        try:
            return session.resume().text
        except UsageError as error:
            return str(error)

    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(resume, range(8)))
    assert told.count("Done.") == 1
    assert sum("nothing to resume" in text for text in told) == 7


@pytest.mark.parametrize("door", ["run", "json", "resume"])
async def test_a_synchronous_door_on_a_loop_warns_once_of_its_twin(
    runtime: Runtime, door: str
) -> None:
    streaming._warned.clear()  # pyright: ignore[reportPrivateUsage]
    session, _ = await waiting(runtime, '{"response": 1}', "2", "3")
    streaming._warned.clear()  # pyright: ignore[reportPrivateUsage]
    if door != "resume":
        await session.resume_async()

    def go() -> Any:
        if door == "resume":
            return session.resume()
        return session.run("Go") if door == "run" else session.json("Go", schema=int)

    with pytest.warns(RuntimeWarning, match=f"{door}_async") as caught:
        response = go()
    assert len(caught) == 1
    assert caught[0].filename == __file__
    with pytest.raises(UsageError, match=f"{door}_async"):
        await response
    if door != "resume":
        go()  # warnings are errors


async def test_run_sync_of_an_agent_names_run(runtime: Runtime) -> None:
    streaming._warned.clear()  # pyright: ignore[reportPrivateUsage]
    agent = Agent(model=ScriptedModel("Hi."), runtime=runtime)
    with pytest.warns(RuntimeWarning, match=r"agent\.run") as caught:
        assert agent.run_sync("Hi").text == "Hi."
    assert caught[0].filename == __file__


# -- who may go on, and with what


async def test_an_agent_that_the_turn_is_not_of_cannot_resume_it(tmp_path: Path) -> None:
    ran: list[str] = []

    def acting(name: str) -> Any:
        @tool(name="act", requires_approval=True)
        def act() -> str:
            """Act."""
            ran.append(name)
            return f"acted as {name}"

        return act

    mine = ScriptedModel(call("act"), "Ben is done.")
    theirs = ScriptedModel("Ann is done.")
    ben, ann = (
        Agent("ben", mine, tools=[acting("ben")]),
        Agent("ann", theirs, tools=[acting("ann")]),
    )
    address = f"sqlite:///{tmp_path / 'x.db'}"
    async with Runtime(address) as here, Runtime(address) as elsewhere:
        await ben.run("Go", here.session("s"))
        session = elsewhere.session("s")
        session.approve(session.pending[0].id)
        before = await kinds(session)
        with pytest.raises(UsageError, match="'ben'"):
            await ann.resume(session)
        assert (ran, theirs.requests) == ([], [])
        assert await kinds(session) == before
        response = await ben.resume(session)
        assert (response.text, response.agent, ran) == ("Ben is done.", "ben", ["ben"])
        await check_whole(session)


async def test_a_router_of_agents_without_names_does_not_guess_who_was_at_it(
    runtime: Runtime,
) -> None:
    first, second = ScriptedModel("One.", "Wrong."), ScriptedModel(call("pay", what="x"), "Two.")
    agents = [Agent(model=first, tools=[pay]), Agent(model=second, tools=[pay])]
    session = AgentRouter(agents, "round_robin", runtime=runtime).session("s")
    await session.run_async("Go")
    waiting = await session.run_async("More")
    session.approve(waiting.pending[0].id)
    with pytest.raises(UsageError, match="not known here"):
        await session.resume_async()
    assert (len(first.requests), len(second.requests)) == (1, 1)
    assert (await agents[1].resume(session)).text == "Two."
    assert [m.text for m in await check_whole(session) if m.role == "tool"] == ["paid x"]


class Bill(BaseModel):
    """An answer."""

    cents: int


async def test_what_a_turn_was_asked_with_is_there_when_it_goes_on(runtime: Runtime) -> None:
    model = ScriptedModel(call("pay", what="x"), Bill(cents=7))
    agent = Agent("ann", model, tools=[pay])
    session = Agent("ann", model, tools=[pay], runtime=runtime).session("s")
    options = {"temperature": 0.2, "max_tokens": 99, "max_context_tokens": 9_000}
    waiting = await session.json_async("Go", schema=Bill, **options)
    assert (waiting.pending[0].name, waiting.output) == ("pay", None)
    session.approve(waiting.pending[0].id)
    for attempt in (session.resume_async, lambda: agent.resume(session)):
        with pytest.raises(UsageError, match=r"Bill.*output_type="):
            await attempt()
        assert len(model.requests) == 1
        assert session.pending == []
    response = await session.resume_async(output_type=Bill)
    assert response.output == Bill(cents=7)
    request = model.last_request
    assert (request.temperature, request.max_tokens) == (0.2, 99)
    assert [m.text for m in await check_whole(session) if m.role == "tool"] == ["paid x"]


async def test_what_is_said_at_the_resume_comes_before_what_the_turn_was_asked_with(
    runtime: Runtime,
) -> None:
    model = ScriptedModel(call("pay"), "7")
    session = Agent("ann", model, tools=[pay], runtime=runtime).session("s")
    waiting = await session.run_async("Go", temperature=0.2, max_tokens=99)
    session.approve(waiting.pending[0].id)
    response = await session.resume_async(temperature=0.9, output_type=int)
    assert response.output == 7
    assert (model.last_request.temperature, model.last_request.max_tokens) == (0.9, 99)
