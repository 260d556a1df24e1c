"""Disposal: once, from anywhere, and nothing is left."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
import sys
import weakref
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.swarm.stage import SWARM, Heard, Stage, said, soon, swarm_of, until

from tertulia import Runtime, doors, tool
from tertulia.bus import BusEvent
from tertulia.errors import ClientDisposed, PolicyError, TurnTimeout, UsageError
from tertulia.policies import Policy, PolicyContext
from tertulia.swarm import ClientSession, Outgoing, SessionPublicService
from tertulia.testing import Pause, ScriptedModel, call


class Disposals:
    """A callback that counts."""

    def __init__(self) -> None:
        self.events: list[BusEvent] = []

    async def __call__(self, client: ClientSession, event: BusEvent) -> None:
        await asyncio.sleep(0)
        self.events.append(event)

    def __len__(self) -> int:
        return len(self.events)


def open_client(
    stage: Stage, model: ScriptedModel, **options: Any
) -> tuple[Runtime, ClientSession, Disposals]:
    disposals = options.setdefault("on_dispose", Disposals())
    runtime = stage.runtime(swarm_of(model, **options))
    return runtime, runtime.client_session("ann", SWARM), disposals


def nothing(outgoing: Outgoing) -> None:
    """Take what goes out."""


# -- once


async def test_a_disposal_that_is_repeated_is_no_error_and_calls_back_once(stage: Stage) -> None:
    _, client, disposals = open_client(stage, ScriptedModel("a"))
    await client.execute("Hi")
    assert not client.disposed
    for _ in range(3):
        await soon(client.dispose())
    assert client.disposed
    assert [event.topic for event in disposals.events] == ["session.dispose"]


async def test_fifty_that_dispose_at_once_dispose_once_and_all_wait_for_the_end(
    stage: Stage,
) -> None:
    runtime, client, disposals = open_client(stage, ScriptedModel("a"))
    heard = Heard()
    runtime.bus.listen("*", "session.dispose", heard)
    await client.execute("Hi")

    async def dispose() -> int:
        await client.dispose()
        return len(disposals)

    assert set(await soon(asyncio.gather(*(dispose() for _ in range(50))))) == {1}
    await runtime.bus.drain()
    assert (len(disposals), heard.topics) == (1, ["session.dispose"])


async def test_a_caller_that_gives_up_waiting_does_not_stop_the_disposal(stage: Stage) -> None:
    held = Pause()

    async def on_dispose(client: ClientSession, event: BusEvent) -> None:
        await held.hold()

    _, client, _ = open_client(stage, ScriptedModel("a"), on_dispose=on_dispose)
    await client.execute("Hi")
    first = asyncio.create_task(client.dispose())
    await held.reached()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    second = asyncio.create_task(client.dispose())
    await asyncio.sleep(0)
    assert not second.done()
    held.release()
    await soon(second)


async def test_a_client_that_was_never_used_can_be_disposed(stage: Stage) -> None:
    runtime, client, disposals = open_client(stage, ScriptedModel())
    await soon(client.dispose())
    assert (client.disposed, runtime.client_sessions(), len(disposals)) == (True, [], 1)
    assert await runtime.sessions() == []


# -- in the middle


async def test_a_disposal_in_the_middle_of_a_turn_cancels_it_and_keeps_the_question(
    stage: Stage,
) -> None:
    pause = Pause()
    runtime, client, disposals = open_client(stage, ScriptedModel([pause, "never"], "next"))
    task = asyncio.create_task(client.execute("Hi"))
    await pause.reached()
    await soon(client.dispose())
    answer = await soon(task)
    assert (answer, answer.kind, len(disposals)) == ("", "cancelled", 1)
    again = runtime.client_session("ann", SWARM)
    assert await soon(again.execute("Again")) == "next"
    types = [event.type for event in await again.session.events()]
    assert types.count("turn.started") == types.count("turn.completed") + types.count(
        "turn.interrupted"
    )


async def test_a_disposal_in_the_middle_of_a_tool_stops_it_and_calls_back_once(
    stage: Stage,
) -> None:
    at_work, stopped = Pause(), asyncio.Event()

    @tool
    async def work() -> str:
        """Work for ever."""
        try:
            await at_work.hold()
        except asyncio.CancelledError:
            stopped.set()
            raise
        return "never"

    _, client, disposals = open_client(stage, ScriptedModel(call("work"), "never"), tools=[work])
    task = asyncio.create_task(client.execute("Hi"))
    await at_work.reached()
    await soon(client.dispose())
    assert (await soon(task)).kind == "cancelled"
    assert stopped.is_set()
    assert len(disposals) == 1


async def test_those_that_wait_behind_a_turn_are_answered_too_when_it_is_disposed(
    stage: Stage,
) -> None:
    pause = Pause()
    model = ScriptedModel([pause, "never"])
    _, client, _ = open_client(stage, model)
    tasks = [asyncio.create_task(client.execute(f"m{number}")) for number in range(5)]
    await pause.reached()
    await until(lambda: len(client._desk.life.running) == 5)  # pyright: ignore[reportPrivateUsage]
    await soon(client.dispose())
    answers = await soon(asyncio.gather(*tasks))
    assert [answer.kind for answer in answers] == ["cancelled"] * 5
    assert len(model.requests) == 1


async def test_a_tool_may_dispose_its_own_client_and_nothing_waits_for_itself(
    stage: Stage,
) -> None:
    @tool
    async def leave() -> str:
        """Leave."""
        await client.dispose()
        return "left"

    _, client, disposals = open_client(stage, ScriptedModel(call("leave"), "never"), tools=[leave])
    answer = await soon(client.execute("Bye"))
    assert answer.kind == "cancelled"
    await soon(client.dispose())
    assert len(disposals) == 1


async def test_a_callback_may_dispose_its_own_client(stage: Stage) -> None:
    async def on_execute(client: ClientSession, event: BusEvent) -> None:
        await client.dispose()

    _, client, disposals = open_client(stage, ScriptedModel("a"), on_execute=on_execute)
    try:
        answer = await soon(client.execute("Hi"))
        assert answer.kind == "cancelled"
    except ClientDisposed:
        pass
    await soon(client.dispose())
    assert len(disposals) == 1


async def test_on_dispose_may_dispose_again_without_waiting_for_itself(stage: Stage) -> None:
    calls: list[int] = []

    async def on_dispose(client: ClientSession, event: BusEvent) -> None:
        calls.append(1)
        await client.dispose()

    _, client, _ = open_client(stage, ScriptedModel("a"), on_dispose=on_dispose)
    await soon(client.dispose())
    assert calls == [1]


async def test_a_listener_may_dispose_the_client_whose_disposal_it_hears(stage: Stage) -> None:
    runtime, client, disposals = open_client(stage, ScriptedModel("a"))

    async def listener(event: BusEvent) -> None:
        await client.dispose()

    runtime.bus.listen("ann", "session.*", listener)
    await client.execute("Hi")
    await soon(client.dispose())
    assert len(disposals) == 1


async def test_a_connector_may_dispose_its_client(stage: Stage) -> None:
    async def leaving(outgoing: Outgoing) -> None:
        await client.dispose()

    _, client, disposals = open_client(stage, ScriptedModel("a"))
    send = client.connect(leaving)
    assert await soon(send("Hi")) == "a"
    assert (client.disposed, len(disposals)) == (True, 1)


# -- after the end


async def _awaited(client: ClientSession) -> None:
    await client


USES: dict[str, Callable[[ClientSession], Any]] = {
    "execute": lambda client: client.execute("Hi"),
    "stream": lambda client: client.stream("Hi"),
    "resume": lambda client: client.resume(),
    "cancel": lambda client: client.cancel(),
    "emit": lambda client: client.emit("Hi"),
    "notify": lambda client: client.notify("Hi"),
    "connect": lambda client: client.connect(nothing),
    "scheduled": lambda client: client.scheduled(),
    "rate": lambda client: client.rate(),
    "listen": lambda client: client.listen("session.*", Heard()),
    "commit_user_message": lambda client: client.commit_user_message("Hi"),
    "commit_assistant_message": lambda client: client.commit_assistant_message("Hi"),
    "commit_system_message": lambda client: client.commit_system_message("Hi"),
    "commit_tool_output": lambda client: client.commit_tool_output("call_1", "x"),
    "commit_flush": lambda client: client.commit_flush(),
    "change_agent": lambda client: client.change_agent("triage"),
    "change_to_default": lambda client: client.change_to_default(),
    "change_to_previous": lambda client: client.change_to_previous(),
    "__aenter__": lambda client: client.__aenter__(),
    "__await__": _awaited,
}
NO_USE = {"dispose", "disconnect", "begin", "start", "admit", "join", "plan", "run", "release"}
"""What may be called after the end, and what is for the parts of a client session."""


async def _done(made: Any) -> None:
    if isinstance(made, Awaitable):
        await made


def test_the_uses_of_a_client_session_are_all_that_it_has() -> None:
    public = {
        name
        for name, value in vars(ClientSession).items()
        if callable(value) and not name.startswith("_")
    }
    assert public - NO_USE == {name for name in USES if not name.startswith("_")}


@pytest.mark.parametrize("use", USES)
async def test_each_use_after_the_disposal_says_how_to_get_a_new_one(
    stage: Stage, use: str
) -> None:
    model = ScriptedModel()
    runtime, client, _ = open_client(stage, model)
    await client.dispose()
    with pytest.raises(ClientDisposed, match=r"runtime\.client_session\('ann', 'shop'\)"):
        await _done(USES[use](client))
    assert model.requests == []
    assert await runtime.sessions() == []


@pytest.mark.parametrize("how", ["scheduled", "rate"])
async def test_a_way_to_execute_that_outlives_its_client_says_so(stage: Stage, how: str) -> None:
    _, client, _ = open_client(stage, ScriptedModel())
    paced = client.scheduled(0.01) if how == "scheduled" else client.rate(1)
    await client.dispose()
    with pytest.raises(ClientDisposed):
        await soon(paced("Hi"))


async def test_a_scheduled_message_that_waits_at_the_disposal_is_an_answer_of_kind_cancelled(
    stage: Stage,
) -> None:
    model = ScriptedModel()
    _, client, _ = open_client(stage, model)
    scheduled = client.scheduled(60)
    task = asyncio.create_task(scheduled("Hi"))
    await until(lambda: bool(scheduled._waiting))  # pyright: ignore[reportPrivateUsage]
    await soon(client.dispose())
    assert (await soon(task)).kind == "cancelled"
    assert model.requests == []


async def test_the_same_call_after_the_disposal_gives_a_fresh_instance_and_the_same_history(
    stage: Stage,
) -> None:
    runtime, client, _ = open_client(stage, ScriptedModel("one", "two"))
    assert runtime.client_session("ann", SWARM) is client
    await client.execute("Hi")
    await client.dispose()
    fresh = runtime.client_session("ann", SWARM)
    assert fresh is not client
    assert not fresh.disposed
    await fresh.execute("Again")
    assert [text for _, text in said(await fresh.session.history())] == [
        "Hi",
        "one",
        "Again",
        "two",
    ]


async def test_a_fresh_instance_is_there_while_the_old_one_is_still_being_disposed(
    stage: Stage,
) -> None:
    held = Pause()

    async def on_dispose(client: ClientSession, event: BusEvent) -> None:
        await held.hold()

    runtime, client, _ = open_client(stage, ScriptedModel("one", "two"), on_dispose=on_dispose)
    await client.execute("Hi")
    disposing = asyncio.create_task(client.dispose())
    await held.reached()
    fresh = runtime.client_session("ann", SWARM)
    assert fresh is not client
    assert await soon(fresh.execute("Again")) == "two"
    held.release()
    await soon(disposing)
    assert runtime.client_sessions() == [fresh]


# -- holders


async def test_the_last_one_that_leaves_disposes(stage: Stage) -> None:
    runtime, client, disposals = open_client(stage, ScriptedModel())
    async with runtime.client_session("ann", SWARM) as first:
        async with runtime.client_session("ann", SWARM) as second:
            assert first is second is client
        assert not client.disposed
    assert client.disposed
    assert (len(disposals), runtime.client_sessions()) == (1, [])


async def test_a_holder_that_fails_lets_go_too_and_its_error_is_what_comes_out(
    stage: Stage,
) -> None:
    runtime, client, disposals = open_client(stage, ScriptedModel())
    with pytest.raises(ZeroDivisionError):
        async with runtime.client_session("ann", SWARM):
            raise ZeroDivisionError
    assert (client.disposed, len(disposals)) == (True, 1)


async def test_a_disposal_does_not_wait_for_holders_and_they_leave_without_an_error(
    stage: Stage,
) -> None:
    runtime, client, disposals = open_client(stage, ScriptedModel())
    async with runtime.client_session("ann", SWARM):
        await soon(client.dispose())
        assert client.disposed
    assert len(disposals) == 1


async def test_many_that_hold_at_once_share_one_instance_and_it_is_disposed_once(
    stage: Stage,
) -> None:
    runtime, _, disposals = open_client(stage, ScriptedModel())
    seen: set[int] = set()
    inside = asyncio.Barrier(20)

    async def hold() -> None:
        async with runtime.client_session("ann", SWARM) as client:
            seen.add(id(client))
            await inside.wait()

    await soon(asyncio.gather(*(hold() for _ in range(20))))
    assert (len(seen), len(disposals), runtime.client_sessions()) == (1, 1, [])


async def test_one_that_is_cancelled_while_it_enters_is_no_holder(stage: Stage) -> None:
    held = Pause()

    async def on_init(client: ClientSession, event: BusEvent) -> None:
        await held.hold()

    runtime, client, _ = open_client(stage, ScriptedModel(), on_init=on_init)

    async def enter() -> None:
        async with runtime.client_session("ann", SWARM):
            pass

    entering = asyncio.create_task(enter())
    await held.reached()
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering
    assert (client.disposed, runtime.client_sessions()) == (True, [])


async def test_using_a_client_without_holding_it_does_not_dispose_it(stage: Stage) -> None:
    _, client, disposals = open_client(stage, ScriptedModel("a"))
    await client
    await client.execute("Hi")
    assert (client.disposed, len(disposals)) == (False, 0)


# -- the runtime


async def test_closing_a_runtime_disposes_all_of_its_clients(stage: Stage) -> None:
    runtime, _, disposals = open_client(stage, ScriptedModel(*["a"] * 10))
    clients = [runtime.client_session(f"c{number}", SWARM) for number in range(10)]
    for client in clients:
        await client.execute("Hi")
    await soon(runtime.close())
    assert all(client.disposed for client in clients)
    assert len(disposals) == 11
    assert runtime.client_sessions() == []


async def test_closing_a_runtime_in_the_middle_of_a_turn_ends_the_turn(stage: Stage) -> None:
    pause = Pause()
    runtime, client, disposals = open_client(stage, ScriptedModel([pause, "never"]))
    task = asyncio.create_task(client.execute("Hi"))
    await pause.reached()
    await soon(runtime.close())
    assert (await soon(task)).kind == "cancelled"
    assert len(disposals) == 1


async def test_a_closed_runtime_makes_no_client_session(stage: Stage) -> None:
    runtime, _, _ = open_client(stage, ScriptedModel())
    await runtime.close()
    client = runtime.client_session("bob", SWARM)
    with pytest.raises(Exception, match="clos") as caught:
        await soon(client.execute("Hi"))
    assert not isinstance(caught.value, AttributeError)


# -- what it owns


async def test_subscriptions_of_a_client_end_with_it_and_those_of_the_bus_do_not(
    stage: Stage,
) -> None:
    runtime, client, _ = open_client(stage, ScriptedModel())
    owned = client.listen("session.*", Heard())
    other = runtime.bus.listen("ann", "session.*", Heard())
    await client.dispose()
    assert (owned.cancelled, other.cancelled) == (True, False)
    assert runtime.bus.subscriptions == 1


async def test_listeners_have_heard_of_the_disposal_when_it_returns(stage: Stage) -> None:
    runtime, client, _ = open_client(stage, ScriptedModel())
    quick, slow, owned = Heard(), Heard(), Heard()

    async def slowly(event: BusEvent) -> None:
        for _ in range(20):
            await asyncio.sleep(0)
        slow(event)

    runtime.bus.listen("ann", "session.dispose", quick)
    runtime.bus.listen("*", "session.dispose", slowly)
    client.listen("session.dispose", owned)
    await client.dispose()
    assert quick.topics == slow.topics == owned.topics == ["session.dispose"]
    (event,) = quick.events
    assert (event.client_id, event.context["swarm_name"]) == ("ann", SWARM)


async def test_nothing_refers_to_a_client_session_after_its_disposal(stage: Stage) -> None:
    runtime, client, _ = open_client(stage, ScriptedModel("a"), on_dispose=None)
    client.connect(nothing)
    client.listen("*", Heard())
    await client.execute("Hi")
    gone = weakref.ref(client)
    await client.dispose()
    del client
    for _ in range(5):
        await asyncio.sleep(0)
        gc.collect()
    assert gone() is None
    assert (runtime.client_sessions(), runtime.bus.subscriptions) == ([], 0)


async def test_no_task_is_left_of_many_that_came_and_went(stage: Stage) -> None:
    number = 30
    runtime, client, disposals = open_client(stage, ScriptedModel(*["a"] * number))
    await client.dispose()
    before = asyncio.all_tasks()
    for name in range(number):
        async with runtime.client_session(f"c{name}", SWARM) as each:
            each.listen("*", Heard())
            await each.execute("Hi")
    for _ in range(10):
        await asyncio.sleep(0)
    assert asyncio.all_tasks() <= before
    assert (len(disposals), runtime.client_sessions()) == (number + 1, [])
    assert runtime.bus.subscriptions == 0


# -- callbacks and listeners that fail


async def test_an_on_dispose_that_raises_is_logged_and_the_disposal_goes_on(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    def on_dispose(client: ClientSession, event: BusEvent) -> None:
        raise ZeroDivisionError("in the callback")

    runtime, client, _ = open_client(stage, ScriptedModel("a"), on_dispose=on_dispose)
    owned = client.listen("*", Heard())
    with caplog.at_level(logging.ERROR, "tertulia.swarm"):
        await soon(client.dispose())
    assert "on_dispose" in caplog.text
    assert (owned.cancelled, runtime.client_sessions()) == (True, [])


@pytest.mark.parametrize("name", ["on_init", "on_connect", "on_execute", "on_emit"])
async def test_a_callback_that_raises_is_logged_and_changes_nothing(
    stage: Stage, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(client: ClientSession, event: BusEvent) -> None:
        raise ZeroDivisionError("in the callback")

    _, client, _ = open_client(stage, ScriptedModel("a"), **{name: broken})
    with caplog.at_level(logging.ERROR, "tertulia.swarm"):
        client.connect(nothing)
        assert await client.execute("Hi") == "a"
        await client.emit("Hello")
    assert name in caplog.text
    assert len(await client.session.history()) == 3


async def test_what_a_client_said_is_not_in_the_log_of_a_callback_that_raises(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    def on_execute(client: ClientSession, event: BusEvent) -> None:
        raise ValueError("cannot handle " + event.input["message"])

    _, client, _ = open_client(stage, ScriptedModel("a"), on_execute=on_execute)
    with caplog.at_level(logging.ERROR, "tertulia.swarm"):
        assert await client.execute("My card is 4111") == "a"
    assert "on_execute of swarm 'shop' raised ValueError" in caplog.text
    assert "4111" not in caplog.text


async def test_on_init_is_called_once_before_all_else_also_where_many_come_first(
    stage: Stage,
) -> None:
    order: list[str] = []

    async def on_init(client: ClientSession, event: BusEvent) -> None:
        await asyncio.sleep(0)
        order.append("init")

    def on_execute(client: ClientSession, event: BusEvent) -> None:
        order.append("execute")

    model = ScriptedModel(*["a"] * 5)
    _, client, _ = open_client(stage, model, on_init=on_init, on_execute=on_execute)
    await soon(asyncio.gather(*(client.execute("Hi") for _ in range(5))))
    assert order == ["init"] + ["execute"] * 5


async def test_on_init_may_use_the_client(stage: Stage) -> None:
    async def on_init(client: ClientSession, event: BusEvent) -> None:
        await client.commit_system_message("Be kind.")

    _, client, _ = open_client(stage, ScriptedModel("a"), on_init=on_init)
    assert await soon(client.execute("Hi")) == "a"
    assert said(await client.session.history())[0] == ("system", "Be kind.")


async def test_on_init_may_execute_while_others_wait_for_it(stage: Stage) -> None:
    async def on_init(client: ClientSession, event: BusEvent) -> None:
        assert await client.execute("First of all") == "one"

    _, client, _ = open_client(stage, ScriptedModel("one", "two"), on_init=on_init)
    assert await soon(client.execute("Hi")) == "two"
    history = said(await client.session.history())
    assert [text for _, text in history] == ["First of all", "one", "Hi", "two"]


async def test_the_public_service_disposes_and_says_where_nothing_lives(stage: Stage) -> None:
    runtime, client, disposals = open_client(stage, ScriptedModel("a"))
    service = SessionPublicService(runtime)
    await service.execute("Hi", "user", "ann", SWARM)
    await service.dispose("ann", SWARM)
    assert (client.disposed, len(disposals)) == (True, 1)
    with pytest.raises(ClientDisposed):
        await service.dispose("ann", SWARM)


# -- the end of the process

SCRIPT = """
import asyncio, sys
from tertulia import Agent, Runtime, Swarm
from tertulia.testing import ScriptedModel

def on_dispose(client, event):
    print("disposed", client.client_id)

async def main():
    agent = Agent(name="triage", model=ScriptedModel("Hello."))
    swarm = Swarm("shop", agents=[agent], on_dispose=on_dispose)
    runtime = Runtime("sqlite:///" + sys.argv[1], swarms=[swarm])
    client = runtime.client_session("ann", "shop")
    await client.execute("Hi")
    client.session.set_state("plan", "pro")
    if sys.argv[2] == "disposed":
        await client.dispose()
    return runtime

runtime = asyncio.run(main())
"""


@pytest.mark.parametrize("left", ["alive", "disposed"])
async def test_a_runtime_that_nobody_closes_is_closed_at_the_end_of_the_process(
    tmp_path: Path, left: str
) -> None:
    file = tmp_path / "swarm.db"
    command = [sys.executable, "-c", SCRIPT, str(file), left]
    ran = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines() == ["disposed ann"]
    async with Runtime(f"sqlite:///{file}") as runtime:
        session = await runtime.get("ann", app_name="shop")
        assert [message.text for message in await session.history()] == ["Hi", "Hello."]
        assert session.get_state("plan") == "pro"


class Never(Policy):
    """Gives no verdict on what has the word ``never`` in it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()

    async def validate_input(self, message: str, context: PolicyContext, /) -> bool:
        return await self._judge(message)

    async def validate_output(self, text: str, context: PolicyContext, /) -> bool:
        return await self._judge(text)

    async def _judge(self, text: str) -> bool:
        if "never" in text:
            self.asked.set()
            await asyncio.Event().wait()
        return True


@pytest.mark.parametrize("ends", ["dispose", "close"])
async def test_a_disposal_frees_those_whose_message_a_policy_never_judges(
    stage: Stage, ends: str
) -> None:
    never = Never()
    runtime = stage.runtime(swarm_of(ScriptedModel(), never))
    client = runtime.client_session("ann", SWARM)
    first = asyncio.create_task(client.execute("never"))
    await soon(never.asked.wait())
    behind = asyncio.create_task(client.execute("Hi"))
    with pytest.raises(TurnTimeout):
        await soon(client.execute("Hi", timeout=0.01))
    await soon(client.dispose() if ends == "dispose" else runtime.close())
    for task in (first, behind):
        with pytest.raises(ClientDisposed):
            await soon(task)


@pytest.mark.parametrize("how", ["emit", "notify"])
async def test_what_was_to_go_out_when_the_client_was_disposed_does_not(
    stage: Stage, how: str
) -> None:
    never = Never()
    client = stage.runtime(swarm_of(ScriptedModel(), never)).client_session("ann", SWARM)
    got: list[Outgoing] = []
    client.connect(got.append)
    saying = asyncio.create_task(getattr(client, how)("never"))
    await soon(never.asked.wait())
    await soon(client.dispose())
    with pytest.raises(ClientDisposed):
        await soon(saying)
    assert got == []
    assert await client.session.history() == []


@pytest.mark.parametrize("use", ["commit_user_message", "change_agent"])
async def test_what_waits_for_on_init_when_the_client_is_disposed_writes_nothing(
    stage: Stage, use: str
) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def on_init(client: ClientSession, event: BusEvent) -> None:
        asked.set()
        await go_on.wait()

    swarm = swarm_of(ScriptedModel(), on_init=on_init)
    client = stage.runtime(swarm).client_session("ann", SWARM)
    using = asyncio.create_task(getattr(client, use)("triage"))
    await soon(asked.wait())
    disposing = asyncio.create_task(client.dispose())
    await until(lambda: client.disposed)
    go_on.set()
    with pytest.raises(ClientDisposed):
        await soon(using)
    await soon(disposing)
    assert await client.session.history() == []


async def test_a_policy_that_takes_too_long_lets_nothing_through_and_the_next_one_goes_on(
    stage: Stage,
) -> None:
    swarm = swarm_of(ScriptedModel("Hello"), Never(), policy_timeout=0.05)
    client = stage.runtime(swarm).client_session("ann", SWARM)
    for use in (client.execute, client.emit):
        with pytest.raises(PolicyError, match=r"did not answer within 0\.05 seconds"):
            await soon(use("never"))
    assert await soon(client.execute("Hi")) == "Hello"


async def test_a_client_session_without_an_event_loop_says_what_to_await(stage: Stage) -> None:
    client = stage.runtime(swarm_of(ScriptedModel())).client_session("ann", SWARM)
    with pytest.raises(UsageError, match="await"):
        doors.call(client.execute("Hi"))


async def test_on_dispose_may_dispose_in_a_task_of_its_own(stage: Stage) -> None:
    ended: list[str] = []

    async def on_dispose(client: ClientSession, event: BusEvent) -> None:
        await asyncio.gather(client.dispose())
        ended.append(client.client_id)

    swarm = swarm_of(ScriptedModel(), on_dispose=on_dispose)
    client = await stage.runtime(swarm).client_session("ann", SWARM)
    await soon(client.dispose())
    assert ended == ["ann"]


async def test_an_on_dispose_that_does_not_return_keeps_nobody_waiting(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tertulia.swarm.life.CALLING", 0.05)

    async def on_dispose(client: ClientSession, event: BusEvent) -> None:
        await asyncio.Event().wait()

    runtime = stage.runtime(swarm_of(ScriptedModel(), on_dispose=on_dispose))
    await runtime.client_session("ann", SWARM)
    await soon(runtime.close())
    assert "took more than 0.05 seconds" in caplog.text


@pytest.mark.parametrize("together", [False, True])
async def test_clients_whose_on_init_use_each_other_do_not_wait_for_each_other(
    stage: Stage, together: bool
) -> None:
    clients: dict[str, ClientSession] = {}

    async def on_init(client: ClientSession, event: BusEvent) -> None:
        await asyncio.sleep(0)
        (other,) = (each for name, each in clients.items() if name != client.swarm.name)
        await other.commit_system_message(f"{client.swarm.name} is here")

    swarms = [swarm_of(ScriptedModel("a"), name=name, on_init=on_init) for name in ("a", "b")]
    runtime = stage.runtime(*swarms)
    clients |= {name: runtime.client_session("ann", name) for name in ("a", "b")}
    if together:
        await soon(asyncio.gather(*(client.execute("Hi") for client in clients.values())))
    else:
        await soon(clients["a"].execute("Hi"))
    for name, other in (("a", "b"), ("b", "a")):
        history = await clients[name].session.history()
        assert ("system", f"{other} is here") in said(history)


async def test_a_task_that_a_callback_has_started_takes_its_turn_at_the_policies(
    stage: Stage,
) -> None:
    tasks: list[asyncio.Task[Any]] = []
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def later(client: ClientSession) -> None:
        await begun.wait()
        await client.execute("third")

    def on_execute(client: ClientSession, event: BusEvent) -> None:
        if event.input["message"] == "first":
            tasks.append(asyncio.create_task(later(client)))

    class Slow(Policy):
        async def validate_input(self, message: str, context: PolicyContext, /) -> bool:
            seen.append(message)
            if message == "second":
                begun.set()
                await go_on.wait()
            return True

    seen: list[str] = []
    swarm = swarm_of(ScriptedModel("1", "2", "3"), Slow(), on_execute=on_execute)
    client = stage.runtime(swarm).client_session("ann", SWARM)
    await client.execute("first")
    second = asyncio.create_task(client.execute("second"))
    await soon(begun.wait())
    await until(lambda: client._desk._door.waiting == 1)  # pyright: ignore[reportPrivateUsage]
    assert seen == ["first", "second"]
    go_on.set()
    await soon(second)
    await soon(tasks[0])


async def test_a_policy_that_executes_on_its_own_client_is_stopped(stage: Stage) -> None:
    class Asking(Policy):
        async def validate_input(self, message: str, context: PolicyContext, /) -> bool:
            depths.append(len(depths))
            await client.execute(f"May they say this? {message[:10]}")
            return True

    depths: list[int] = []
    swarm = swarm_of(ScriptedModel(), Asking(), max_nested=3)
    client = stage.runtime(swarm).client_session("ann", SWARM)
    with pytest.raises(PolicyError):
        await soon(client.execute("Hi"))
    assert len(depths) == 4
