"""The server under the names of the other SDK."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

from tertulia.compat.atoms.session import CrewSession
from tertulia.live.session import Setup
from tertulia.server import AgentApp


class AtomsCrewApp(AgentApp):
    """Serves a setup handler, which gets a `CrewSession` for each client that connects.

    It is our AgentApp, and takes its options; the client's own events come back to it through
    the graph, as they do there. `run` listens on 127.0.0.1:8080 and hands its arguments to
    uvicorn. Raises ConfigurationError and InvalidInput.
    """

    session_class = CrewSession

    def __init__(
        self, setup_handler: Callable[[CrewSession], Awaitable[None]], **options: Any
    ) -> None:
        options.setdefault("echo", True)
        super().__init__(cast("Setup", setup_handler), **options)


AtomsApp = AtomsSwarmApp = AtomsCrewApp
