"""Bars: on a terminal only, and only for what is long."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable

import pytest

from tertulia import MemoryStore, Runtime
from tertulia.cli import progress
from tertulia.cli.progress import Bar, counted


class Screen(io.StringIO):
    """A terminal that remembers what it showed."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool, float], str]:
    """Do ten steps of work in front of a screen; what that shows."""

    def on(terminal: bool, patience: float) -> str:
        screen = Screen(terminal=terminal)
        monkeypatch.setattr(sys, "stderr", screen)
        monkeypatch.setattr(progress, "PATIENCE", patience)
        monkeypatch.setenv("TERM", "xterm")
        bar = Bar("counting", 10)
        for _ in range(10):
            bar.advance()
        bar.close()
        return screen.getvalue()

    return on


def test_long_work_on_a_terminal_shows_a_bar(work: Callable[[bool, float], str]) -> None:
    assert "counting" in work(True, 0)


def test_short_work_shows_none(work: Callable[[bool, float], str]) -> None:
    assert work(True, 60) == ""


def test_without_a_terminal_there_is_none(work: Callable[[bool, float], str]) -> None:
    assert work(False, 0) == ""


async def test_a_counted_store_tells_what_is_read_and_is_the_same_otherwise() -> None:
    bar = Bar("verify")
    store = MemoryStore()
    async with Runtime(counted(store, bar)) as runtime:
        session = runtime.session("s")
        for number in range(3):
            await session.send_message({"role": "user", "content": str(number)})
        events = await session.events()
        assert bar.done >= len(events) == 4
        assert runtime.store.url == store.url
