"""Turns of agents that ``kill -9`` cut off, and that go on in another process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest
from tests.agents.histories import bodies, check_whole, kinds, said
from tests.crash.children import Child, child_of, children
from tests.crash.crew import USER, Crew

from tertulia import Agent, RunContext, Runtime, Session, ToolCall, tool
from tertulia.agents import Response
from tertulia.agents.protocol import ModelRequest
from tertulia.closing import Effect
from tertulia.errors import SessionBusy, UsageError
from tertulia.messages import Message
from tertulia.testing.models import ScriptedModel, call

pytestmark = pytest.mark.slow_crash

AT_ONCE = 5.0


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "x.db"


def child(file: Path, verb: str, *script: Any, **more: Any) -> Any:
    return child_of("acts", file, verb, json.dumps({"script": script, **more}))


def key_of(line: str) -> str:
    return line.rsplit(" ", 1)[1]


class Here:
    """The same crew in this process, on the same file."""

    def __init__(self, runtime: Runtime, mine: list[Any], theirs: list[Any]) -> None:
        self.ran: list[str] = []
        self.keys: list[str] = []
        self.crew = Crew(mine, theirs, self._inside)
        self.session: Session = self.crew.ann.session("s", user_id=USER, runtime=runtime)

    def _inside(self, name: str, key: str) -> None:
        self.ran.append(name)
        self.keys.append(key)

    async def resume(self) -> Response:
        with anyio.fail_after(AT_ONCE):
            return await self.session.resume_async()


Open = Callable[..., Here]


@pytest.fixture
async def here(file: Path) -> AsyncIterator[Open]:
    async with Runtime(f"sqlite:///{file}") as runtime:

        def opened(*mine: Any, theirs: Sequence[Any] = ()) -> Here:
            return Here(runtime, list(mine), list(theirs))

        yield opened


def results(messages: list[Message]) -> list[tuple[str, str | None]]:
    """The results of tools, with why there is none."""
    return [(m.text, (m.metadata or {}).get("outcome")) for m in messages if m.role == "tool"]


async def test_killed_before_the_model_answered_the_model_is_asked_again(
    file: Path, here: Open
) -> None:
    with child(file, "run", {"pause": "asked", "then": "never"}) as other:
        assert other.hear() == "asked"
        other.kill()
    mine = here("Done.", "Next.")
    response = await mine.resume()
    assert (response.text, response.agent) == ("Done.", "ann")
    assert said(await check_whole(mine.session)) == [("user", "Go"), ("assistant", "Done.")]
    assert said(mine.crew.mine.requests[0].messages) == [("user", "Go")]
    assert "turn.abandoned" not in await kinds(mine.session)
    assert len(await mine.session.events(types="turn.started")) == 1
    assert (await mine.session.run_async("More")).text == "Next."


async def test_killed_inside_a_tool_its_outcome_is_unknown_and_it_does_not_run_again(
    file: Path, here: Open
) -> None:
    with child(file, "run", [["charge", {"what": "5"}]], wait=["charge 5"]) as other:
        assert other.hear().startswith("inside charge 5 ")
        other.kill()
    mine = here("I cannot tell.")
    assert (await mine.resume()).text == "I cannot tell."
    assert mine.ran == []
    [(text, outcome)] = results(await check_whole(mine.session))
    assert (outcome, "unknown" in text) == ("unknown", True)
    assert results(mine.crew.mine.requests[0].messages) == [(text, "unknown")]
    assert len(await bodies(mine.session, "tool.called")) == 1


@pytest.mark.parametrize("name", ["put", "look"])
async def test_killed_inside_a_tool_that_may_run_again_it_does_with_the_same_key(
    file: Path, here: Open, name: str
) -> None:
    with child(file, "run", [[name, {"what": "x"}]], wait=[f"{name} x"]) as other:
        line = other.hear()
        other.kill()
    mine = here("Done.")
    assert (await mine.resume()).text == "Done."
    assert mine.ran == [f"{name} x"]
    assert mine.keys == [key_of(line)]
    assert [outcome for _, outcome in results(await check_whole(mine.session))] == [None]


async def test_killed_after_the_result_no_tool_runs_again_and_its_state_is_kept(
    file: Path, here: Open
) -> None:
    script: list[Any] = [[["count", {}]], {"pause": "asked", "then": "never"}]
    with child(file, "run", *script) as other:
        other.hear()
        assert other.hear() == "asked"
        other.kill()
    mine = here([call("count")], "Done.")
    assert mine.session.get_state("count") is None
    assert mine.session.get_state("count", scope="user") is None
    assert (await mine.resume()).text == "Done."
    assert mine.ran == ["count"]
    assert results(await check_whole(mine.session)) == [("1 for kim", None), ("2 for kim", None)]
    assert mine.session.get_state("count") == 2
    assert mine.session.get_state("count", scope="user") == 2
    assert mine.session.get_state("count", scope="temp") is None
    assert "never written" not in await mine.session.export()


async def test_a_key_is_not_used_again_by_the_process_that_goes_on(file: Path, here: Open) -> None:
    charges = [[["charge", {"what": number}]] for number in "12"]
    script: list[Any] = [*charges, {"pause": "asked", "then": "never"}]
    with child(file, "run", *script) as other:
        keys = [key_of(other.hear()) for _ in range(2)]
        other.hear()
        other.kill()
    mine = here(call("charge", what="3"), "Done.", call("charge", what="4"), "Done.")
    await mine.resume()
    await mine.session.run_async("More", metadata={})
    assert mine.ran == ["charge 3", "charge 4"]
    assert len({*keys, *mine.keys}) == 4
    await check_whole(mine.session)


async def test_a_key_is_of_its_turn_also_when_the_model_uses_one_id_for_all(
    here: Open,
) -> None:
    same = ToolCall("same", "charge", {"what": "x"})
    mine = here([same, same], same, "Done.", same, "Done.", same, "Done.")
    for _ in range(3):
        await mine.session.run_async("Go")
    assert len(set(mine.keys)) == 5
    await check_whole(mine.session)


async def test_killed_again_and_again_in_the_same_tool_it_still_goes_on(
    file: Path, here: Open
) -> None:
    keys: list[str] = []
    with child(file, "run", [["put", {"what": "x"}]], wait=["put x"]) as other:
        keys.append(key_of(other.hear()))
        other.kill()
    for _ in range(2):
        with child(file, "resume", wait=["put x"]) as other:
            keys.append(key_of(other.hear()))
            other.kill()
    mine = here("Done.")
    assert (await mine.resume()).text == "Done."
    assert {*keys, *mine.keys} == {keys[0]}
    assert results(await check_whole(mine.session)) == [("put x", None)]
    assert len(await mine.session.events(types="turn.resumed")) == 3


async def test_killed_in_the_turn_that_went_on_nothing_runs_twice(file: Path, here: Open) -> None:
    with child(file, "run", [["charge", {"what": "1"}]], wait=["charge 1"]) as other:
        other.hear()
        other.kill()
    script: list[Any] = [[["charge", {"what": "2"}]], {"pause": "asked", "then": "never"}]
    with child(file, "resume", *script) as other:
        assert other.hear().startswith("inside charge 2")
        assert other.hear() == "asked"
        other.kill()
    mine = here("Done.")
    assert (await mine.resume()).text == "Done."
    assert mine.ran == []
    history = await check_whole(mine.session)
    assert [outcome for _, outcome in results(history)] == ["unknown", None]
    assert results(history)[1][0] == "charged 2"


@pytest.mark.parametrize("where", ["before it speaks", "in its tool"])
async def test_killed_after_a_handoff_the_new_agent_goes_on(
    file: Path, here: Open, where: str
) -> None:
    asked, tooled = {"pause": "bob", "then": "never"}, [["put", {"what": "x"}]]
    theirs = [asked if where == "before it speaks" else tooled]
    with child(
        file, "run", [["transfer_to_bob", {"reason": "r"}]], theirs=theirs, wait=["put x"]
    ) as other:
        other.hear()
        other.kill()
    mine = here("Ann.", theirs=["Bob here."])
    response = await mine.resume()
    assert (response.text, response.agent, mine.session.floor) == ("Bob here.", "bob", "bob")
    assert len(await bodies(mine.session, "handoff")) == 1
    await check_whole(mine.session)
    assert mine.crew.mine.requests == []


async def test_killed_while_calls_run_at_once_each_gets_what_is_its_due(
    file: Path, here: Open
) -> None:
    calls: list[Any] = [
        ["charge", {"what": "1"}],
        ["charge", {"what": "2"}],
        ["put", {}],
        ["look", {}],
    ]
    waiting = ["charge 2", "put ", "look "]
    with child(file, "run", calls, wait=waiting) as other:
        for _ in calls:
            other.hear()
        mine = here("Done.")
        with anyio.fail_after(AT_ONCE):
            while "tool.returned" not in await kinds(mine.session):
                await asyncio.sleep(0.01)
        other.kill()
    assert (await mine.resume()).text == "Done."
    assert sorted(mine.ran) == ["look ", "put "]
    history = await check_whole(mine.session)
    told = {m.tool_call_id: m for m in history if m.role == "tool"}
    assert told["call_1"].text == "charged 1"
    assert (told["call_2"].metadata or {})["outcome"] == "unknown"
    assert (told["call_3"].text, told["call_4"].text) == ("put ", "saw ")


async def test_when_nothing_is_open_there_is_nothing_to_resume(here: Open) -> None:
    mine = here("Done.")
    await mine.session.run_async("Go")
    before = await kinds(mine.session)
    with pytest.raises(UsageError, match="nothing to resume"):
        await mine.resume()
    assert await kinds(mine.session) == before


async def test_while_the_holder_lives_nobody_else_goes_on(file: Path, here: Open) -> None:
    with child(file, "run", {"pause": "asked", "then": "Done."}) as other:
        other.hear()
        mine = here("never")
        with pytest.raises(SessionBusy, match="another process"):
            await mine.resume()
        other.tell()
        assert other.hear() == "ended Done."
        with pytest.raises(UsageError, match="nothing to resume"):
            await mine.resume()
    assert said(await check_whole(mine.session)) == [("user", "Go"), ("assistant", "Done.")]


async def test_of_two_processes_that_resume_at_once_one_does(file: Path, here: Open) -> None:
    script: list[Any] = [[["charge", {"what": "1"}]], {"pause": "asked", "then": "never"}]
    with child(file, "run", *script) as other:
        other.hear()
        other.hear()
        other.kill()
    given = json.dumps({"script": [[["charge", {"what": "2"}]], "Done."], "at_once": True})
    with children("acts", file, "resume", given, count=3) as racing:
        for each in racing:
            assert each.hear() == "ready"
        for each in racing:
            each.tell()
        heard = [last_of(each) for each in racing]
    assert heard.count("ended Done.") == 1
    assert set(heard) <= {"ended Done.", "failed SessionBusy", "failed UsageError"}
    mine = here()
    assert results(await check_whole(mine.session)) == [("charged 1", None), ("charged 2", None)]
    assert len(await bodies(mine.session, "turn.resumed")) == 1


def last_of(each: Child) -> str:
    """What a child says at its end."""
    while not (line := each.hear()).startswith(("ended", "failed")):
        pass
    return line


@pytest.mark.parametrize(
    ("tools", "kept"),
    [
        pytest.param("", [], id="nothing done"),
        pytest.param("put look", [], id="harmless"),
        pytest.param("charge", [("charged ", None)], id="harmful"),
    ],
)
async def test_a_new_run_instead_closes_it_as_abandoned(
    file: Path, here: Open, tools: str, kept: list[Any]
) -> None:
    calls: list[Any] = [[name, {}] for name in tools.split()]
    script = [*([calls] if calls else []), {"pause": "asked", "then": "never"}]
    with child(file, "run", *script) as other:
        while other.hear() != "asked":
            pass
        other.kill()
    mine = here("New.")
    with anyio.fail_after(AT_ONCE):
        assert (await mine.session.run_async("Other")).text == "New."
    history = await check_whole(mine.session)
    assert results(history) == kept
    assert said(history)[-2:] == [("user", "Other"), ("assistant", "New.")]
    assert (("user", "Go") in said(history)) == bool(kept)
    assert (await kinds(mine.session)).count("turn.abandoned") == 1
    with pytest.raises(UsageError, match="nothing to resume"):
        await mine.resume()


async def test_a_new_run_instead_is_answered_by_whoever_had_the_floor_before(
    file: Path, here: Open
) -> None:
    mine = here("Hi.", "Ann.", "Ann.", theirs=["Bob."])
    await mine.session.run_async("Hello")
    theirs = [{"pause": "asked", "then": "never"}]
    with child(file, "run", [["transfer_to_bob", {}]], theirs=theirs) as other:
        assert other.hear() == "asked"
        other.kill()
    assert (await mine.session.run_async("Other")).agent == "ann"
    assert mine.session.floor == "ann"
    assert said(await check_whole(mine.session))[-2:] == [("user", "Other"), ("assistant", "Ann.")]


async def test_the_key_of_a_run_that_was_killed_gives_its_answer_after_the_resume(
    file: Path, here: Open
) -> None:
    script: list[Any] = [[["charge", {"what": "1"}]], {"pause": "asked", "then": "never"}]
    with child(file, "run", *script, key="k") as other:
        other.hear()
        other.hear()
        other.kill()
    mine = here("Done.")
    first = await mine.resume()
    again = await mine.session.run_async("Go", idempotency_key="k")
    assert (again.text, again.turn) == ("Done.", first.turn)
    assert [m.text for m in again.messages] == [m.text for m in first.messages]
    assert len(mine.crew.mine.requests) == 1
    assert mine.ran == []
    with child(file, "run", key="k") as third:
        assert third.hear() == "ended Done."


async def test_a_repeated_run_instead_of_a_resume_runs_anew(file: Path, here: Open) -> None:
    with child(file, "run", {"pause": "asked", "then": "never"}, key="k") as other:
        other.hear()
        other.kill()
    mine = here("Done.")
    assert (await mine.session.run_async("Go", idempotency_key="k")).text == "Done."
    assert (await mine.session.run_async("Go", idempotency_key="k")).text == "Done."
    assert said(await check_whole(mine.session)) == [("user", "Go"), ("assistant", "Done.")]


async def test_what_waits_for_an_approval_survives_the_process(file: Path, here: Open) -> None:
    calls: list[Any] = [["refund", {"what": "5"}], ["charge", {"what": "1"}]]
    with child(file, "run", calls) as other:
        other.hear()
        assert other.hear() == "ended waits 1"
        other.kill()
    mine = here("Done.")
    [waiting] = mine.session.pending
    mine.session.approve(waiting.id)
    assert (await mine.resume()).text == "Done."
    assert mine.ran == ["refund 5"]
    told = sorted(results(await check_whole(mine.session)))
    assert told == [("charged 1", None), ("refunded 5", None)]


async def test_an_approved_tool_that_was_cut_off_does_not_run_again(file: Path, here: Open) -> None:
    with child(file, "run", [["refund", {"what": "5"}]]) as other:
        assert other.hear() == "ended waits 1"
        other.kill()
    mine = here("I cannot tell.")
    mine.session.approve(mine.session.pending[0].id)
    with child(file, "resume", wait=["refund 5"]) as other:
        other.hear()
        other.kill()
    assert mine.session.pending == []
    assert (await mine.resume()).text == "I cannot tell."
    assert mine.ran == []
    assert [outcome for _, outcome in results(await check_whole(mine.session))] == ["unknown"]


async def killed_beside_a_call_that_waits(file: Path) -> None:
    """A process that died while a tool ran, and another call of the answer waits for a person."""
    calls: list[Any] = [["refund", {"what": "5"}], ["put", {"what": "x"}]]
    with child(file, "run", calls, wait=["put x"]) as other:
        other.hear()
        other.kill()


async def test_killed_beside_a_call_that_waits_the_decision_can_still_be_made(
    file: Path, here: Open
) -> None:
    await killed_beside_a_call_that_waits(file)
    mine = here("Done.")
    [waiting] = mine.session.pending
    mine.session.approve(waiting.id)
    response = await mine.resume()
    assert response.text == "Done."
    assert sorted(mine.ran) == ["put x", "refund 5"]
    await check_whole(mine.session)


async def test_killed_beside_a_call_that_waits_a_resume_suspends_it_or_says_what_to_do(
    file: Path, here: Open
) -> None:
    await killed_beside_a_call_that_waits(file)
    mine = here("Done.")
    try:
        response = await mine.resume()
        assert [each.name for each in response.pending] == ["refund"]
    except SessionBusy:
        pass
    assert [each.name for each in mine.session.pending] == ["refund"]


async def test_a_decision_that_nobody_waits_for_leaves_what_was_killed_to_be_resumed(
    file: Path, here: Open
) -> None:
    with child(file, "run", {"pause": "asked", "then": "never"}) as other:
        other.hear()
        other.kill()
    mine = here("Done.")
    with pytest.raises(UsageError, match="waits for an approval"):
        mine.session.approve("call_1")
    assert (await mine.resume()).text == "Done."


APPROVED = [
    "session.created turn.started message.added",
    "usage message.added approval.requested",
    "turn.suspended",
    "approval.granted",
    "turn.resumed",
    "tool.called",
    "inside refund 5",
    "tool.returned message.added",
    "usage message.added turn.completed",
]


@pytest.mark.parametrize("steps", range(1, 9))
async def test_killed_anywhere_around_an_approval_the_turn_can_be_finished(
    file: Path, here: Open, steps: int
) -> None:
    script: list[Any] = [[["refund", {"what": "5"}]], "Done."]
    with child(file, "all", *script, stepped=True, wait=["refund 5"]) as other:
        heard = [other.hear()]
        while len(heard) < steps:
            other.tell()
            heard.append(other.hear())
        other.kill()
    ran = [line.rsplit(" ", 1)[0] if line.startswith("inside") else line for line in heard]
    assert ran == APPROVED[:steps]
    again = [call("refund", what="5")] if steps == 1 else []
    mine = here(*again, "Done.")
    response = await finish(mine)
    assert response.text == "Done."
    history = await check_whole(mine.session)
    assert ran.count("inside refund 5") + len(mine.ran) == (0 if steps == 6 else 1)
    assert [outcome for _, outcome in results(history)] == ["unknown" if steps in (6, 7) else None]


async def finish(mine: Here) -> Response:
    """Approve what waits, and go on, until there is an answer."""
    for _ in range(3):
        for each in mine.session.pending:
            mine.session.approve(each.id)
        response = await mine.resume()
        if not response.pending:
            return response
    raise AssertionError("it waits again and again")


async def test_what_waited_for_the_turn_comes_in_with_the_next(file: Path, here: Open) -> None:
    with child(file, "run", {"pause": "asked", "then": "never"}, queued="Second") as other:
        assert other.hear() == "asked"
        mine = here("Done.", "Next.")
        with anyio.fail_after(AT_ONCE):
            while not await mine.session._host.store.inputs(1):  # pyright: ignore[reportPrivateUsage]
                await asyncio.sleep(0.01)
        other.kill()
    assert (await mine.resume()).text == "Done."
    assert [m.text for m in mine.session.pending_inputs] == ["Second"]
    assert (await mine.session.run_async("Third")).text == "Next."
    assert [m.text for m in await check_whole(mine.session)] == [
        "Go",
        "Done.",
        "Second",
        "Third",
        "Next.",
    ]
    assert mine.session.pending_inputs == []


@pytest.mark.parametrize("steps", range(1, 8))
async def test_a_turn_that_was_written_by_hand_is_gone_on_with_by_an_agent(
    file: Path, steps: int
) -> None:
    with child_of("steps", file, "by hand", "unknown") as other:
        other.hear()
        for _ in range(steps - 1):
            other.tell()
            other.hear()
        other.kill()
    model = ScriptedModel("Done by an agent.", "Next.")
    async with Runtime(f"sqlite:///{file}") as runtime:
        session = Agent("ann", model).session("s", runtime=runtime)
        with anyio.fail_after(AT_ONCE):
            assert (await session.resume_async()).text == "Done by an agent."
        history = await check_whole(session)
        assert said(model.requests[0].messages) == said(history)[:-1]
        assert (await session.run_async("More")).text == "Next."


CUTS = [
    *[("agent", effect, n) for effect in ("unknown", "idempotent", "none") for n in range(1, 8)],
    *[("agent at once", effect, n) for effect in ("unknown", "none") for n in (2, 3, 4, 5)],
]


def by_results(cards: list[str], *, at_once: bool) -> Callable[[ModelRequest], Any]:
    """What the model of the program `steps` says, told from what it sees."""

    def answer(request: ModelRequest) -> Any:
        done = sum(message.role == "tool" for message in request.messages)
        if done == len(cards):
            return "answer"
        calls = [ToolCall(card, "charge", {"card": card}) for card in cards]
        return calls if at_once else calls[done]

    return answer


@pytest.mark.parametrize(("driver", "effect", "steps"), CUTS)
async def test_killed_after_any_commit_it_goes_on_and_charges_no_card_twice(
    file: Path, driver: str, effect: Effect, steps: int
) -> None:
    began: list[str] = []
    with child_of("steps", file, driver, effect) as other:
        heard = [other.hear()]
        while len(heard) < steps:
            other.tell()
            heard.append(other.hear())
        other.kill()
    began += [line.removeprefix("inside ") for line in heard if line.startswith("inside")]
    finished = sum(line.count("tool.returned") for line in heard)

    @tool(effect=effect)
    def charge(card: str, context: RunContext) -> str:
        """Charge a card."""
        began.append(card)
        return f"charged {card}"

    async with Runtime(f"sqlite:///{file}") as runtime:
        step = by_results(["x", "y"], at_once=driver == "agent at once")
        agent = Agent("ann", ScriptedModel(*[step] * 3), tools=[charge])
        session = agent.session("s", runtime=runtime)
        with anyio.fail_after(AT_ONCE):
            response = await session.resume_async()
        assert response.text == "answer"
        history = await check_whole(session)
        assert [m.role for m in history].count("tool") == 2
        told = {m.tool_call_id: (m.text, m.metadata) for m in history if m.role == "tool"}
        for card in ("x", "y"):
            text, metadata = told[card]
            if (metadata or {}).get("outcome") == "unknown":
                assert effect == "unknown"
                assert began.count(card) <= 1
            else:
                assert text == f"charged {card}"
                assert 1 <= began.count(card) <= (1 if effect == "unknown" else 2)
        assert len(began) <= 2 + (0 if effect == "unknown" else 2 - finished)
