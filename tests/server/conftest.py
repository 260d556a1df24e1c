"""A runtime on each store, an agent, and the HTTP API served for real."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from starlette.requests import HTTPConnection
from tests.server.web import Client, serving

from tertulia import Agent, MemoryStore, Policy, Runtime, SQLiteStore, Swarm, tool
from tertulia.errors import Unauthorized
from tertulia.policies import PolicyContext
from tertulia.server.api import routes
from tertulia.testing import ScriptedModel


class Somebody:
    """Who sent a request."""

    def __init__(self, user: str | None) -> None:
        self.user = user


async def by_name(connection: HTTPConnection) -> Somebody:
    """Whoever a token names."""
    kind, _, user = connection.headers.get("authorization", "").partition(" ")
    if kind != "Bearer" or user not in ("alice", "bob", "the-server"):
        raise Unauthorized("show a token")
    return Somebody(None if user == "the-server" else user)


@tool(requires_approval=True)
def refund(amount: int) -> str:
    """Give money back."""
    return f"refunded {amount}"


@pytest.fixture(params=["memory", "sqlite"])
async def runtime(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Runtime]:
    """A runtime on a real store."""
    store = MemoryStore() if request.param == "memory" else SQLiteStore(tmp_path / "test.db")
    made = Runtime(store)
    yield made
    await made.close()


@pytest.fixture
def model() -> ScriptedModel:
    """The model of the agent; a test adds what it says."""
    return ScriptedModel()


@pytest.fixture
def clerk(model: ScriptedModel) -> Agent:
    """The agent that is served."""
    return Agent("clerk", model=model, tools=[refund])


class NoAcme(Policy):
    """Nobody talks about Acme."""

    ban_message = "Let us talk about us."

    async def validate_input(self, message: str, context: PolicyContext, /) -> bool:
        return "Acme" not in message

    async def validate_output(self, text: str, context: PolicyContext, /) -> bool:
        return "Acme" not in text


@pytest.fixture
def shop(runtime: Runtime, clerk: Agent) -> Swarm:
    """The swarm that is served, with the clerk."""
    made = Swarm("shop", [clerk], policies=[NoAcme()])
    runtime.clients.add(made)
    return made


@pytest.fixture
async def web(runtime: Runtime, clerk: Agent, shop: Swarm) -> AsyncIterator[Client]:
    """A client that everything is allowed to."""
    async with serving(routes(runtime, agent=clerk)) as client:
        yield client


@pytest.fixture
async def guarded(runtime: Runtime, clerk: Agent, shop: Swarm) -> AsyncIterator[Client]:
    """A client of a server that asks who sends a request."""
    async with serving(routes(runtime, agent=clerk, authenticate=by_name)) as client:
        yield client
