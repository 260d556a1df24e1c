"""What a model is shown under a context budget, read from real stores."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tertulia import Agent, MemoryStore, Message, Runtime, Session
from tertulia.agents.window import PAGE, visible
from tertulia.budget import Budget
from tertulia.errors import InvalidInput
from tertulia.messages import ToolCall
from tertulia.testing import ScriptedModel

Said = tuple[int, int]
"""A turn before the running one: how many calls its only tool round has, and how long it is."""


def exchange(number: int, calls: int, size: int = 1) -> list[Message]:
    """A question, a tool round with so many calls, an answer."""
    ids = [f"{number}-{each}" for each in range(calls)]
    said = [Message.user(f"q{number} {'x' * size}")]
    if ids:
        said.append(Message.assistant(tool_calls=[ToolCall(each, "find") for each in ids]))
        said.extend(Message.tool(f"r{each}", each) for each in ids)
    return [*said, Message.assistant(f"a{number}")]


async def say(session: Session, *turns: list[Message]) -> None:
    for messages in turns:
        async with session.turn() as turn:
            await turn.add_messages(messages)


def length(message: Message) -> int:
    return len(message.text)


def texts(messages: list[Message]) -> list[str]:
    return [message.text for message in messages]


def paired(messages: list[Message]) -> bool:
    """Whether each call is followed by its results, and each result has its call."""
    open_calls: set[str] = set()
    for message in messages:
        if message.role == "tool":
            if message.tool_call_id not in open_calls:
                return False
            open_calls.discard(message.tool_call_id)
        elif open_calls:
            return False
        open_calls.update(call.id for call in message.tool_calls or ())
    return not open_calls


async def shown(session: Session, **budget: Any) -> list[str]:
    """What is shown to who answers "now?" in a fork, so that the session stays as it is."""
    fork = session.fork()
    async with fork.turn("now?") as turn:
        return texts(await visible(fork, turn.number, Budget(**budget)))


@settings(max_examples=60, deadline=None)
@given(
    turns=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 40)), max_size=12),
    running=st.integers(0, 3),
    keep_last=st.none() | st.integers(1, 20),
    tokens=st.none() | st.integers(1, 200),
)
async def test_what_is_shown_is_the_newest_that_fits_with_the_question(
    turns: list[Said], running: int, keep_last: int | None, tokens: int | None
) -> None:
    budget = Budget(keep_last=keep_last, max_context_tokens=tokens, count_tokens=length)
    async with Runtime(MemoryStore()) as runtime:
        session = runtime.session("s")
        await say(session, *(exchange(at, *said) for at, said in enumerate(turns)))
        async with session.turn() as turn:
            await turn.add_messages(exchange(99, running)[:-1])
            everything = await session.history()
            seen = await visible(session, turn.number, budget, "be brief")
            own = [m for m in everything if (m.seq or 0) >= turn.number]
    assert paired(seen)
    assert seen == everything[len(everything) - len(seen) :]
    assert seen[-len(own) :] == own
    assert seen[0].role == "user"
    if len(seen) > len(own):
        assert len(seen) <= (keep_last or len(seen))
        assert 8 + sum(len(m.text) for m in seen) <= (tokens or 10_000)
    if len(seen) < len(everything):  # one exchange more would not have fitted
        more = everything[: len(everything) - len(seen)]
        start = max(at for at, message in enumerate(more) if message.role == "user")
        wider = everything[start:]
        many = keep_last is not None and len(wider) > keep_last
        long = tokens is not None and 8 + sum(len(m.text) for m in wider) > tokens
        assert many or long


async def test_without_a_budget_everything_is_shown(runtime: Runtime) -> None:
    session = runtime.session("s")
    await say(session, *(exchange(number, 2) for number in range(40)))
    assert len(await shown(session)) == 201
    async with session.turn("now?") as turn:
        assert await visible(session, turn.number) == await session.history()


async def test_keep_last_counts_the_running_turn(runtime: Runtime) -> None:
    session = runtime.session("s")
    await say(session, *(exchange(number, 0) for number in range(5)))
    assert await shown(session, keep_last=1) == ["now?"]
    assert await shown(session, keep_last=2) == ["now?"]
    assert await shown(session, keep_last=3) == ["q4 x", "a4", "now?"]
    assert await shown(session, keep_last=4) == ["q4 x", "a4", "now?"]


async def test_a_turn_that_is_over_the_budget_is_shown_whole(runtime: Runtime) -> None:
    session = runtime.session("s")
    await say(session, exchange(1, 0))
    async with session.turn() as turn:
        await turn.add_messages(exchange(2, 3)[:-1])
        seen = await visible(session, turn.number, Budget(keep_last=1, max_context_tokens=1))
        assert len(seen) == 5
        assert paired(seen)


async def test_a_running_turn_longer_than_a_page_is_shown_whole(runtime: Runtime) -> None:
    session = runtime.session("s")
    await say(session, exchange(1, 0))
    async with session.turn("go") as turn:
        for number in range(PAGE):
            await turn.add_messages(exchange(number, 1)[1:-1])
        seen = await visible(session, turn.number, Budget(keep_last=3))
        assert len(seen) == 2 * PAGE + 1
        assert seen[0].text == "go"


async def test_the_system_prompt_is_part_of_the_tokens(runtime: Runtime) -> None:
    session = runtime.session("s")
    await say(session, [Message.user("12345")], [Message.user("67890")])
    budget = Budget(max_context_tokens=14, count_tokens=length)
    async with session.turn("now?") as turn:
        assert texts(await visible(session, turn.number, budget)) == ["12345", "67890", "now?"]
        seen = await visible(session, turn.number, budget, "brief")
        assert texts(seen) == ["67890", "now?"]


async def test_the_summary_of_a_prune_stays_in_front_where_it_fits(runtime: Runtime) -> None:
    session = runtime.session("s")
    await say(session, *(exchange(number, 0) for number in range(6)))
    await session.prune("summarize_old", threshold=6, summarize=lambda _: "SUMMARY")
    assert texts(await session.history())[0] == "SUMMARY"
    everything = await shown(session, keep_last=100)
    assert everything[0] == "SUMMARY"
    assert len(everything) == 8
    assert await shown(session, keep_last=4) == ["SUMMARY", "q5 x", "a5", "now?"]
    assert await shown(session, keep_last=1) == ["now?"]
    tight: dict[str, Any] = {"max_context_tokens": 8, "count_tokens": length}
    assert await shown(session, **tight) == ["now?"]


async def test_a_budget_touches_nothing_that_is_stored(runtime: Runtime) -> None:
    session = runtime.session("s")
    await say(session, *(exchange(number, 1) for number in range(10)))
    before = await session.history()
    async with session.turn("now?") as turn:
        assert len(await visible(session, turn.number, Budget(keep_last=1))) == 1
        assert (await session.history())[:-1] == before
    assert (await session.history())[:-1] == before


async def test_a_counter_that_gives_no_count_is_refused(runtime: Runtime) -> None:
    def below_zero(_: Message) -> int:
        return -1

    session = runtime.session("s")
    with pytest.raises(InvalidInput, match="count_tokens gave -1"):
        await shown(session, max_context_tokens=5, count_tokens=below_zero)


def summary_of(_: list[Message]) -> str:
    return "SUMMARY"


class CountingStore(MemoryStore):
    """A store that counts the messages that are read from it."""

    read = 0

    async def messages(self, *args: Any, **options: Any) -> Any:
        found = await super().messages(*args, **options)
        self.read += len(found)
        return found


@pytest.mark.parametrize("pruned", [False, True])
async def test_what_is_read_does_not_grow_with_the_session(pruned: bool) -> None:
    costs: list[int] = []
    for many in (100, 20_000):
        store = CountingStore()
        async with Runtime(store) as runtime:
            session = runtime.session("s")
            messages = [m for number in range(many // 4) for m in exchange(number, 1)]
            await session.send_messages(messages)
            if pruned:
                await session.prune("summarize_old", threshold=90, summarize=summary_of)
            async with session.turn("now?") as turn:
                store.read = 0
                seen = await visible(session, turn.number, Budget(keep_last=20))
                costs.append(store.read)
            assert 15 < len(seen) <= 20
    assert costs[0] == costs[1] <= 42


async def test_an_agent_sends_its_model_no_more_than_its_budget(runtime: Runtime) -> None:
    def look() -> str:
        """Look around."""
        return "seen"

    model = ScriptedModel(ToolCall("c1", "look"), ToolCall("c2", "look"), "done", "again")
    agent = Agent(model=model, tools=[look], keep_last=3)
    session = agent.session("s", runtime=runtime)
    await say(session, *(exchange(number, 1) for number in range(5)))
    await session.run_async("look twice")
    sent = [texts(request.messages) for request in model.requests]
    assert sent[0] == ["look twice"]
    assert sent[1] == ["look twice", "", "seen"]
    assert sent[2] == ["look twice", "", "seen", "", "seen"]
    await session.run_async("and now?", keep_last=100)
    assert len(model.requests[3].messages) == len(await session.history()) - 1
