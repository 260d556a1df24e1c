"""Each block runs in an empty folder, on each store; those with an agent, with each player."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.pages.players import OpenAI, Player, Scripted, server_thread, settings

from tertulia import Agent, configure


@pytest.fixture(params=["memory:", "sqlite:///pages.db"], autouse=True)
def store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The default store, with the offline model as the default model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TERTULIA_MODEL", "offline")
    configure(store=request.param)
    yield request.param
    configure(store="memory:")


@pytest.fixture
def agent() -> Agent:
    """An agent with the offline model."""
    return Agent(model="offline")


@pytest.fixture
def openai(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAI]:
    """A server that speaks OpenAI's wire format; nothing that it refuses goes unseen."""
    with server_thread() as server:
        for name, value in settings(server).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("TERTULIA_MODEL", "openai:gpt-4o")
        yield OpenAI(server)
    assert server.problems == []
    assert server.replies == []


@pytest.fixture(params=["scripted", "openai"])
def player(request: pytest.FixtureRequest) -> Player:
    """Who answers: a script in this process, or the server."""
    return Scripted() if request.param == "scripted" else request.getfixturevalue("openai")
