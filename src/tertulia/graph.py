"""The event graph of one connection: nodes and edges, checked and frozen into a plan.

Events enter at the root and leave at the sink. Both are always there and neither is a node: the
root leads to the nodes without parents, the nodes without children lead to the sink.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from heapq import heappop, heappush
from itertools import chain
from typing import Final, Generic, Protocol, TypeVar

import msgspec

from tertulia.errors import GraphCycleError, GraphError

_LONGEST_LABEL: Final = 80
_MOST_NAMED: Final = 20
_PLAIN: Final = frozenset(" _-.")


class Named(Protocol):
    """What a graph is made of: anything with a name. Nodes are told apart by identity."""

    @property
    def name(self) -> str:
        """What errors and drawings call it; two nodes may have the same."""
        ...


N = TypeVar("N", bound=Named)


class Link(msgspec.Struct, Generic[N], frozen=True, eq=False):
    """One node's place in a graph; children and parents in the order their edges were added."""

    node: N
    children: tuple[N, ...]
    parents: tuple[N, ...]

    @property
    def leads_to_sink(self) -> bool:
        """Whether what the node sends goes to the sink, and to the sink only."""
        return not self.children

    @property
    def is_join(self) -> bool:
        """Whether the same event can come to the node on more than one path."""
        return len(self.parents) > 1


class Plan(msgspec.Struct, Generic[N], frozen=True, eq=False):
    """What a locked graph says: its links, parents before children, else in the order of adding.

    `roots` are the children of the root and `leaves` the parents of the sink, both in the order
    the nodes were added. Neither is ever empty.
    """

    links: tuple[Link[N], ...]
    roots: tuple[N, ...]
    leaves: tuple[N, ...]

    @property
    def order(self) -> tuple[N, ...]:
        """The nodes, parents before children, else in the order of adding."""
        return tuple(link.node for link in self.links)

    @property
    def joins(self) -> tuple[N, ...]:
        """The nodes to which the same event can come on more than one path."""
        return tuple(link.node for link in self.links if link.is_join)

    @property
    def sink_is_join(self) -> bool:
        """Whether the same event can come to the sink on more than one path."""
        return len(self.leaves) > 1


class Graph(Generic[N]):
    """Nodes and the edges along which events flow, until `lock` makes a plan of them."""

    __slots__ = ("_edges", "_locked", "_nodes")

    def __init__(self) -> None:
        self._nodes: dict[int, N] = {}
        self._edges: dict[tuple[int, int], tuple[N, N]] = {}
        self._locked = False

    @property
    def nodes(self) -> tuple[N, ...]:
        """The nodes, in the order they were added."""
        return tuple(self._nodes.values())

    @property
    def edges(self) -> tuple[tuple[N, N], ...]:
        """The edges as (parent, child), in the order they were added."""
        return tuple(self._edges.values())

    @property
    def locked(self) -> bool:
        """Whether `lock` has succeeded: nothing can be added any more."""
        return self._locked

    def add_node(self, node: N) -> None:
        """Add a node.

        Raises GraphError when it is in the graph already, has no name, or the graph is locked.
        """
        _refuse_nameless(node)
        self._refuse_if_locked(node)
        if id(node) in self._nodes:
            raise GraphError(f"node '{self._label(node)}' was added already; add each node once")
        self._nodes[id(node)] = node

    def add_edge(self, parent: N, child: N) -> None:
        """Let what `parent` sends go to `child`; either may be added as a node later.

        Raises GraphError when this edge is there already, a node has no name, or the graph is
        locked.
        """
        _refuse_nameless(parent, child)
        self._refuse_if_locked(parent, child)
        key = id(parent), id(child)
        if key in self._edges:
            edge = f"'{self._label(parent)}' -> '{self._label(child)}'"
            raise GraphError(f"edge {edge} was added already; add each edge once")
        self._edges[key] = parent, child

    def lock(self) -> Plan[N]:
        """Check the graph, freeze it and say how its nodes are linked.

        Raises GraphCycleError when an event could come back to a node, and GraphError when the
        graph is empty, an edge names a node that was never added, or the graph is locked
        already. A graph that is refused stays open.
        """
        self._refuse_if_locked()
        self._refuse_strangers()
        if not self._nodes:
            raise GraphError("the graph is empty; add at least one node before start()")
        children, parents = self._neighbours()
        order = _sorted(children, parents)
        if len(order) < len(self._nodes):
            raise self._cycle_error(parents, set(range(len(self._nodes))).difference(order))
        self._locked = True
        return _plan(self.nodes, children, parents, order)

    def to_mermaid(self) -> str:
        """Draw the graph, with root and sink, as the text of a Mermaid flowchart.

        It can be drawn before it is locked too: what `lock` would refuse is shown as it is.
        """
        labels = self._labels()
        ids = {key: f"n{number}" for number, key in enumerate(labels)}
        lines = ["flowchart LR", '    root(["root"])']
        for key, label in labels.items():
            note = "" if key in self._nodes else " (not added)"
            lines.append(f'    {ids[key]}["{_escaped(label + note)}"]')
        lines.append('    sink(["sink"])')
        parents = {parent for parent, _ in self._edges}
        children = {child for _, child in self._edges}
        lines += [f"    root --> {ids[key]}" for key in self._nodes if key not in children]
        lines += [f"    {ids[parent]} --> {ids[child]}" for parent, child in self._edges]
        lines += [f"    {ids[key]} --> sink" for key in self._nodes if key not in parents]
        return "\n".join(lines) + "\n"

    def _refuse_if_locked(self, *nodes: N) -> None:
        if not self._locked:
            return
        names = " -> ".join(f"'{self._label(node)}'" for node in nodes)
        raise GraphError(
            f"cannot {f'add {names}' if nodes else 'start again'}: the graph is locked since "
            "start(); add every node and edge before it, and start once"
        )

    def _refuse_strangers(self) -> None:
        labels = self._labels()
        found = [f"'{label}'" for key, label in labels.items() if key not in self._nodes]
        if found:
            names = ", ".join(_shortened(found))
            raise GraphError(f"edges name what was never added: {names}; add_node() each of them")

    def _neighbours(self) -> tuple[list[list[int]], list[list[int]]]:
        """The children and the parents of each node, all as places in the order of adding."""
        places = {key: place for place, key in enumerate(self._nodes)}
        children: list[list[int]] = [[] for _ in places]
        parents: list[list[int]] = [[] for _ in places]
        for parent, child in self._edges:
            children[places[parent]].append(places[child])
            parents[places[child]].append(places[parent])
        return children, parents

    def _cycle_error(self, parents: Sequence[Sequence[int]], left: set[int]) -> GraphCycleError:
        labels = list(self._labels().values())
        path = tuple(labels[place] for place in _cycle(parents, left))
        return GraphCycleError(
            f"Graph contains cycles: {' -> '.join(_shortened(path))}; events flow from the root "
            "to the sink only, so leave out one of these edges",
            path=path,
        )

    def _labels(self, *others: N) -> dict[int, str]:
        """What each node is called, by its id: those that were added first, then other ends."""
        known = chain(self._nodes.values(), chain.from_iterable(self._edges.values()), others)
        return _labelled(known)

    def _label(self, node: N) -> str:
        return self._labels(node)[id(node)]


def _refuse_nameless(*nodes: object) -> None:
    for node in nodes:
        if not isinstance(getattr(node, "name", None), str):
            kind = node.__name__ if isinstance(node, type) else f"a {type(node).__name__}"
            raise GraphError(f"{kind} is no node: its name is not text; add an instance of a node")


def _sorted(children: Sequence[Sequence[int]], parents: Sequence[Sequence[int]]) -> list[int]:
    """The places with parents before children, else ascending; without what a cycle holds up."""
    waits_for = [len(above) for above in parents]
    ready = [place for place, count in enumerate(waits_for) if not count]
    order: list[int] = []
    while ready:
        place = heappop(ready)
        order.append(place)
        for child in children[place]:
            waits_for[child] -= 1
            if not waits_for[child]:
                heappush(ready, child)
    return order


def _plan(
    nodes: Sequence[N],
    children: Sequence[Sequence[int]],
    parents: Sequence[Sequence[int]],
    order: Iterable[int],
) -> Plan[N]:
    links = (
        Link(
            nodes[place],
            tuple(nodes[child] for child in children[place]),
            tuple(nodes[parent] for parent in parents[place]),
        )
        for place in order
    )
    return Plan(
        tuple(links),
        tuple(node for node, above in zip(nodes, parents, strict=True) if not above),
        tuple(node for node, below in zip(nodes, children, strict=True) if not below),
    )


def _cycle(parents: Sequence[Sequence[int]], left: set[int]) -> list[int]:
    """One cycle along the edges, from its first place back to it.

    Each of `left` has a parent in `left`, so that going up must come back somewhere.
    """
    place = min(left)
    walked: dict[int, None] = {}
    while place not in walked:
        walked[place] = None
        place = next(parent for parent in parents[place] if parent in left)
    upwards = list(walked)
    forward = upwards[upwards.index(place) :][::-1]
    first = forward.index(min(forward))
    return [*forward[first:], *forward[: first + 1]]


def _labelled(nodes: Iterable[Named]) -> dict[int, str]:
    """A text for each node, by its id: its name, with a number if another one has it already."""
    labels: dict[int, str] = {}
    taken: set[str] = set()
    numbers: defaultdict[str, int] = defaultdict(lambda: 1)
    for node in nodes:
        if id(node) in labels:
            continue
        label = name = _readable(node.name or type(node).__name__)
        while label in taken:
            numbers[name] += 1
            label = f"{name}#{numbers[name]}"
        taken.add(label)
        labels[id(node)] = label
    return labels


def _readable(name: str) -> str:
    """The name in one line that can be printed and encoded, and not too long for a message."""
    text = name[: _LONGEST_LABEL + 1]
    text = text if text.isprintable() else repr(text)[1:-1]
    return text if len(text) <= _LONGEST_LABEL else text[: _LONGEST_LABEL - 1] + "…"


def _shortened(labels: Sequence[str]) -> list[str]:
    """The labels, those in the middle only counted if there are too many for a message."""
    left_out = len(labels) - _MOST_NAMED
    if left_out <= 0:
        return list(labels)
    half = _MOST_NAMED // 2
    return [*labels[:half], f"({left_out} more)", *labels[-half:]]


def _escaped(label: str) -> str:
    """The label with each character that Mermaid might read as syntax as its numeric entity."""
    return "".join(char if char.isalnum() or char in _PLAIN else f"#{ord(char)};" for char in label)
