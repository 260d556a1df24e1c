"""Navigation against a model of it: a list of agents, whatever happens in between."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import anyio.from_thread
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.swarm.crews import NAMES, Crew, check
from tests.swarm.stage import Stage

from tertulia.errors import ModelError
from tertulia.swarm import ClientSession
from tertulia.testing import FrozenClock, call

T = TypeVar("T")
names = st.sampled_from(NAMES)


async def opened(client: ClientSession) -> None:
    await client


class NavigationMachine(RuleBasedStateMachine):
    """One client; `stack` is where it should be, and how it came there."""

    def __init__(self) -> None:
        super().__init__()
        self._portal = anyio.from_thread.start_blocking_portal("asyncio")
        self._call = self._portal.__enter__()
        self._folder = Path(tempfile.mkdtemp())
        self._stage = Stage("sqlite", self._folder, FrozenClock())
        self.stack = [NAMES[0]]
        self.marks: list[tuple[int, list[str]]] = []
        self.crew: Crew

    def teardown(self) -> None:
        try:
            self.run(check(self.client))
        finally:
            self.run(self._stage.close())
            self._portal.__exit__(None, None, None)
            shutil.rmtree(self._folder)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something on the loop of the machine."""

        async def wait() -> T:
            return await work

        return self._call.call(wait)

    @property
    def client(self) -> ClientSession:
        return self.crew.client()

    def visit(self, name: str) -> None:
        if self.stack[-1] != name:
            self.stack.append(name)

    @initialize()
    def begin(self) -> None:
        self.crew = Crew(self._stage, rescue="raise")
        self.crew.script(triage="Hello.")
        self.run(self.client.execute("Hello"))

    @rule(name=names)
    def go(self, name: str) -> None:
        assert self.run(self.client.change_agent(name)) == name
        self.visit(name)

    @rule()
    def go_home(self) -> None:
        assert self.run(self.client.change_to_default()) == NAMES[0]
        self.visit(NAMES[0])

    @rule()
    def go_back(self) -> None:
        if len(self.stack) > 1:
            self.stack.pop()
        assert self.run(self.client.change_to_previous()) == self.stack[-1]

    @rule()
    def talk(self) -> None:
        self.crew.script(**{self.stack[-1]: "Yes."})
        answer = self.run(self.client.execute("Question"))
        assert (answer, answer.agent) == ("Yes.", self.stack[-1])

    @rule(name=names)
    def be_handed_over(self, name: str) -> None:
        here = self.stack[-1]
        if name == here:
            return
        self.crew.script(**{here: call(f"transfer_to_{name}")})
        self.crew.script(**{name: "Yes."})
        answer = self.run(self.client.execute("Question"))
        assert answer.agent == name
        self.visit(name)

    @rule(name=names)
    def fail_after_a_handover(self, name: str) -> None:
        here = self.stack[-1]
        if name == here:
            return
        self.crew.script(**{here: call(f"transfer_to_{name}")})
        self.crew.script(**{name: ModelError("down")})
        with pytest.raises(ModelError):
            self.run(self.client.execute("Question"))

    @rule()
    def start_again(self) -> None:
        self.run(self.crew.runtime.close())
        self.crew = Crew(self._stage, rescue="raise")
        self.run(opened(self.client))

    @rule()
    def be_disposed(self) -> None:
        self.run(self.client.dispose())

    @rule()
    def remember(self) -> None:
        seq = self.run(self.client.session.events())[-1].seq
        self.marks.append((seq, list(self.stack)))

    @precondition(lambda self: self.marks)
    @rule(data=st.data())
    def rewind(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(0, len(self.marks) - 1))
        seq, stack = self.marks[number]
        del self.marks[number:]
        self.run(self.client.session.rewind(to=seq))
        self.stack = list(stack)

    @rule()
    def forget_what_was_said(self) -> None:
        self.run(self.client.commit_flush())

    @invariant()
    def it_is_where_the_list_says(self) -> None:
        if hasattr(self, "crew"):
            assert self.client.agent == self.stack[-1]


def explore(examples: int, steps: int) -> None:
    run_state_machine_as_test(
        NavigationMachine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )


def test_navigation_is_a_stack() -> None:
    explore(examples=25, steps=20)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_navigation_is_a_stack_also_after_much_of_it() -> None:
    explore(examples=400, steps=40)
