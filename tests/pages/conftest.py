"""Each block runs in an empty folder, on each store; those with an agent, with each player."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from tests.agents import anthropic_server, openai_server
from tests.pages.players import Player, Provider, Scripted, provider_thread, settings

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


def provider(wire: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    """A server that speaks a wire format; nothing that it refuses goes unseen."""
    with provider_thread(wire) as player:
        for name, value in settings(player).items():
            monkeypatch.setenv(name, value)
        yield player
    assert player.server.problems == []
    assert player.server.replies == []


@pytest.fixture
def openai(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    """OpenAI, as any endpoint that is compatible with it."""
    yield from provider(openai_server, monkeypatch)


@pytest.fixture
def anthropic(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    """Anthropic."""
    yield from provider(anthropic_server, monkeypatch)


@pytest.fixture(params=["scripted", "openai", "anthropic"])
def player(request: pytest.FixtureRequest) -> Player:
    """Who answers: a script in this process, or the server of a provider."""
    return Scripted() if request.param == "scripted" else request.getfixturevalue(request.param)
