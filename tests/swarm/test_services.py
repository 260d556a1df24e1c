"""The services behind client sessions, and the swarms that can and cannot be made."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from tests.swarm.stage import SWARM, Stage, Without, said, soon, swarm_of

from tertulia import Agent, MemoryStore, Runtime, Swarm, doors
from tertulia.bus import BusEvent
from tertulia.conversation import How
from tertulia.errors import (
    ClientDisposed,
    ConfigurationError,
    InvalidInput,
    UnknownName,
    UsageError,
)
from tertulia.swarm import (
    ClientSession,
    SessionConnectionService,
    SessionPublicService,
    services,
)
from tertulia.testing import Pause, ScriptedModel

MODEL = ScriptedModel()


def agent(name: str | None = "a", **options: Any) -> Agent:
    return Agent(name=name, model=MODEL, **options)


# -- one instance


async def test_the_same_client_of_a_swarm_is_the_same_instance(stage: Stage) -> None:
    runtime = stage.runtime(swarm_of(MODEL), swarm_of(MODEL, name="other"))
    client = runtime.client_session("ann", SWARM)
    assert runtime.client_session("ann", SWARM) is client
    assert runtime.client_session("ann", runtime.swarm(SWARM)) is client
    assert runtime.client_session("bob", SWARM) is not client
    assert runtime.client_session("ann", "other") is not client
    assert len(runtime.client_sessions()) == 3


async def test_after_a_disposal_there_is_a_fresh_instance(stage: Stage) -> None:
    runtime = stage.runtime(swarm_of(MODEL))
    client = runtime.client_session("ann", SWARM)
    await client.dispose()
    again = runtime.client_session("ann", SWARM)
    assert again is not client
    assert (client.disposed, again.disposed) == (True, False)


async def test_a_disposal_of_the_old_instance_leaves_the_new_one(stage: Stage) -> None:
    runtime = stage.runtime(swarm_of(MODEL))
    client = runtime.client_session("ann", SWARM)
    await client.dispose()
    again = runtime.client_session("ann", SWARM)
    await client.dispose()
    assert runtime.client_session("ann", SWARM) is again


async def test_fifty_first_uses_at_once_make_one_instance_and_call_on_init_once(
    stage: Stage,
) -> None:
    begun: list[ClientSession] = []

    async def on_init(client: ClientSession, _: Any) -> None:
        await asyncio.sleep(0)
        begun.append(client)

    model = ScriptedModel(*["Hello."] * 50)
    runtime = stage.runtime(swarm_of(model, on_init=on_init))

    async def use() -> ClientSession:
        client = runtime.client_session("ann", SWARM)
        await client.execute("Hi")
        return client

    clients = await asyncio.gather(*(use() for _ in range(50)))
    assert len(set(map(id, clients))) == 1
    assert begun == [clients[0]]
    assert len(await clients[0].session.history(limit=None)) == 100
    assert await clients[0].session.verify()


async def test_first_uses_from_many_threads_make_one_instance(stage: Stage) -> None:
    runtime = stage.runtime(swarm_of(MODEL))
    ready, found = threading.Barrier(16), list[ClientSession]()

    def use() -> None:
        ready.wait()
        found.append(runtime.client_session("ann", SWARM))

    threads = [threading.Thread(target=use) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert len(found) == 16
    assert len(set(map(id, found))) == 1


async def test_a_client_made_on_a_thread_can_be_used_on_the_loop(stage: Stage) -> None:
    runtime = stage.runtime(swarm_of(ScriptedModel("Hello.")))
    client = await asyncio.to_thread(runtime.client_session, "ann", SWARM)
    assert await client.execute("Hi") == "Hello."


# -- names


async def test_an_unknown_swarm_is_refused_and_those_that_exist_are_listed(stage: Stage) -> None:
    runtime = stage.runtime(swarm_of(MODEL), swarm_of(MODEL, name="bank"))
    with pytest.raises(UnknownName, match="shop, bank"):
        runtime.client_session("ann", "shup")
    with pytest.raises(UnknownName, match="shop, bank"):
        runtime.swarm("shup")
    with pytest.raises(UnknownName):
        runtime.client_session("ann", swarm_of(MODEL))
    assert runtime.client_sessions() == []


async def test_a_runtime_without_swarms_says_so(stage: Stage) -> None:
    with pytest.raises(UnknownName, match="none"):
        stage.runtime().client_session("ann", SWARM)


@pytest.mark.parametrize("client_id", ["", " ", "*", None, 7, "x" * 5_000])
async def test_a_client_id_that_cannot_be_is_refused(stage: Stage, client_id: Any) -> None:
    runtime = stage.runtime(swarm_of(MODEL))
    with pytest.raises(InvalidInput):
        runtime.client_session(client_id, SWARM)
    assert runtime.client_sessions() == []


def test_two_swarms_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="shop"):
        Runtime(swarms=[swarm_of(MODEL), swarm_of(MODEL)])


def test_what_is_no_swarm_is_refused() -> None:
    with pytest.raises(InvalidInput):
        Runtime(swarms=["shop"])  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: Swarm("", agents=[agent()]), InvalidInput, "swarm"),
        (lambda: Swarm("s", agents=[]), InvalidInput, "no agents"),
        (lambda: Swarm("s", agents=agent()), InvalidInput, "list"),  # pyright: ignore[reportArgumentType]
        (lambda: Swarm("s", agents="abc"), InvalidInput, "list"),  # pyright: ignore[reportArgumentType]
        (lambda: Swarm("s", agents=["a"]), InvalidInput, "no Agent"),  # pyright: ignore[reportArgumentType]
        (lambda: Swarm("s", agents=[agent(None)]), InvalidInput, "no name"),
        (lambda: Swarm("s", agents=[agent(), agent()]), ConfigurationError, "named a"),
        (lambda: Swarm("s", agents=[agent()], default="b"), UnknownName, "agents: a"),
        (lambda: Swarm("s", agents=[agent(handoffs=["b"])]), UnknownName, "'b'"),
        (lambda: Swarm("s", agents=[agent(handoffs=[agent("b")])]), UnknownName, "'b'"),
        (lambda: Swarm("s", agents=[agent(handoffs=["a"])]), ConfigurationError, "itself"),
        (
            lambda: Swarm("s", agents=[agent()], policies=[Without("x"), Without("x")]),
            ConfigurationError,
            "without-x",
        ),
        (lambda: Swarm("s", agents=[agent()], policies=[7]), InvalidInput, ""),  # pyright: ignore[reportArgumentType]
        (lambda: Swarm("s", agents=[agent()], on_init="x"), InvalidInput, "callback"),  # pyright: ignore[reportArgumentType]
        (lambda: Swarm("s", agents=[agent()], tool_timeout=0), InvalidInput, "tool_timeout"),
        (lambda: Swarm("s", agents=[agent()], tool_timeout=True), InvalidInput, "tool_timeout"),
        (
            lambda: Swarm("s", agents=[agent()], tool_timeout=float("inf")),
            InvalidInput,
            "tool_timeout",
        ),
        (lambda: Swarm("s", agents=[agent()], idle_timeout=-1), InvalidInput, "idle_timeout"),
        (lambda: Swarm("s", agents=[agent()], max_tool_calls=-1), InvalidInput, "max_tool_calls"),
        (
            lambda: Swarm("s", agents=[agent()], max_tool_calls=1.5),  # pyright: ignore[reportArgumentType]
            InvalidInput,
            "max_tool_calls",
        ),
        (lambda: Swarm("s", agents=[agent()], max_nested=-1), InvalidInput, "max_nested"),
        (
            lambda: Swarm("s", agents=[agent()], max_nested=None),  # pyright: ignore[reportArgumentType]
            InvalidInput,
            "max_nested",
        ),
    ],
)
def test_a_swarm_that_cannot_be_is_refused_when_it_is_made(
    make: Callable[[], Swarm], error: type[Exception], says: str
) -> None:
    with pytest.raises(error) as caught:
        make()
    assert type(caught.value) is error
    assert says in str(caught.value)


async def test_a_swarm_in_no_runtime_bans_nobody() -> None:
    with pytest.raises(UsageError, match="no runtime"):
        await swarm_of(MODEL).ban("ann")


# -- the public service


async def test_the_public_service_does_what_the_client_does(stage: Stage) -> None:
    runtime = stage.runtime(swarm_of(ScriptedModel("Hello.")))
    service, got = SessionPublicService(runtime), list[str]()
    service.connect(lambda outgoing: got.append(outgoing.data), "ann", SWARM)
    assert await service.execute("Hi", "user", "ann", SWARM) == "Hello."
    await service.emit("By the way.", "ann", SWARM)
    await service.notify("Look!", "ann", SWARM)
    await service.commit_user_message("U", "user", "ann", SWARM)
    await service.commit_assistant_message("A", "ann", SWARM)
    await service.commit_system_message("S", "ann", SWARM)
    assert got == ["By the way.", "Look!"]
    client = runtime.client_session("ann", SWARM)
    texts = [text for _, text in said(await client.session.history())]
    assert texts == ["Hi", "Hello.", "By the way.", "U", "A", "S"]
    await service.commit_flush("ann", SWARM)
    assert await client.session.history() == []
    assert await service.cancel("ann", SWARM) is False
    await service.dispose("ann", SWARM)
    assert client.disposed


REFUSED: list[tuple[Callable[[Any], Any], type[Exception]]] = [
    (lambda s: s.execute("", "user", "ann", SWARM), InvalidInput),
    (lambda s: s.execute(None, "user", "ann", SWARM), InvalidInput),
    (lambda s: s.execute("Hi", "shout", "ann", SWARM), InvalidInput),
    (lambda s: s.execute("Hi", "user", "", SWARM), InvalidInput),
    (lambda s: s.execute("Hi", "user", "ann", "nowhere"), UnknownName),
    (lambda s: s.emit("", "ann", SWARM), InvalidInput),
    (lambda s: s.notify(7, "ann", SWARM), InvalidInput),
    (lambda s: s.commit_user_message("Hi", "shout", "ann", SWARM), InvalidInput),
    (lambda s: s.cancel("nobody", SWARM), ClientDisposed),
    (lambda s: s.dispose("nobody", SWARM), ClientDisposed),
]


@pytest.mark.parametrize(("execute", "error"), REFUSED)
async def test_the_public_service_refuses_what_cannot_be_and_writes_nothing(
    stage: Stage, execute: Callable[[Any], Any], error: type[Exception]
) -> None:
    runtime = stage.runtime(swarm_of(ScriptedModel("Never.")))
    with pytest.raises(error):
        await execute(SessionPublicService(runtime))
    assert await runtime.sessions() == []


async def test_no_word_of_a_client_is_in_the_log_of_the_public_service(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    runtime = stage.runtime(
        swarm_of(ScriptedModel("secret answer"), Without("forbidden", ban_message="secret ban"))
    )
    service = SessionPublicService(runtime)
    await service.execute("secret question", "user", "ann", SWARM)
    await service.execute("secret forbidden question", "user", "ann", SWARM)
    await service.emit("secret news", "ann", SWARM)
    await service.commit_user_message("secret message", "user", "ann", SWARM)
    await service.commit_assistant_message("secret message", "ann", SWARM)
    await service.commit_system_message("secret message", "ann", SWARM)
    with pytest.raises(InvalidInput):
        await service.execute("secret shout", "shout", "ann", SWARM)  # pyright: ignore[reportArgumentType]
    told = [record for record in caplog.records if record.name.startswith("tertulia")]
    assert len(told) >= 7
    assert {"ann" in record.getMessage() for record in told} == {True}
    assert not any("secret" in record.getMessage() for record in told)


async def test_the_runtime_closes_the_clients_it_has(stage: Stage) -> None:
    ended: list[str] = []

    def on_dispose(client: ClientSession, _: BusEvent) -> None:
        ended.append(client.client_id)

    runtime = stage.runtime(swarm_of(MODEL, on_dispose=on_dispose))
    clients = [runtime.client_session(name, SWARM) for name in ("ann", "bob")]
    assert isinstance(runtime.clients, SessionConnectionService)
    await runtime.close()
    assert sorted(ended) == ["ann", "bob"]
    assert all(client.disposed for client in clients)
    assert runtime.client_sessions() == []


def test_two_swarms_cannot_share_the_conversations_of_their_clients() -> None:
    first = swarm_of(ScriptedModel(), name="first")
    second = swarm_of(ScriptedModel(), name="second", app_name=first.app_name)
    with pytest.raises(ConfigurationError, match="app_name"):
        Runtime("memory:", swarms=[first, second])


async def test_a_ban_stands_where_another_process_has_the_session_and_is_no_error(
    durable: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(services, "_NOTING", How(suspended="keep", timeout=0.05))
    pause = Pause()
    client = durable.runtime(swarm_of(ScriptedModel([pause, "x"]))).client_session("ann", SWARM)
    turn = asyncio.create_task(client.execute("Hi"))
    await pause.reached()
    other = swarm_of(ScriptedModel())
    durable.runtime(other)
    assert [ban.policy for ban in await soon(other.ban("ann"))] == ["*"]
    assert [ban.policy for ban in await other.bans("ann")] == ["*"]
    assert "TurnTimeout" in caplog.text
    pause.release()
    assert (await soon(turn)).kind == "ban"


async def test_each_ban_is_in_the_log_whenever_the_turn_ends(stage: Stage) -> None:
    swarm = swarm_of(ScriptedModel(*["Hello."] * 26))
    client = stage.runtime(swarm).client_session("ann", SWARM)
    await client.execute("Hi")
    for number in range(25):
        turn = asyncio.create_task(client.execute("Hi"))
        for _ in range(number):
            await asyncio.sleep(0)
        await soon(swarm.ban("ann", reason=str(number)))
        await soon(turn)
        await swarm.unban("ann")
    banned = [event.body for event in await client.session.events(types=["policy.banned"])]
    assert [(body or {})["reason"] for body in banned] == [str(number) for number in range(25)]


def test_a_ban_needs_no_event_loop() -> None:
    swarm = swarm_of(ScriptedModel())
    runtime = Runtime(MemoryStore(), swarms=[swarm])
    assert [ban.policy for ban in doors.call(swarm.ban("ann"))] == ["*"]
    assert [ban.policy for ban in doors.call(swarm.unban("ann"))] == ["*"]
    doors.call(runtime.close())


async def test_the_errors_of_names_say_what_to_do(stage: Stage) -> None:
    swarm = swarm_of(MODEL)
    runtime = stage.runtime(swarm)
    with pytest.raises(InvalidInput, match="an id of its own"):
        runtime.client_session("", swarm)
    with pytest.raises(UnknownName, match="another object"):
        runtime.client_session("ann", swarm_of(MODEL))
    one: Any = swarm
    with pytest.raises(InvalidInput, match="a list of swarms"):
        Runtime(MemoryStore(), swarms=one)
    client = runtime.client_session("ann", swarm)
    await client
    await runtime.close()
    with pytest.raises(ClientDisposed, match="make a new one: Runtime"):
        await client.execute("Hi")
    with pytest.raises(ClientDisposed):
        await client.change_agent("nobody")


@pytest.mark.parametrize(
    "commit", ["commit_user_message", "commit_assistant_message", "commit_system_message"]
)
async def test_what_is_no_text_is_not_committed(stage: Stage, commit: str) -> None:
    client = stage.runtime(swarm_of(MODEL)).client_session("ann", SWARM)
    for text in ("", "  ", None):
        with pytest.raises(InvalidInput):
            await getattr(client, commit)(text)
    assert await client.session.history() == []


async def test_a_client_cannot_say_of_what_kind_its_message_is(stage: Stage) -> None:
    runtime = stage.runtime(swarm_of(ScriptedModel("Hello.")))
    client, topics = runtime.client_session("ann", SWARM), list[str]()
    runtime.bus.listen("ann", "session.*", lambda event: topics.append(event.topic))
    await client.execute({"role": "user", "content": "Hi", "metadata": {"kind": "commit", "a": 1}})
    assert (await client.session.history())[0].metadata == {"a": 1, "mode": "user"}
    await runtime.bus.drain()
    assert topics == ["session.execute"]


async def test_what_was_cancelled_or_closed_is_let_go_of_and_what_is_not_has_a_bound(
    stage: Stage,
) -> None:
    client = stage.runtime(swarm_of(MODEL)).client_session("ann", SWARM)
    for _ in range(1_000):
        client.listen("session.*", print).cancel()
    assert len(client._desk.owned) <= 100  # pyright: ignore[reportPrivateUsage]
    sends = [client.connect(print) for _ in range(1_000)]
    with pytest.raises(InvalidInput, match="close"):
        client.connect(print)
    sends[0].close()
    client.connect(print)
