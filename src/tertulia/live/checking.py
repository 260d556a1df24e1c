"""The check of a setup handler: what it builds, without a client."""

from __future__ import annotations

from typing import Any, cast

from tertulia.graph import Graph
from tertulia.live.nodes import Node


class SetupChecked(BaseException):
    """Raised by `start` where a setup handler is only checked; no handler should catch it."""

    def __init__(self, graph: Graph[Node]) -> None:
        super().__init__("the setup handler was checked")
        self.graph = drawn(graph)
        self.nodes = graph.nodes


def checked(error: BaseException) -> SetupChecked | None:
    """The end of a check in what a setup handler raised, also inside of a task group."""
    if isinstance(error, BaseExceptionGroup):
        inside = cast("BaseExceptionGroup[BaseException]", error).exceptions
        return next((found for each in inside if (found := checked(each))), None)
    return error if isinstance(error, SetupChecked) else None


def drawn(graph: Graph[Node]) -> dict[str, Any]:
    """A graph as JSON."""
    places = {id(node): number for number, node in enumerate(graph.nodes)}
    return {
        "nodes": [{"name": node.name, "kind": type(node).__name__} for node in graph.nodes],
        "edges": [[places[id(parent)], places[id(child)]] for parent, child in graph.edges],
        "mermaid": graph.to_mermaid(),
    }
