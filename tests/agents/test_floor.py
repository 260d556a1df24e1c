"""Who answers in a session: the agent that has the floor, wherever the session is opened."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from tests.agents.histories import check_whole

from tertulia import Agent, Runtime, Session
from tertulia.errors import AccessDenied, ModelError, UsageError
from tertulia.testing.models import Pause, ScriptedModel, call

OTHER_PROCESS = """
import sys
from tertulia import Agent, configure
from tertulia.testing.models import ScriptedModel

configure(store=sys.argv[1])
bob = Agent("bob", ScriptedModel("Bob, elsewhere."))
ann = Agent("ann", ScriptedModel("Ann, elsewhere."), handoffs=[bob])
session = ann.session("s")
print(session.floor, "|", session.run("Who?").text)
"""


def of(name: str, answers: int = 20, **options: object) -> Agent:
    """An agent that says its name."""
    model = ScriptedModel(*[name] * answers)
    return Agent(name, model, **options)  # pyright: ignore[reportArgumentType]


async def answers(session: Session) -> list[str]:
    return [message.text for message in await check_whole(session) if message.role == "assistant"]


async def test_running_an_agent_gives_it_the_floor(runtime: Runtime) -> None:
    session = runtime.session("s")
    ann, bob = of("ann", session=session), of("bob", session=session)
    assert session.floor is None
    await ann.run("1")
    assert (session.floor, (await session.run_async("2")).text) == ("ann", "ann")
    await bob.run("3")
    assert session.floor == "bob"
    assert (await session.run_async("4")).text == "bob"
    events = [event async for event in session.stream_async("6")]
    assert events[-1].response is not None
    assert events[-1].response.agent == "bob"
    assert (await ann.run("8")).text == "ann"
    assert (await session.run_async("9")).text == "ann"


async def test_a_handle_of_one_agent_asks_the_one_that_has_the_floor(runtime: Runtime) -> None:
    ann, bob = of("ann", runtime=runtime), of("bob", runtime=runtime)
    hers, his = ann.session("s"), bob.session("s")
    assert (await hers.run_async("1")).text == "ann"
    assert (await his.run_async("2")).text == "ann"
    assert (await bob.run("3", session=hers)).text == "bob"
    assert (await hers.run_async("4")).text == "bob"


async def test_a_stream_gives_the_floor_too(runtime: Runtime) -> None:
    session = runtime.session("s")
    ann, bob = of("ann", session=session), of("bob", session=session)
    await ann.run("1")
    _ = [event async for event in bob.stream("2")]
    assert session.floor == "bob"


async def test_the_floor_is_found_again_by_another_process(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path / 'x.db'}"
    async with Runtime(address) as runtime:
        ann = Agent("ann", ScriptedModel(call("transfer_to_bob")), handoffs=[of("bob")])
        await ann.session("s", runtime=runtime).run_async("Money!")
    command = [sys.executable, "-W", "error", "-c", OTHER_PROCESS, address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert (done.stdout.strip(), done.stderr) == ("bob | Bob, elsewhere.", "")
    async with Runtime(address) as runtime:
        session = runtime.session("s")
        assert session.floor == "bob"
        assert await answers(session) == ["", "bob", "Bob, elsewhere."]


async def test_two_workers_in_turn_see_each_others_handoffs(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path / 'x.db'}"
    async with Runtime(address) as here, Runtime(address) as there:
        to_bob, to_ann = call("transfer_to_bob"), call("transfer_to_ann")
        mine = Agent("ann", ScriptedModel("ann here", to_bob, "ann here"), handoffs=["bob"])
        my_bob = Agent("bob", ScriptedModel("bob here", "bob here"), handoffs=[mine])
        mine = Agent("ann", mine.model, handoffs=[my_bob])
        his_bob = Agent("bob", ScriptedModel("bob there", to_ann), handoffs=["ann"])
        his = Agent("ann", ScriptedModel("ann there"), handoffs=[his_bob])
        ours, theirs = mine.session("s", runtime=here), his.session("s", runtime=there)
        assert (await ours.run_async("1")).text == "ann here"
        assert (await ours.run_async("2")).text == "bob here"
        assert (await theirs.run_async("3")).text == "bob there"
        assert (await ours.run_async("4")).text == "bob here"
        assert (await theirs.run_async("5")).text == "ann there"
        assert (ours.floor, theirs.floor) == ("ann", "ann")
        assert (await ours.run_async("6")).text == "ann here"
        await check_whole(ours)


async def test_who_waited_is_answered_by_whoever_has_the_floor_then(runtime: Runtime) -> None:
    pause = Pause()
    ann = Agent("ann", ScriptedModel([pause, call("transfer_to_bob")], "ann"), handoffs=[of("bob")])
    session = ann.session("s", runtime=runtime)
    first = asyncio.ensure_future(session.run_async("1"))
    await pause.reached()
    second = asyncio.ensure_future(session.run_async("2"))
    await asyncio.sleep(0)
    pause.release()
    assert [(await first).text, (await second).text] == ["bob", "bob"]


async def test_a_fork_has_the_floor_of_its_point(runtime: Runtime) -> None:
    session = runtime.session("s")
    ann, bob = of("ann", session=session), of("bob", session=session)
    await ann.run("1")
    await bob.run("2")
    now = session.fork("now")
    assert now.floor == "bob"
    await ann.run("3")
    assert (await bob.session("now", runtime=runtime).run_async("4")).text == "bob"
    assert (session.floor, now.floor) == ("ann", "bob")


async def test_a_fork_of_an_earlier_point_has_the_floor_of_then(runtime: Runtime) -> None:
    session = runtime.session("s")
    ann, bob = of("ann", session=session), of("bob", session=session)
    await ann.run("1")
    [*_, last] = await session.events()
    await bob.run("2")
    assert session.fork("then", at=last.seq).floor == "ann"


async def test_a_rewind_brings_the_floor_of_then_back(runtime: Runtime) -> None:
    session = runtime.session("s")
    ann, bob = of("ann", session=session), of("bob", session=session)
    await ann.run("1")
    [*_, last] = await session.events()
    await bob.run("2")
    await session.rewind(last.seq)
    assert session.floor == "ann"


async def test_forks_of_forks_and_rewinds_that_are_undone_have_the_floor_of_their_point(
    runtime: Runtime,
) -> None:
    session = runtime.session("s")
    ann, bob, eve = (of(name, session=session) for name in ("ann", "bob", "eve"))
    await ann.run("1")
    first = (await session.events())[-1].seq
    await bob.run("2")
    second = (await session.events())[-1].seq
    fork = session.fork("f")
    await eve.run("3", session=fork)
    third = (await fork.events())[-1].seq
    for position, name in ((second, "bob"), (first, "ann"), (third, "eve")):
        await fork.rewind(position)
        assert fork.floor == name
    other = fork.fork("g", at=first)
    assert other.floor == "ann"
    await bob.run("4", session=other)
    await other.rewind(first)
    assert (other.floor, fork.floor, session.floor) == ("ann", "eve", "bob")
    for each in (session, fork, other):
        await check_whole(each)


async def test_a_rewind_to_the_beginning_is_undone_with_its_floor(runtime: Runtime) -> None:
    session = runtime.session("s")
    ann = of("ann", session=session)
    await ann.run("1")
    last = (await session.events())[-1].seq
    await session.rewind(1)
    assert session.floor is None
    assert session.fork("f", at=last).floor == "ann"
    await session.rewind(last)
    assert session.floor == "ann"


async def test_a_turn_that_failed_leaves_the_floor_where_it_was(runtime: Runtime) -> None:
    session = runtime.session("s")
    ann = of("ann", session=session)
    bob = Agent("bob", ScriptedModel(ModelError("it broke")), session=session)
    await ann.run("1")
    with pytest.raises(ModelError):
        await bob.run("2")
    assert session.floor == "ann"


async def test_an_agent_without_a_name_answers_when_it_is_run(runtime: Runtime) -> None:
    session = runtime.session("s")
    ann = of("ann", session=session)
    nameless = Agent(model=ScriptedModel("nameless"), session=session)
    await ann.run("1")
    assert (await nameless.run("2")).text == "nameless"
    assert session.floor == "ann"


async def test_an_agent_without_a_name_takes_the_floor_from_nobody(runtime: Runtime) -> None:
    session = Agent(model=ScriptedModel("a", "b", "c"), runtime=runtime).session("s")
    assert (await session.run_async("1")).text == "a"
    assert session.floor is None
    other = of("ann", runtime=runtime).session("s")
    assert (await other.run_async("2")).text == "ann"
    again = Agent(model=ScriptedModel("b"), runtime=Runtime(runtime.store)).session("s")
    assert (await again.run_async("3")).text == "b"
    assert again.floor == "ann"


async def test_an_agent_that_is_not_known_here_leaves_it_to_the_one_that_is(
    tmp_path: Path,
) -> None:
    address = f"sqlite:///{tmp_path / 'x.db'}"
    async with Runtime(address) as here, Runtime(address) as there:
        await of("ann").session("s", runtime=here).run_async("1")
        session = of("bob").session("s", runtime=there)
        assert session.floor == "ann"
        assert (await session.run_async("2")).text == "bob"
        assert session.floor == "bob"


async def test_a_session_is_run_by_the_agent_that_was_made_with_it(runtime: Runtime) -> None:
    session = Session("s", runtime=runtime)
    ann = of("ann", session=session)
    assert (await session.run_async("1")).text == "ann"
    bob = of("bob", session=session)
    assert (await session.run_async("2")).text == "ann"
    await bob.run("3")
    assert (await session.run_async("4")).text == "bob"
    assert {ann.name, bob.name} == set(await answers(session))


async def test_a_session_is_run_by_the_nameless_agent_that_was_made_with_it(
    runtime: Runtime,
) -> None:
    session = Session("s", runtime=runtime)
    agent = Agent(model=ScriptedModel("Hi.", "Hi again."), session=session)
    assert (await agent.run("1")).text == "Hi."
    assert (await session.run_async("2")).text == "Hi again."


@pytest.mark.parametrize(
    "door", ["run", "run_async", "stream", "stream_async", "json", "json_async", "resume"]
)
async def test_without_any_agent_every_door_says_what_to_do(runtime: Runtime, door: str) -> None:
    session = runtime.session("s")
    given = () if door == "resume" else ("Hi",)
    options = {"schema": int} if door.startswith("json") else {}
    with pytest.raises(UsageError, match=r"has no agent.*agent\.session"):
        getattr(session, door)(*given, **options)
    assert await session.events() == []


async def test_of_two_agents_neither_of_which_has_the_floor_none_is_guessed(
    runtime: Runtime,
) -> None:
    session = Session("s", runtime=runtime)
    both = [of("ann", session=session), of("bob", session=session)]
    with pytest.raises(UsageError, match="has no agent"):
        await session.run_async("Hi")
    await both[1].run("Hi")
    assert (await session.run_async("Hi")).text == "bob"


async def test_the_floor_of_another_users_session_is_not_told(runtime: Runtime) -> None:
    await of("ann").session("s", user_id="kim", runtime=runtime).run_async("1")
    with pytest.raises(AccessDenied):
        _ = runtime.session("s", user_id="lee").floor
