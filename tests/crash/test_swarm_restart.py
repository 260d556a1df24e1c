"""Turns of a swarm's client that ``kill -9`` cut off: the next process has the client right."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from tests.agents.histories import bodies, check_whole, kinds, said
from tests.crash.children import child_of
from tests.crash.guild import Guild

from tertulia import Runtime
from tertulia.swarm import Answer, ClientSession
from tertulia.testing.models import call

pytestmark = pytest.mark.slow_crash

SOON = 10.0
HANDOVER: list[Any] = [[["transfer_to_sales", {"reason": "r"}]]]
ASKED = {"pause": "sales is asked", "then": "never"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "x.db"


class Here:
    """The same swarm in this process, on the same file."""

    def __init__(self, runtime: Callable[..., Runtime]) -> None:
        self.guild = Guild({}, lambda _: None)
        self.runtime = runtime(self.guild.swarm)

    def script(self, **steps: Any) -> None:
        for name, given in steps.items():
            self.guild.models[name].add(*given)

    async def client(self) -> ClientSession:
        return await self.runtime.client_session("ann", "shop")

    async def resume(self) -> Answer:
        with anyio.fail_after(SOON):
            return await (await self.client()).resume()


@pytest.fixture
async def here(file: Path) -> AsyncGenerator[Callable[[], Here]]:
    opened: list[Runtime] = []

    def runtime(*swarms: Any) -> Runtime:
        opened.append(Runtime(f"sqlite:///{file}", swarms=list(swarms)))
        return opened[-1]

    yield lambda: Here(runtime)
    for each in opened:
        await each.close()


def killed_at(file: Path, line: str, **scripts: Any) -> None:
    """Let a process of its own execute, and kill it where it says a line."""
    with child_of("swarms", file, json.dumps(scripts)) as child:
        assert child.hear() == line
        child.kill()


async def test_killed_in_a_handoff_the_client_is_with_the_new_agent_who_answers_on_resume(
    file: Path, here: Callable[[], Here]
) -> None:
    killed_at(file, "sales is asked", triage=HANDOVER, sales=[ASKED])
    mine = here()
    client = await mine.client()
    assert client.agent == "sales"
    mine.script(sales=["You have it back."])
    answer = await mine.resume()
    assert (answer, answer.agent, answer.kind) == ("You have it back.", "sales", "answer")
    [request] = mine.guild.models["sales"].requests
    assert ("user", "Money back") in said(request.messages)
    assert mine.guild.models["triage"].requests == []
    assert len(await bodies(client.session, "handoff")) == 1
    assert len(await client.session.events(types="turn.started")) == 1
    users = [text for role, text in said(await check_whole(client.session)) if role == "user"]
    assert users == ["Money back"]


async def test_killed_in_a_handoff_the_route_cannot_come_back_on_resume(
    file: Path, here: Callable[[], Here]
) -> None:
    killed_at(file, "sales is asked", triage=HANDOVER, sales=[ASKED])
    mine = here()
    mine.script(sales=[call("transfer_to_triage"), "I do it myself."], triage=["Never."])
    assert (await mine.resume()).agent == "sales"
    last = mine.guild.models["sales"].last_request.messages[-1]
    assert "triage -> sales -> triage" in last.text
    assert await (await mine.client()).change_to_previous() == "triage"
    await check_whole((await mine.client()).session)


async def test_killed_in_a_handoff_another_message_closes_the_turn_as_if_it_had_not_been(
    file: Path, here: Callable[[], Here]
) -> None:
    """No tool had run, so the turn that was left is hidden, and the floor with it."""
    killed_at(file, "sales is asked", triage=HANDOVER, sales=[ASKED])
    mine = here()
    client = await mine.client()
    mine.script(triage=["Triage here."], sales=["Never."])
    with anyio.fail_after(SOON):
        answer = await client.execute("Hello?")
    assert (answer, answer.agent, client.agent) == ("Triage here.", "triage", "triage")
    assert "turn.abandoned" in await kinds(client.session)
    assert said(await check_whole(client.session)) == [
        ("user", "Hello?"),
        ("assistant", "Triage here."),
    ]
    assert await client.change_to_previous() == "triage"


async def test_killed_in_a_tool_its_outcome_is_unknown_and_it_does_not_run_again(
    file: Path, here: Callable[[], Here]
) -> None:
    charging: list[Any] = [[["charge", {}]]]
    killed_at(file, "inside charge", triage=HANDOVER, sales=charging)
    mine = here()
    mine.script(sales=["I cannot tell."])
    answer = await mine.resume()
    assert (answer, answer.agent, mine.guild.ran) == ("I cannot tell.", "sales", [])
    history = await check_whole((await mine.client()).session)
    outcomes = [(m.metadata or {}).get("outcome") for m in history if m.role == "tool"]
    assert outcomes == [None, "unknown"]


async def test_killed_in_a_tool_the_next_message_finds_what_was_done(
    file: Path, here: Callable[[], Here]
) -> None:
    """The tool may have done something in the world, so the turn that was left stays to be seen."""
    charging: list[Any] = [[["charge", {}]]]
    killed_at(file, "inside charge", triage=HANDOVER, sales=charging)
    mine = here()
    client = await mine.client()
    mine.script(sales=["Let me look."], triage=["Let me look."])
    with anyio.fail_after(SOON):
        answer = await client.execute("Hello?")
    assert (answer.kind, answer.agent) == ("answer", client.agent)
    assert mine.guild.ran == []
    asked = mine.guild.models[str(answer.agent)].last_request.messages
    assert any("unknown" in message.text for message in asked if message.role == "tool")
    assert client.agent == "sales"
    await check_whole(client.session)


async def test_killed_in_a_tool_that_may_run_again_it_does_once(
    file: Path, here: Callable[[], Here]
) -> None:
    putting: list[Any] = [[["count", {}]], [["put", {}]]]
    killed_at(file, "inside put", triage=HANDOVER, sales=putting)
    mine = here()
    mine.script(sales=["Done."])
    assert await mine.resume() == "Done."
    assert mine.guild.ran == ["put"]
    client = await mine.client()
    assert [client.session.get_state("n", scope=scope) for scope in ("session", "app")] == [1, 1]
    await check_whole(client.session)


async def test_killed_again_and_again_the_client_gets_one_answer(
    file: Path, here: Callable[[], Here]
) -> None:
    killed_at(file, "sales is asked", triage=HANDOVER, sales=[ASKED])
    for _ in range(2):
        with child_of("swarms", file, json.dumps({"sales": [ASKED], "triage": [ASKED]})) as child:
            assert child.hear() == "sales is asked"
            child.kill()
    mine = here()
    mine.script(triage=["At last."])
    assert await mine.resume() == "At last."
    client = await mine.client()
    assert said(await check_whole(client.session)) == [
        ("user", "Money back"),
        ("assistant", "At last."),
    ]
