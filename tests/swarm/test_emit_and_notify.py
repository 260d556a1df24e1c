"""What goes out unasked: emit, notify, and the connectors that get it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.swarm.stage import SWARM, Heard, Stage, Without, asked, said, soon, swarm_of, until

from tertulia import Runtime, tool
from tertulia.bus import BusEvent
from tertulia.errors import ClientDisposed, InvalidInput, NotConnected, PolicyError
from tertulia.policies import BAN_MESSAGE, Policy, PolicyContext
from tertulia.swarm import ClientSession, Outgoing
from tertulia.testing import Pause, ScriptedModel, call


class Connected:
    """A connector that keeps what it got."""

    def __init__(self) -> None:
        self.got: list[Outgoing] = []

    def __call__(self, outgoing: Outgoing) -> None:
        self.got.append(outgoing)

    @property
    def texts(self) -> list[str]:
        return [outgoing.data for outgoing in self.got]


def open_client(
    stage: Stage, model: ScriptedModel, *policies: Policy, **options: Any
) -> tuple[Runtime, ClientSession]:
    runtime = stage.runtime(swarm_of(model, *policies, **options))
    return runtime, runtime.client_session("ann", SWARM)


# -- idle


async def test_what_is_emitted_while_nothing_runs_reaches_connectors_and_the_history(
    stage: Stage,
) -> None:
    model = ScriptedModel("Bye.")
    runtime, client = open_client(stage, model)
    connected, heard = Connected(), Heard()
    client.connect(connected)
    runtime.bus.listen("ann", "session.emit", heard)
    answer = await client.emit("We close in five minutes.")
    assert (answer, answer.emitted, answer.kind) == ("We close in five minutes.", True, "answer")
    assert connected.got == [Outgoing("We close in five minutes.", "triage", "ann")]
    assert said(await client.session.history()) == [("assistant", "We close in five minutes.")]
    await runtime.bus.drain()
    assert [event.input["message"] for event in heard.events] == ["We close in five minutes."]
    await client.execute("Thanks")
    assert "We close in five minutes." in asked(model)


async def test_what_is_emitted_to_nobody_is_in_the_history(stage: Stage) -> None:
    _, client = open_client(stage, ScriptedModel())
    await client.emit("Anybody?")
    assert said(await client.session.history()) == [("assistant", "Anybody?")]


async def test_on_emit_is_called_before_what_is_emitted_leaves(stage: Stage) -> None:
    order: list[str] = []

    def on_emit(client: ClientSession, event: BusEvent) -> None:
        order.append(event.input["message"])

    _, client = open_client(stage, ScriptedModel(), on_emit=on_emit)
    client.connect(lambda outgoing: order.append("connector"))
    await client.emit("Hello")
    assert order == ["Hello", "connector"]


@pytest.mark.parametrize("text", ["", "  ", None, 7, b"x"])
async def test_what_is_no_text_is_neither_emitted_nor_notified(stage: Stage, text: Any) -> None:
    _, client = open_client(stage, ScriptedModel())
    connected = Connected()
    client.connect(connected)
    for method in (client.emit, client.notify):
        with pytest.raises(InvalidInput):
            await method(text)
    assert (connected.got, await client.session.history()) == ([], [])


async def test_many_that_emit_at_once_are_all_heard_once(stage: Stage) -> None:
    _, client = open_client(stage, ScriptedModel())
    connected = Connected()
    client.connect(connected)
    texts = [f"note {number}" for number in range(20)]
    await asyncio.gather(*(client.emit(text) for text in texts))
    assert sorted(connected.texts) == sorted(texts)
    assert sorted(message.text for message in await client.session.history()) == sorted(texts)


# -- while an answer is awaited


async def test_what_is_emitted_while_an_answer_is_awaited_is_that_answer(stage: Stage) -> None:
    pause = Pause()
    model = ScriptedModel([pause, "the late answer"], "next")
    runtime, client = open_client(stage, model)
    connected, heard = Connected(), Heard()
    client.connect(connected)
    runtime.bus.listen("ann", "*", heard)
    task = asyncio.create_task(client.execute("Hi"))
    await pause.reached()
    await soon(client.emit("A person takes over."))
    answer = await soon(task)
    assert (answer, answer.emitted) == ("A person takes over.", True)
    pause.release()
    assert connected.texts == ["A person takes over."]
    assert said(await client.session.history()) == [
        ("user", "Hi"),
        ("assistant", "A person takes over."),
    ]
    assert await client.execute("And?") == "next"
    assert "late" not in asked(model)
    await runtime.bus.drain()
    assert "late" not in str([event.to_dict() for event in heard.events])


async def test_what_is_emitted_inside_of_a_tool_is_the_answer_after_its_round(
    stage: Stage,
) -> None:
    @tool
    async def escalate() -> str:
        """Escalate."""
        await client.emit("A person comes.")
        return "escalated"

    model = ScriptedModel(call("escalate"), "never said")
    _, client = open_client(stage, model, tools=[escalate])
    connected = Connected()
    client.connect(connected)
    answer = await soon(client.execute("Help"))
    assert (answer, answer.emitted) == ("A person comes.", True)
    assert connected.texts == ["A person comes."]
    assert len(model.requests) == 1
    history = await client.session.history()
    assert [message.role for message in history] == ["user", "assistant", "tool", "assistant"]
    assert history[-1].text == "A person comes."


async def test_send_hands_what_was_emitted_instead_to_its_connector_only_once(
    stage: Stage,
) -> None:
    @tool
    async def escalate() -> str:
        """Escalate."""
        await client.emit("A person comes.")
        return "escalated"

    _, client = open_client(stage, ScriptedModel(call("escalate"), "x"), tools=[escalate])
    connected = Connected()
    send = client.connect(connected)
    assert await soon(send("Help")) == "A person comes."
    assert connected.texts == ["A person comes."]


async def test_a_ban_message_that_was_emitted_instead_reaches_a_connector_only_once(
    stage: Stage,
) -> None:
    pause = Pause()
    _, client = open_client(stage, ScriptedModel([pause, "x"]), Without("acme"))
    connected = Connected()
    send = client.connect(connected)
    task = asyncio.create_task(send("Help"))
    await pause.reached()
    emitted = await soon(client.emit("Go to acme."))
    answer = await soon(task)
    assert (emitted, answer) == (BAN_MESSAGE, BAN_MESSAGE)
    assert (answer.kind, answer.emitted) == ("ban", True)
    assert connected.texts == [BAN_MESSAGE]


async def test_what_is_emitted_while_another_turn_waits_ends_only_the_one_that_runs(
    stage: Stage,
) -> None:
    pause = Pause()
    _, client = open_client(stage, ScriptedModel([pause, "late"], "second"))
    first = asyncio.create_task(client.execute("One"))
    await pause.reached()
    second = asyncio.create_task(client.execute("Two"))
    await asyncio.sleep(0)
    await soon(client.emit("Instead."))
    assert (await soon(first), await soon(second)) == ("Instead.", "second")


async def test_what_is_emitted_at_the_end_of_a_turn_is_said_once_and_lost_never(
    stage: Stage,
) -> None:
    for number in range(20):
        runtime = stage.runtime(swarm_of(ScriptedModel("the answer")))
        client = runtime.client_session(f"c{number}", SWARM)
        connected = Connected()
        client.connect(connected)
        task = asyncio.create_task(client.execute("Hi"))
        for _ in range(number):
            await asyncio.sleep(0)
        await soon(client.emit("Emitted."))
        await soon(task)
        texts = [message.text for message in await client.session.history()]
        assert texts.count("Emitted.") == 1
        assert connected.texts == ["Emitted."]
        await runtime.close()


@pytest.mark.parametrize("behind", ["execute", "commit_user_message"])
async def test_what_is_emitted_is_said_once_where_others_write_right_behind_the_turn(
    stage: Stage, behind: str
) -> None:
    pause = Pause()
    _, client = open_client(stage, ScriptedModel([pause, "late"], "second"))
    first = asyncio.create_task(client.execute("One"))
    await pause.reached()
    other = asyncio.create_task(getattr(client, behind)("By the way"))
    await until(lambda: client._desk.conversation.gate.waiting == 1)  # pyright: ignore[reportPrivateUsage]
    await soon(client.emit("Instead."))
    assert await soon(first) == "Instead."
    await soon(other)
    texts = [message.text for message in await client.session.history()]
    assert texts[:3] == ["One", "Instead.", "By the way"]
    assert texts.count("Instead.") == 1


async def test_what_is_emitted_is_said_once_where_the_turn_is_slow_to_stop(stage: Stage) -> None:
    running, stopped, may_end = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @tool
    async def stubborn() -> str:
        """Do not stop at once."""
        running.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
            await may_end.wait()
        return "never"

    _, client = open_client(stage, ScriptedModel(call("stubborn"), "late"), tools=[stubborn])
    connected = Connected()
    client.connect(connected)
    turn = asyncio.create_task(client.execute("Hi"))
    await soon(running.wait())
    emitting = asyncio.create_task(client.emit("Instead."))
    await soon(stopped.wait())
    assert not emitting.done()  # it waits for the turn, however long that takes to stop
    may_end.set()
    await soon(emitting)
    assert await soon(turn) == "Instead."
    texts = [message.text for message in await client.session.history()]
    assert texts.count("Instead.") == 1
    assert connected.texts == ["Instead."]


def waiting_for_approval(stage: Stage, *answers: str) -> tuple[ClientSession, list[str]]:
    ran: list[str] = []

    @tool(requires_approval=True)
    async def pay() -> str:
        """Pay."""
        ran.append("pay")
        return "paid"

    _, client = open_client(stage, ScriptedModel(call("pay"), *answers), tools=[pay])
    return client, ran


async def test_what_is_emitted_while_a_call_waits_for_approval_leaves_the_approval(
    stage: Stage,
) -> None:
    client, ran = waiting_for_approval(stage, "It is done.")
    connected = Connected()
    client.connect(connected)
    waiting = (await client.execute("Pay")).pending
    await client.emit("Still waiting.")
    assert connected.texts == ["Still waiting."]
    assert client.session.pending == waiting
    await client.session.approve(waiting[0].id)
    assert await client.resume() == "It is done."
    assert ran == ["pay"]
    history = await client.session.history()
    assert said(history)[2:] == [
        ("tool", "paid"),
        ("assistant", "Still waiting."),
        ("assistant", "It is done."),
    ]


async def test_what_is_emitted_while_a_call_waits_is_kept_where_nobody_approves(
    stage: Stage,
) -> None:
    client, ran = waiting_for_approval(stage, "next")
    await client.execute("Pay")
    await client.emit("Still waiting.")
    assert await client.session.run_async("Never mind", busy="interrupt") is not None
    history = await client.session.history()
    assert [text for role, text in said(history) if role == "assistant"][1:] == [
        "Still waiting.",
        "next",
    ]
    assert ran == []
    assert (await client.session.verify()).ok


# -- policies


async def test_a_refused_emission_is_the_ban_message_everywhere_but_in_the_audit(
    stage: Stage,
) -> None:
    _, client = open_client(stage, ScriptedModel(), Without("acme"))
    connected = Connected()
    client.connect(connected)
    answer = await client.emit("Go to acme.")
    assert (answer, answer.kind) == (BAN_MESSAGE, "ban")
    assert answer.verdict is not None
    assert answer.verdict.policy == "without-acme"
    assert connected.texts == [BAN_MESSAGE]
    history = await client.session.history()
    assert said(history) == [("assistant", BAN_MESSAGE)]
    assert history[0].metadata == {"kind": "ban", "policy": "without-acme", "emitted": True}
    events = await client.session.events()
    assert [event.type for event in events if "Go to acme." in str(event.body)] == [
        "policy.checked"
    ]


async def test_a_policy_that_raises_lets_nothing_out(stage: Stage) -> None:
    class Broken(Policy):
        def validate_output(self, text: str, context: PolicyContext, /) -> bool:
            raise ZeroDivisionError

    _, client = open_client(stage, ScriptedModel(), Broken())
    connected = Connected()
    client.connect(connected)
    for method in (client.emit, client.notify):
        with pytest.raises(PolicyError):
            await method("secret")
    assert (connected.got, await client.session.history()) == ([], [])


async def test_what_a_policy_emits_while_it_looks_at_an_answer_is_not_lost(stage: Stage) -> None:
    class Telling(Policy):
        async def validate_output(self, text: str, context: PolicyContext, /) -> bool:
            if text != "A moment.":
                await client.emit("A moment.")
            return True

    _, client = open_client(stage, ScriptedModel("the answer"), Telling())
    connected = Connected()
    client.connect(connected)
    await soon(client.execute("Hi"))
    assert connected.texts == ["A moment."]
    assert "A moment." in [message.text for message in await client.session.history()]


# -- notify


async def test_what_is_notified_reaches_connectors_and_the_bus_but_not_the_history(
    stage: Stage,
) -> None:
    runtime, client = open_client(stage, ScriptedModel())
    connected, heard = Connected(), Heard()
    client.connect(connected)
    runtime.bus.listen("ann", "session.notify", heard)
    assert await client.notify("Somebody types …") == "Somebody types …"
    assert connected.texts == ["Somebody types …"]
    assert await client.session.history() == []
    await runtime.bus.drain()
    assert [event.input["message"] for event in heard.events] == ["Somebody types …"]


async def test_a_notice_to_nobody_is_an_error_that_says_what_to_do(stage: Stage) -> None:
    _, client = open_client(stage, ScriptedModel())
    with pytest.raises(NotConnected, match="connect"):
        await client.notify("Hello?")
    send = client.connect(Connected())
    send.close()
    with pytest.raises(NotConnected):
        await client.notify("Hello?")


async def test_a_refused_notice_is_the_ban_message_and_in_the_audit(stage: Stage) -> None:
    _, client = open_client(stage, ScriptedModel(), Without("acme"))
    connected = Connected()
    client.connect(connected)
    assert (await client.notify("acme!")).kind == "ban"
    assert connected.texts == [BAN_MESSAGE]
    assert len(await client.session.events(types=["policy.checked"])) == 1
    assert await client.session.history() == []


async def test_a_notice_goes_out_while_a_turn_runs_and_does_not_touch_it(stage: Stage) -> None:
    pause = Pause()
    _, client = open_client(stage, ScriptedModel([pause, "the answer"]))
    connected = Connected()
    client.connect(connected)
    task = asyncio.create_task(client.execute("Hi"))
    await pause.reached()
    await soon(client.notify("One moment."))
    assert connected.texts == ["One moment."]
    pause.release()
    assert await soon(task) == "the answer"


# -- connectors


async def test_sync_and_async_connectors_get_the_same(stage: Stage) -> None:
    _, client = open_client(stage, ScriptedModel())
    plain, waited = Connected(), Connected()

    async def waits(outgoing: Outgoing) -> None:
        await asyncio.sleep(0)
        waited(outgoing)

    client.connect(plain)
    client.connect(waits)
    await client.emit("Hello")
    assert plain.got == waited.got == [Outgoing("Hello", "triage", "ann")]


async def test_a_connector_that_raises_keeps_nobody_else_from_hearing(stage: Stage) -> None:
    _, client = open_client(stage, ScriptedModel("fine"))
    connected = Connected()

    def broken(outgoing: Outgoing) -> None:
        raise ConnectionResetError("gone")

    client.connect(broken)
    client.connect(connected)
    with pytest.raises(ConnectionResetError, match="gone"):
        await client.emit("Hello")
    assert connected.texts == ["Hello"]
    assert said(await client.session.history()) == [("assistant", "Hello")]
    assert await client.execute("Hi") == "fine"


async def test_a_connector_that_raises_in_send_raises_there_and_the_answer_is_kept(
    stage: Stage,
) -> None:
    _, client = open_client(stage, ScriptedModel("the answer"))

    async def broken(outgoing: Outgoing) -> None:
        raise ConnectionResetError("gone")

    send = client.connect(broken)
    with pytest.raises(ConnectionResetError):
        await send("Hi")
    assert said(await client.session.history()) == [("user", "Hi"), ("assistant", "the answer")]


async def test_send_executes_hands_the_answer_to_its_own_connector_and_returns_it(
    stage: Stage,
) -> None:
    _, client = open_client(stage, ScriptedModel("the answer"))
    mine, other = Connected(), Connected()
    send = client.connect(mine)
    client.connect(other)
    assert await send("Hi") == "the answer"
    assert mine.got == [Outgoing("the answer", "triage", "ann")]
    assert other.got == []


async def test_execute_calls_no_connector(stage: Stage) -> None:
    _, client = open_client(stage, ScriptedModel("the answer"))
    connected = Connected()
    client.connect(connected)
    await client.execute("Hi")
    assert connected.got == []


async def test_send_hands_a_ban_message_to_its_connector(stage: Stage) -> None:
    _, client = open_client(stage, ScriptedModel(), Without("acme"))
    connected = Connected()
    send = client.connect(connected)
    assert (await send("acme")).kind == "ban"
    assert connected.texts == [BAN_MESSAGE]


async def test_a_turn_that_was_cancelled_calls_no_connector(stage: Stage) -> None:
    pause = Pause()
    _, client = open_client(stage, ScriptedModel([pause, "x"]))
    connected = Connected()
    send = client.connect(connected)
    task = asyncio.create_task(send("Hi"))
    await pause.reached()
    await soon(client.cancel())
    assert (await soon(task)).kind == "cancelled"
    assert connected.got == []


async def test_a_connector_that_was_disconnected_hears_nothing_more(stage: Stage) -> None:
    _, client = open_client(stage, ScriptedModel())
    first, second = Connected(), Connected()
    send = client.connect(first)
    client.connect(second)
    send.close()
    send.close()
    await client.emit("Hello")
    assert (first.got, second.texts) == ([], ["Hello"])


async def test_a_connector_that_says_something_itself_does_not_hang(stage: Stage) -> None:
    _, client = open_client(stage, ScriptedModel("the answer", "again"))
    told: list[str] = []

    async def talks(outgoing: Outgoing) -> None:
        if not told:
            told.append(outgoing.data)
            told.append(await client.execute("And?"))

    send = client.connect(talks)
    assert await soon(send("Hi")) == "the answer"
    assert told == ["the answer", "again"]


async def test_connecting_tells_the_bus_and_the_callback_once(stage: Stage) -> None:
    connects: list[str] = []

    def on_connect(client: ClientSession, event: BusEvent) -> None:
        connects.append(event.topic)

    runtime, client = open_client(stage, ScriptedModel(), on_connect=on_connect)
    heard = Heard()
    runtime.bus.listen("ann", "session.connect", heard)
    send = client.connect(Connected())
    await send
    await client.emit("Hello")
    await runtime.bus.drain()
    assert (connects, heard.topics) == (["session.connect"], ["session.connect"])
    assert client.connected


@pytest.mark.parametrize("connector", [None, "print", 7, []])
async def test_what_cannot_be_called_is_no_connector(stage: Stage, connector: Any) -> None:
    _, client = open_client(stage, ScriptedModel())
    with pytest.raises(InvalidInput):
        client.connect(connector)
    assert not client.connected


async def test_nothing_goes_out_after_the_disposal(stage: Stage) -> None:
    _, client = open_client(stage, ScriptedModel("x"))
    connected = Connected()
    send = client.connect(connected)
    await client.dispose()
    with pytest.raises(ClientDisposed):
        await client.emit("Hello")
    with pytest.raises(ClientDisposed):
        await send("Hi")
    with pytest.raises(ClientDisposed):
        client.connect(connected)
    assert connected.got == []


async def test_what_a_fresh_instance_emits_inside_of_a_turn_of_the_old_one_is_kept(
    stage: Stage,
) -> None:
    @tool
    async def restart() -> str:
        """Restart."""
        await client.dispose()
        emitted.append(await runtime.client_session("ann", SWARM).emit("Welcome back."))
        return "restarted"

    emitted: list[str] = []
    runtime, client = open_client(stage, ScriptedModel(call("restart"), "x"), tools=[restart])
    assert (await soon(client.execute("Hi"))).kind == "cancelled"
    history = await runtime.client_session("ann", SWARM).session.history()
    assert [text for _, text in said(history) if text == "Welcome back."] == emitted
    assert (await client.session.verify()).ok
