"""What a session shows, against a model that keeps every list that was ever shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tertulia import MemoryStore, Message, Runtime, Session, gaps
from tertulia.doors import call
from tertulia.stores.base import Mark, MarkKind, Segment

Operation = tuple[str, int]

OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(
            "say say group turn fail fail prune important clear summarize "
            "rewind fork state switch".split()
        ),
        st.integers(0, 1_000),
    ),
    max_size=25,
)


@dataclass
class Branch:
    """A session with what it should show, and what it showed at each position."""

    session: Session
    shown: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    """The text and the turn of each message."""
    state: Any = None
    showed: dict[int, tuple[list[tuple[str, int]], Any]] = field(
        default_factory=dict[int, tuple[list[tuple[str, int]], Any]]
    )

    async def note(self) -> None:
        """Remember what is to be seen now, and look whether it is."""
        events = await self.session.events()
        end = events[-1].seq if events else 0
        self.showed[end] = (list(self.shown), self.state)
        expected = [text for text, _ in self.shown]
        assert [m.text for m in await self.session.history()] == expected
        assert self.session.get_state("k") == self.state

    async def check(self, number: int) -> None:
        """Look at every position, from every end."""
        for position, (shown, _) in self.showed.items():
            history = await self.session.history(at=position)
            assert [m.text for m in history] == [text for text, _ in shown], position
        texts = [text for text, _ in self.shown]
        limit = number % 5 + 1
        limited = [m.text for m in await self.session.history(limit=limit)]
        assert texts[len(texts) - len(limited) :] == limited
        if not any(self.showed):
            return
        verified = await self.session.verify()
        assert verified, verified.reason


class World:
    """All branches of one conversation."""

    def __init__(self) -> None:
        self.runtime = Runtime(MemoryStore())
        self.branches = [Branch(self.runtime.session("0"))]
        self.now = self.branches[0]
        self.count = 0

    def text(self) -> str:
        self.count += 1
        return f"m{self.count}"

    async def apply(self, what: str, number: int) -> None:
        if what == "switch":
            self.now = self.branches[number % len(self.branches)]
        elif what == "fork":
            await self.fork(number)
        elif what == "rewind":
            await self.rewind(number)
        elif what in ("prune", "important", "clear", "summarize"):
            await self.hide(what, number % 6 + 1)
        else:
            await self.write(what, number)
        await self.now.note()

    async def write(self, what: str, number: int) -> None:
        session, shown = self.now.session, self.now.shown
        if what == "say":
            sent = await session.send_message({"role": "user", "content": self.text()})
            shown.append((sent.text, sent.seq or 0))
        elif what == "group":
            calls = {"role": "assistant", "content": self.text()}
            calls["tool_calls"] = [{"id": "x", "name": "f"}]  # pyright: ignore[reportArgumentType]
            answer = {"role": "tool", "tool_call_id": "x", "content": self.text()}
            sent = await session.send_messages([calls, answer])
            shown += [(m.text, sent[0].seq or 0) for m in sent]
        elif what == "state":
            await session.set_state("k", number)
            self.now.state = number
        else:
            await self.turn(fails=what == "fail")

    async def turn(self, *, fails: bool) -> None:
        question, answer = self.text(), self.text()
        try:
            async with self.now.session.turn(question) as turn:
                await turn.add_message(Message.assistant(answer))
                if fails:
                    raise ConnectionError
        except ConnectionError:
            return
        self.now.shown += [(question, turn.number), (answer, turn.number)]

    async def hide(self, what: str, keep: int) -> None:
        session, shown = self.now.session, self.now.shown
        if what == "clear":
            session.clear()
            shown.clear()
        elif what == "important":
            await session.prune("keep_important", n=keep, judge=lambda m: m.text.endswith("1"))
            stay = {turn for _, turn in shown[-keep:]}
            stay |= {turn for text, turn in shown if text.endswith("1") or text == "sum"}
            shown[:] = [one for one in shown if one[1] in stay]
        else:
            shown[:] = await self.keep_last(what, keep)

    async def keep_last(self, what: str, keep: int) -> list[tuple[str, int]]:
        """What should be left; the report says what stands for the rest."""
        session = self.now.session
        if what == "prune":
            report = await session.prune("keep_last_n", n=keep)
        else:
            report = await session.prune("summarize_old", threshold=keep, summarize=lambda _: "sum")
        if not report and report.summary is None:
            return self.now.shown
        messages = [(text, turn) for text, turn in self.now.shown if text != "sum"]
        assert report.position is not None
        left = [one for one in messages if one[1] > report.position]
        assert len(left) <= keep or len({turn for _, turn in left}) == 1
        return [("sum", 0), *left] if report.summary is not None else left

    async def rewind(self, number: int) -> None:
        positions = sorted(self.now.showed)
        if positions:
            to = positions[number % len(positions)]
            await self.now.session.rewind(to)
            shown, self.now.state = self.now.showed[to]
            self.now.shown = list(shown)

    async def fork(self, number: int) -> None:
        positions = sorted(self.now.showed)
        if not positions or len(self.branches) > 6:
            return
        at = positions[number % len(positions)]
        session = self.now.session.fork(str(len(self.branches)), at=at)
        shown, state = self.now.showed[at]
        showed = {place: seen for place, seen in self.now.showed.items() if place <= at}
        self.now = Branch(session, list(shown), state, showed)
        self.branches.append(self.now)


@pytest.mark.parametrize("page", [gaps.PAGE, 1])
@settings(max_examples=150, deadline=None)
@given(operations=OPERATIONS)
def test_a_session_shows_what_the_model_shows(page: int, operations: list[Operation]) -> None:
    async def run() -> None:
        world = World()
        for what, number in operations:
            await world.apply(what, number)
        for branch in world.branches:
            await branch.check(len(operations))
        await world.runtime.close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gaps, "PAGE", page)
        call(run())


class CountingStore(MemoryStore):
    """Counts the marks that were read."""

    read = 0

    async def marks(
        self, segment: Segment, kind: MarkKind, *, below: int, limit: int = 64
    ) -> list[Mark]:
        found = await super().marks(segment, kind, below=below, limit=limit)
        self.read += len(found)
        return found


async def test_the_newest_messages_are_found_without_reading_all_that_was_hidden() -> None:
    store = CountingStore()
    session = Runtime(store).session("s")
    said = [{"role": "user", "content": str(number)} for number in range(1_000)]
    await session.send_messages(said)

    def is_important(message: Message) -> bool:
        return int(message.text) % 4 == 0

    await session.prune("keep_important", n=5, judge=is_important)
    store.read = 0
    newest = [message.text for message in await session.history(limit=10)]
    assert newest == ["976", "980", "984", "988", "992", "995", "996", "997", "998", "999"]
    assert store.read <= gaps.PAGE
    older = await session.history(limit=200)
    assert [m.text for m in older[:3]] == ["216", "220", "224"]
