"""The server under the names of the other SDK."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from tertulia.compat.atoms.session import CrewSession
from tertulia.errors import InvalidInput
from tertulia.live.session import AgentSession
from tertulia.server import AgentApp


class AtomsCrewApp(AgentApp):
    """Serves a setup handler, which gets a `CrewSession` for each client that connects.

    It is our AgentApp, and takes its options; the client's own events come back to it through
    the graph, as they do there. `run` listens on 127.0.0.1:8080 and hands its arguments to
    uvicorn. Raises ConfigurationError and InvalidInput.
    """

    def __init__(
        self, setup_handler: Callable[[CrewSession], Awaitable[None]], **options: Any
    ) -> None:
        if not callable(setup_handler):  # pyright: ignore[reportUnnecessaryComparison]
            raise InvalidInput(f"the setup handler is an async function, not {setup_handler!r}")

        def setup(session: AgentSession) -> Awaitable[None]:
            return setup_handler(CrewSession.of(session))

        options.setdefault("echo", True)
        super().__init__(setup, **options)


AtomsApp = AtomsSwarmApp = AtomsCrewApp
