"""Tools of a swarm's agents: their time, their number, what they may do, and who approves them."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from tests.agents.histories import bodies, check_whole
from tests.swarm.crews import Crew
from tests.swarm.stage import SWARM, Heard, Stage, Without, asked, soon, swarm_of, until

from tertulia import Agent, Memory, RunContext, Swarm, tool
from tertulia.errors import ApprovalPending, InvalidMessage, UsageError
from tertulia.swarm import ClientSession, Rescue
from tertulia.testing import ScriptedModel, call

ENDED = "no result after"


def client_of(
    stage: Stage, model: ScriptedModel, *tools: Any, client_id: str = "ann", **options: Any
) -> ClientSession:
    return stage.runtime(swarm_of(model, tools=tools, **options)).client_session(client_id, SWARM)


async def results(client: ClientSession) -> list[str]:
    """What the tools gave, as the history has it."""
    return [m.text for m in await check_whole(client.session) if m.role == "tool"]


# -- time


async def test_a_tool_that_never_returns_is_ended_by_the_swarm(stage: Stage) -> None:
    @tool(timeout=None)
    async def wait_for_ever() -> str:
        """Wait."""
        await asyncio.Event().wait()
        return "never"

    model = ScriptedModel(call("wait_for_ever"), "I could not.", "Next.")
    client = client_of(stage, model, wait_for_ever, tool_timeout=0.05)
    assert await soon(client.execute("Hello")) == "I could not."
    [result] = await results(client)
    assert ENDED in result
    assert ENDED in asked(model)
    assert await soon(client.execute("More")) == "Next."


async def test_a_tool_on_a_thread_that_never_returns_is_left_behind(stage: Stage) -> None:
    let_go = threading.Event()

    @tool(timeout=None)
    def block() -> str:
        """Block."""
        let_go.wait()
        return "late"

    client = client_of(stage, ScriptedModel(call("block"), "On."), block, tool_timeout=0.05)
    try:
        assert await soon(client.execute("Hello")) == "On."
        assert "outcome is unknown" in (await results(client))[0]
    finally:
        let_go.set()


async def test_a_timeout_of_its_own_counts_for_a_tool(stage: Stage) -> None:
    go_on = asyncio.Event()

    @tool(timeout=30)
    async def slow() -> str:
        """Take longer than the swarm allows others."""
        asyncio.get_running_loop().call_later(0.1, go_on.set)
        await go_on.wait()
        return "done"

    client = client_of(stage, ScriptedModel(call("slow"), "On."), slow, tool_timeout=0.01)
    await soon(client.execute("Hello"))
    assert await results(client) == ["done"]


# -- number


class Counted:
    """A tool that counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

        @tool(read_only=True)
        def look(context: RunContext) -> str:
            """Look."""
            self.calls += 1
            return f"seen {self.calls}"

        self.tool = look


@pytest.mark.parametrize("allowed", [0, 1, 2, 5])
async def test_no_more_tools_run_in_a_turn_than_allowed(stage: Stage, allowed: int) -> None:
    counted = Counted()
    model = ScriptedModel([call("look")] * 2, call("look"), "Enough.")
    client = client_of(
        stage, model, counted.tool, max_tool_calls=allowed, rescue=Rescue(retries=10)
    )
    assert await client.execute("Hello") == "Enough."
    ran = min(allowed, 3)
    assert counted.calls == ran
    given = await results(client)
    assert [text.startswith("seen") for text in given].count(True) == ran
    assert all("no more tool calls" in text for text in given if not text.startswith("seen"))


async def test_the_calls_are_counted_anew_in_each_turn(stage: Stage) -> None:
    counted = Counted()
    model = ScriptedModel(call("look"), "One.", call("look"), "Two.")
    client = client_of(stage, model, counted.tool, max_tool_calls=1)
    await client.execute("Hello")
    await client.execute("More")
    assert counted.calls == 2


async def test_calls_that_were_refused_are_no_failures_of_tools(stage: Stage) -> None:
    counted = Counted()
    model = ScriptedModel(call("look"), "Enough.")
    client = client_of(stage, model, counted.tool, max_tool_calls=0, rescue="raise")
    assert await client.execute("Hello") == "Enough."
    assert await bodies(client.session, "rescue") == []


async def test_transfers_are_not_counted(stage: Stage) -> None:
    counted = Counted()
    crew = Crew(stage, tools=[counted.tool], max_tool_calls=1)
    crew.script(triage=call("transfer_to_sales"), sales=(call("look"), call("look"), "Ten."))
    answer = await crew.client().execute("Price?")
    assert (answer, answer.agent) == ("Ten.", "sales")
    assert counted.calls == 1


async def test_without_a_number_tools_run_as_often_as_they_are_called(stage: Stage) -> None:
    counted = Counted()
    client = client_of(stage, ScriptedModel([call("look")] * 20, "Enough."), counted.tool)
    await client.execute("Hello")
    assert counted.calls == 20


async def test_calls_of_executions_inside_of_a_tool_count_too(stage: Stage) -> None:
    counted = Counted()
    client: ClientSession

    @tool
    async def nest(context: RunContext) -> str:
        """Ask the agent something."""
        return await client.execute("Inner")

    model = ScriptedModel(call("nest"), [call("look")] * 2, "Inner.", "Outer.")
    client = client_of(stage, model, counted.tool, nest, max_tool_calls=2)
    assert await client.execute("Hello") == "Outer."
    assert counted.calls == 1


async def test_calls_are_counted_on_when_a_turn_is_resumed(stage: Stage) -> None:
    counted = Counted()
    ran: list[str] = []
    first = [call("look"), call("refund", what="shoes")]
    model = ScriptedModel(first, [call("look")] * 2, "Enough.")
    client = client_of(stage, model, counted.tool, refund_tool(ran), max_tool_calls=3)
    waiting = await client.execute("Money back")
    client.session.approve(waiting.pending[0].id)
    assert await client.resume() == "Enough."
    assert (ran, counted.calls) == (["shoes"], 2)


async def test_calls_that_wait_for_an_approval_are_counted(stage: Stage) -> None:
    ran: list[str] = []
    calls = [call("refund", what="shoes"), call("refund", what="socks")]
    client = client_of(stage, ScriptedModel(calls, "Done."), refund_tool(ran), max_tool_calls=1)
    waiting = await client.execute("Money back")
    assert [each.arguments for each in waiting.pending] == [{"what": "shoes"}]


# -- what tools may do with their client


async def test_a_tool_may_commit_its_output_itself(stage: Stage) -> None:
    client: ClientSession

    @tool
    async def answer_early(context: RunContext) -> str:
        """Write the result before it returns."""
        await client.commit_tool_output(context.key.rpartition(":")[2], "early")
        return "late"

    model = ScriptedModel(call("answer_early"), "Fine.")
    client = client_of(stage, model, answer_early)
    assert await client.execute("Hello") == "Fine."
    assert await results(client) == ["early"]
    assert "late" not in asked(model)


async def test_a_tool_knows_the_id_of_its_call(stage: Stage) -> None:
    client: ClientSession

    @tool
    async def look(context: RunContext) -> str:
        """Look."""
        await client.commit_tool_output(context.call_id, "seen")
        return "not this"

    def instructions(context: RunContext) -> str:
        outside.append(context.call_id)
        return "Look."

    outside: list[str] = []
    model = ScriptedModel(call("look"), "Done.")
    agent = Agent(name="triage", model=model, tools=[look], instructions=instructions)
    client = stage.runtime(Swarm(SWARM, agents=[agent])).client_session("ann", SWARM)
    await client.execute("Hello")
    assert await results(client) == ["seen"]
    assert set(outside) == {""}


async def test_the_output_of_a_call_that_is_not_open_is_refused(stage: Stage) -> None:
    client = client_of(stage, ScriptedModel("Fine."))
    await client.execute("Hello")
    with pytest.raises(InvalidMessage):
        await client.commit_tool_output("call_1", "late")
    await check_whole(client.session)


async def test_a_tool_may_execute_and_its_answer_is_a_part_of_the_turn(stage: Stage) -> None:
    client: ClientSession

    @tool
    async def ask_again() -> str:
        """Ask the swarm something."""
        return f"it says {await client.execute('Inner?', 'tool')}"

    model = ScriptedModel(call("ask_again"), "Inner answer.", "Outer answer.")
    client = client_of(stage, model, ask_again)
    answer = await soon(client.execute("Outer?"))
    assert (answer, answer.kind) == ("Outer answer.", "answer")
    assert len(await client.session.events(types="turn.started")) == 1
    assert "it says Inner answer." in await results(client)
    await check_whole(client.session)


@pytest.mark.parametrize("most", [0, 1, 3])
async def test_executions_inside_of_a_turn_are_limited(stage: Stage, most: int) -> None:
    client: ClientSession
    refused: list[UsageError] = []

    @tool
    async def ask_often() -> str:
        """Ask more often than allowed."""
        for _ in range(most):
            await client.execute("Inner?", "tool")
        try:
            await client.execute("Inner?", "tool")
        except UsageError as error:
            refused.append(error)
        return "done"

    model = ScriptedModel(call("ask_often"), *["Inner."] * most, "Outer.")
    client = client_of(stage, model, ask_often, max_nested=most)
    assert await soon(client.execute("Outer?")) == "Outer."
    assert len(refused) == 1
    assert f"more than {most} executions" in str(refused[0])
    await check_whole(client.session)


async def test_a_tool_that_calls_itself_by_way_of_execute_comes_to_an_end(stage: Stage) -> None:
    client: ClientSession

    @tool
    async def deeper() -> str:
        """Ask the swarm, which calls this again."""
        return str(await client.execute("Deeper", "tool"))

    model = ScriptedModel(*[call("deeper")] * 4, *["Up."] * 20)
    client = client_of(stage, model, deeper, max_nested=3, rescue=Rescue(retries=10))
    answer = await soon(client.execute("Outer?"))
    assert answer.kind == "answer"
    assert model.remaining > 0
    await check_whole(client.session)


async def test_a_tool_that_fails_tells_the_model_and_the_turn_goes_on(stage: Stage) -> None:
    @tool
    def fail() -> str:
        """Fail."""
        raise LookupError("nothing there")

    model = ScriptedModel(call("fail"), "Sorry.")
    client, heard = client_of(stage, model, fail), Heard()
    client.listen("tool.*", heard)
    assert await client.execute("Hello") == "Sorry."
    assert await results(client) == ["Error: LookupError: nothing there"]
    await until(lambda: len(heard.events) >= 2)
    assert heard.topics == ["tool.call", "tool.error"]
    assert "nothing there" in heard.events[-1].output["error"]


async def test_of_calls_at_once_those_that_do_not_fail_have_their_results(stage: Stage) -> None:
    @tool
    def divide(by: int) -> str:
        """Divide ten."""
        return str(10 // by)

    model = ScriptedModel([call("divide", by=n) for n in (5, 0, 2)], "So.")
    client = client_of(stage, model, divide)
    assert await client.execute("Hello") == "So."
    given = {m.tool_call_id: m.text for m in await check_whole(client.session) if m.role == "tool"}
    assert [given[f"call_{n}"][:6] for n in (1, 2, 3)] == ["2", "Error:", "5"]


# -- approvals


def refund_tool(ran: list[str]) -> Any:
    @tool(requires_approval=True)
    def refund(what: str) -> str:
        """Give money back."""
        ran.append(what)
        return f"refunded {what}"

    return refund


async def test_a_call_that_needs_approval_gives_an_answer_that_waits(stage: Stage) -> None:
    ran: list[str] = []
    model = ScriptedModel(call("refund", what="shoes"), "You have it back.")
    client = client_of(stage, model, refund_tool(ran))
    waiting = await client.execute("Money back")
    assert (waiting, waiting.kind) == ("", "pending")
    assert [(each.name, each.arguments) for each in waiting.pending] == [
        ("refund", {"what": "shoes"})
    ]
    assert ran == []
    client.session.approve(waiting.pending[0].id)
    answer = await client.resume()
    assert (answer, answer.kind, answer.turn) == ("You have it back.", "answer", waiting.turn)
    assert ran == ["shoes"]
    assert await results(client) == ["refunded shoes"]


async def test_what_a_tool_says_while_another_call_waits_is_kept(stage: Stage) -> None:
    client: ClientSession

    @tool
    async def tell() -> str:
        """Say how it goes."""
        await client.emit("I am at it.")
        return "told"

    ran: list[str] = []
    model = ScriptedModel([call("tell"), call("refund", what="shoes")], "You have it back.")
    client = client_of(stage, model, tell, refund_tool(ran))
    waiting = await client.execute("Money back")
    assert waiting.kind == "pending"
    client.session.approve(waiting.pending[0].id)
    assert await client.resume() == "You have it back."
    history = await check_whole(client.session)
    assert [(m.role, m.text) for m in history][2:] == [
        ("tool", "told"),
        ("tool", "refunded shoes"),
        ("assistant", "I am at it."),
        ("assistant", "You have it back."),
    ]
    assert (history[-2].metadata or {})["kind"] == "emit"


async def test_a_call_that_was_rejected_does_not_run(stage: Stage) -> None:
    ran: list[str] = []
    model = ScriptedModel(call("refund", what="shoes"), "I may not.")
    client = client_of(stage, model, refund_tool(ran))
    waiting = await client.execute("Money back")
    client.session.reject(waiting.pending[0].id, "too late")
    assert await client.resume() == "I may not."
    assert ran == []
    assert "too late" in (await results(client))[0]


@pytest.mark.parametrize("policy", ["*", "polite"])
async def test_the_turn_of_a_client_that_was_banned_does_not_go_on(
    stage: Stage, policy: str
) -> None:
    ran: list[str] = []
    model = ScriptedModel(call("refund", what="shoes"), "You have it back.")
    swarm = swarm_of(model, Without("money", name="polite"), tools=[refund_tool(ran)])
    runtime = stage.runtime(swarm)
    client = runtime.client_session("ann", SWARM)
    waiting = await client.execute("It back")
    client.session.approve(waiting.pending[0].id)
    await runtime.swarm(SWARM).ban("ann", policy)
    answer = await client.resume()
    assert (answer.kind, answer.verdict and answer.verdict.banned) == ("ban", True)
    assert (ran, len(model.requests)) == ([], 1)
    assert "did not run" in (await results(client))[0]
    [*_, refused] = await bodies(client.session, "policy.checked")
    assert (refused["allowed"], refused["banned"]) == (False, True)


async def test_while_a_call_waits_other_messages_are_refused(stage: Stage) -> None:
    ran: list[str] = []
    model = ScriptedModel(call("refund", what="shoes"), "Done.")
    client = client_of(stage, model, refund_tool(ran))
    waiting = await client.execute("Money back")
    with pytest.raises(ApprovalPending):
        await client.execute("Hello?")
    with pytest.raises(ApprovalPending):
        await client.resume()
    client.session.approve(waiting.pending[0].id)
    assert await client.resume() == "Done."


async def test_a_turn_goes_on_after_a_restart_with_whoever_had_the_floor(durable: Stage) -> None:
    ran: list[str] = []
    crew = Crew(durable, tools=[refund_tool(ran)])
    crew.script(triage=call("transfer_to_refunds"), refunds=call("refund", what="shoes"))
    waiting = await crew.client().execute("Money back")
    assert waiting.kind == "pending"
    await crew.runtime.close()
    again = Crew(durable, tools=[refund_tool(ran)])
    client = await again.client()
    assert client.agent == "refunds"
    client.session.approve(client.session.pending[0].id)
    again.script(refunds="You have it back.")
    answer = await client.resume()
    assert (answer, answer.agent, ran) == ("You have it back.", "refunds", ["shoes"])
    assert again.models["triage"].requests == []
    await check_whole(client.session)


async def test_there_is_nothing_to_resume_where_no_turn_is_open(stage: Stage) -> None:
    client = client_of(stage, ScriptedModel("Hello."))
    await client.execute("Hi")
    with pytest.raises(UsageError):
        await client.resume()


# -- state and memory


@tool
def count(context: RunContext) -> str:
    """Count in every scope."""
    for scope in (context.state, context.state.user, context.state.app):
        scope["n"] = scope.get("n", 0) + 1
    return str(context.state["n"])


async def test_agents_of_a_client_share_its_state(stage: Stage) -> None:
    crew = Crew(stage, tools=[count])
    crew.script(
        triage=([call("count"), call("transfer_to_sales")],), sales=(call("count"), "Counted.")
    )
    client = crew.client()
    await client.execute("Count")
    assert client.agent == "sales"
    for scope in ("session", "user", "app"):
        assert client.session.get_state("n", scope=scope) == 2


async def test_clients_share_the_state_of_the_app_and_nothing_else(stage: Stage) -> None:
    crew = Crew(stage, tools=[count])
    for name in ("ann", "bob"):
        crew.script(triage=(call("count"), "Counted."))
        await crew.client(name).execute("Count")
    seen = {
        name: [
            crew.client(name).session.get_state("n", scope=s) for s in ("session", "user", "app")
        ]
        for name in ("ann", "bob")
    }
    assert seen == {"ann": [1, 1, 2], "bob": [1, 1, 2]}


async def test_clients_of_other_swarms_share_no_state(stage: Stage) -> None:
    models = [ScriptedModel(call("count"), "Counted.") for _ in range(2)]
    swarms = [swarm_of(m, tools=[count], name=f"s{n}") for n, m in enumerate(models)]
    runtime = stage.runtime(*swarms)
    for swarm in swarms:
        client = runtime.client_session("ann", swarm)
        await client.execute("Count")
        values = [client.session.get_state("n", scope=s) for s in ("session", "user", "app")]
        assert values == [1, 1, 1]


async def test_what_one_agent_remembers_of_a_client_another_one_finds(stage: Stage) -> None:
    @tool
    async def remember(context: RunContext, text: str) -> str:
        """Remember."""
        await context.session.memory.store("wish", text)
        return "remembered"

    @tool
    async def recall(context: RunContext) -> str:
        """Recall."""
        memory: Memory = context.session.memory
        return "; ".join(found.content for found in await memory.search("shoes"))

    crew = Crew(stage, tools=[remember, recall])
    crew.script(
        triage=([call("remember", text="She wants red shoes."), call("transfer_to_sales")],),
        sales=(call("recall"), "Red ones."),
    )
    client = crew.client()
    await client.execute("Shoes")
    assert "She wants red shoes." in await results(client)
    other = crew.client("bob")
    assert await other.session.memory.search("shoes") == []


async def test_an_update_inside_of_an_update_of_a_client_does_not_hang(stage: Stage) -> None:
    client: ClientSession
    refused: list[UsageError] = []

    async def function(old: int | None) -> int:
        try:
            await client.session.update_state("k", lambda inner: (inner or 0) + 1)
        except UsageError as error:
            refused.append(error)
        return (old or 0) + 10

    @tool
    async def nest(context: RunContext) -> str:
        """Update inside of an update."""
        return str(await context.session.update_state("k", function))

    model = ScriptedModel(call("nest"), "Done.")
    client = client_of(stage, model, nest)
    assert await soon(client.execute("Hello")) == "Done."
    assert await soon(client.session.update_state("k", function)) == 20
    assert len(refused) == 2
