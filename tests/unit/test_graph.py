"""The rules of the event graph: what is refused, how nodes are linked, how it is drawn."""

import pickle
import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tertulia.errors import AgentError, GraphCycleError, GraphError, UsageError
from tertulia.graph import Graph, Link, Plan


@dataclass
class Thing:
    """A node that compares by its name and cannot be hashed, as a dataclass of a user's may."""

    name: str


def built(names: str, edges: str = "") -> Graph[Thing]:
    """A graph from "a b c" and "a>b b>c"; a node that only edges name is never added."""
    things = {name: Thing(name) for name in re.split(r"[ >]", f"{names} {edges}") if name}
    graph = Graph[Thing]()
    for name in names.split():
        graph.add_node(things[name])
    for edge in edges.split():
        parent, child = edge.split(">")
        graph.add_edge(things[parent], things[child])
    return graph


def names(things: tuple[Thing, ...]) -> str:
    return " ".join(thing.name for thing in things)


def linked(plan: Plan[Thing]) -> dict[str, Link[Thing]]:
    return {link.node.name: link for link in plan.links}


def test_children_and_parents_come_in_the_order_their_edges_were_added() -> None:
    links = linked(built("a b c d e", "a>d a>b a>c e>d c>d").lock())
    assert names(links["a"].children) == "d b c"
    assert names(links["d"].parents) == "a e c"


def test_roots_and_leaves_are_the_nodes_without_parents_and_without_children() -> None:
    plan = built("c a b x", "a>b a>c").lock()
    assert names(plan.roots) == "a x"
    assert names(plan.leaves) == "c b x"
    assert {name for name, link in linked(plan).items() if link.leads_to_sink} == {"c", "b", "x"}


def test_a_node_with_two_parents_is_a_join_and_its_only_child_is_not() -> None:
    plan = built("a b c d e", "a>b a>c b>d c>d d>e").lock()
    assert names(plan.joins) == "d"
    assert not plan.sink_is_join


def test_the_sink_is_a_join_when_two_nodes_lead_to_it() -> None:
    assert built("a b").lock().sink_is_join
    assert not built("a").lock().sink_is_join


def test_nodes_are_told_apart_by_identity_though_they_are_equal() -> None:
    first, second = Thing("same"), Thing("same")
    graph = Graph[Thing]()
    graph.add_node(first)
    graph.add_node(second)
    graph.add_edge(second, first)
    plan = graph.lock()
    assert plan.order[0] is second
    assert plan.links[0].children[0] is first


def test_edges_may_be_added_before_their_nodes() -> None:
    graph, a, b = Graph[Thing](), Thing("a"), Thing("b")
    graph.add_edge(a, b)
    graph.add_node(b)
    graph.add_node(a)
    assert names(graph.lock().order) == "a b"


@pytest.mark.parametrize(
    ("nodes", "edges", "path"),
    [
        ("a", "a>a", "a -> a"),
        ("a b", "a>b b>a", "a -> b -> a"),
        ("r a b", "r>a a>b b>a", "a -> b -> a"),
        ("a b r", "r>r a>b", "r -> r"),
        ("c b a", "a>b b>c c>a", "c -> a -> b -> c"),
        ("tail a b", "a>b b>a b>tail", "a -> b -> a"),
        ("z a b", "z>a a>b b>z z>b", "z -> a -> b -> z"),
        ("{a} {0}", "{a}>{0} {0}>{a}", "{a} -> {0} -> {a}"),
    ],
)
def test_every_cycle_is_refused_with_its_path(nodes: str, edges: str, path: str) -> None:
    graph = built(nodes, edges)
    with pytest.raises(GraphCycleError) as caught:
        graph.lock()
    assert str(caught.value).startswith(f"Graph contains cycles: {path};")
    assert caught.value.path == tuple(path.split(" -> "))
    assert not graph.locked


def test_a_cycle_is_an_error_of_ours_and_a_value_error() -> None:
    for kind in (AgentError, UsageError, ValueError, GraphError):
        with pytest.raises(kind, match="Graph contains cycles"):
            built("a", "a>a").lock()


def test_the_error_of_a_cycle_survives_a_pickle_with_its_path() -> None:
    with pytest.raises(GraphCycleError) as caught:
        built("a", "a>a").lock()
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.path) == (str(caught.value), ("a", "a"))


@pytest.mark.parametrize(
    ("nodes", "edges", "says"),
    [
        ("", "", "the graph is empty; add at least one node before start()"),
        ("a", "a>b", "never added: 'b';"),
        ("a", "b>a", "never added: 'b';"),
        ("", "a>b", "never added: 'a', 'b';"),
        ("a", "{b}>{b} {b}>a", "never added: '{b}';"),
        ("", " ".join(f"{n}>x" for n in range(100)), "'8', (81 more), '90'"),
    ],
)
def test_an_empty_graph_and_edges_of_nodes_never_added_are_refused(
    nodes: str, edges: str, says: str
) -> None:
    with pytest.raises(GraphError) as caught:
        built(nodes, edges).lock()
    assert says in str(caught.value)


def test_a_node_and_an_edge_are_added_once_only() -> None:
    graph = built("a b", "a>b")
    a, b = graph.nodes
    with pytest.raises(GraphError, match="node 'b' was added already"):
        graph.add_node(b)
    with pytest.raises(GraphError, match="edge 'a' -> 'b' was added already"):
        graph.add_edge(a, b)
    assert len(graph.nodes) == 2
    assert len(graph.edges) == 1


def test_nothing_changes_after_lock_and_a_second_lock_is_refused() -> None:
    graph = built("a b", "a>b")
    before = graph.nodes, graph.edges, graph.to_mermaid()
    graph.lock()
    a, b = graph.nodes
    late = "the graph is locked since start"
    with pytest.raises(GraphError, match=f"cannot add 'c': {late}"):
        graph.add_node(Thing("c"))
    with pytest.raises(GraphError, match=f"cannot add 'b' -> 'a': {late}"):
        graph.add_edge(b, a)
    with pytest.raises(GraphError, match=f"cannot start again: {late}"):
        graph.lock()
    assert graph.locked
    assert (graph.nodes, graph.edges, graph.to_mermaid()) == before
    assert graph.nodes[0] is a


def test_a_graph_that_was_refused_can_be_put_right_and_locked() -> None:
    graph, a, b = Graph[Thing](), Thing("a"), Thing("b")
    graph.add_node(a)
    graph.add_edge(a, b)
    with pytest.raises(GraphError, match="never added"):
        graph.lock()
    graph.add_node(b)
    assert names(graph.lock().order) == "a b"


@pytest.mark.parametrize(
    ("wrong", "says"),
    [(None, "a NoneType is no node"), (Thing, "Thing is no node"), (Thing(5), "a Thing is no")],  # type: ignore[arg-type]
)
def test_what_has_no_name_is_no_node(wrong: Any, says: str) -> None:
    graph = Graph[Thing]()
    with pytest.raises(GraphError, match=says):
        graph.add_node(wrong)
    with pytest.raises(GraphError, match=says):
        graph.add_edge(Thing("a"), wrong)
    assert not graph.nodes
    assert not graph.edges


def test_errors_number_the_nodes_that_have_the_same_name() -> None:
    graph = Graph[Thing]()
    for thing in (nodes := [Thing("a"), Thing("a"), Thing("a#2"), Thing("a")]):
        graph.add_node(thing)
    for parent, child in pairwise([*nodes, nodes[0]]):
        graph.add_edge(parent, child)
    with pytest.raises(GraphCycleError) as caught:
        graph.lock()
    assert caught.value.path == ("a", "a#2", "a#2#2", "a#3", "a")


def test_a_chain_of_ten_thousand_nodes_is_locked_and_drawn() -> None:
    graph = Graph[Thing]()
    things = [Thing("n") for _ in range(10_000)]
    for thing in things:
        graph.add_node(thing)
    for parent, child in pairwise(reversed(things)):
        graph.add_edge(parent, child)
    plan = graph.lock()
    assert all(
        planned is thing for planned, thing in zip(plan.order, reversed(things), strict=True)
    )
    assert graph.to_mermaid().count("-->") == 10_001


def test_a_cycle_of_ten_thousand_nodes_is_refused_in_a_short_text() -> None:
    graph = Graph[Thing]()
    things = [Thing(f"n{number}") for number in range(10_000)]
    for thing in things:
        graph.add_node(thing)
    for parent, child in pairwise([*things, things[0]]):
        graph.add_edge(parent, child)
    with pytest.raises(GraphCycleError) as caught:
        graph.lock()
    assert "n0 -> n1 -> " in str(caught.value)
    assert " -> (9981 more) -> " in str(caught.value)
    assert len(str(caught.value)) < 500
    assert len(caught.value.path) == 10_001


def test_a_name_that_is_long_or_cannot_be_printed_is_shown_in_one_short_line() -> None:
    graph = Graph[Thing]()
    for name in ("two\nlines\ud800", "long" * 1000, ""):
        thing = Thing(name)
        graph.add_node(thing)
        graph.add_edge(thing, thing)
    with pytest.raises(GraphCycleError) as caught:
        graph.lock()
    assert caught.value.path == ("two\\nlines\\ud800", "two\\nlines\\ud800")
    drawn = graph.to_mermaid()
    assert f'"{"long" * 19}lon#8230;"' in drawn
    assert 'n2["Thing"]' in drawn


def test_the_drawing_shows_root_and_sink_and_the_edges_in_order() -> None:
    graph = built("a b c", "b>c b>a")
    expected = """\
flowchart LR
    root(["root"])
    n0["a"]
    n1["b"]
    n2["c"]
    sink(["sink"])
    root --> n1
    n1 --> n2
    n1 --> n0
    n0 --> sink
    n2 --> sink
"""
    assert graph.to_mermaid() == expected
    graph.lock()
    assert graph.to_mermaid() == expected


def test_the_drawing_shows_what_lock_would_refuse() -> None:
    drawn = built("a b", "a>a b>ghost").to_mermaid()
    assert "    n0 --> n0\n" in drawn
    assert 'n2["ghost #40;not added#41;"]' in drawn
    assert "n2 --> sink" not in drawn
    assert "root --> n0" not in drawn
    assert built("").to_mermaid() == 'flowchart LR\n    root(["root"])\n    sink(["sink"])\n'


@given(st.lists(st.text(), min_size=1, max_size=5))
def test_no_name_can_break_a_drawing(given_names: list[str]) -> None:
    graph = Graph[Thing]()
    for name in given_names:
        graph.add_node(Thing(name))
    lines = graph.to_mermaid().encode().decode().split("\n")
    drawn = lines[2 : 2 + len(given_names)]
    assert len({line.partition('"')[2] for line in drawn}) == len(given_names)
    for number, line in enumerate(drawn):
        assert re.fullmatch(rf'    n{number}\["(?:[^\W]|[ \-.]|#\d+;)+"\]', line)


@st.composite
def edges_between(draw: st.DrawFn) -> tuple[int, list[tuple[int, int]]]:
    """A number of nodes and edges between any of them, cycles too."""
    count = draw(st.integers(1, 8))
    node = st.integers(0, count - 1)
    return count, draw(st.lists(st.tuples(node, node), unique=True, max_size=16))


def graph_of(count: int, edges: list[tuple[int, int]]) -> Graph[Thing]:
    graph, things = Graph[Thing](), [Thing(str(number)) for number in range(count)]
    for thing in things:
        graph.add_node(thing)
    for parent, child in edges:
        graph.add_edge(things[parent], things[child])
    return graph


def reaches_itself(count: int, edges: list[tuple[int, int]]) -> bool:
    """Whether there is a cycle, by the closure of all paths."""
    reached = [[(a, b) in edges for b in range(count)] for a in range(count)]
    for via in range(count):
        for a in range(count):
            for b in range(count):
                reached[a][b] |= reached[a][via] and reached[via][b]
    return any(reached[at][at] for at in range(count))


@given(edges_between())
def test_a_graph_is_refused_exactly_when_a_node_reaches_itself(
    drawn: tuple[int, list[tuple[int, int]]],
) -> None:
    count, edges = drawn
    graph = graph_of(count, edges)
    if not reaches_itself(count, edges):
        graph.lock()
        return
    with pytest.raises(GraphCycleError) as caught:
        graph.lock()
    path = [int(name) for name in caught.value.path]
    assert path[0] == path[-1] == min(path)
    assert len(set(path)) == len(path) - 1
    assert set(pairwise(path)) <= set(edges)


@given(edges_between())
def test_a_plan_has_every_edge_and_puts_parents_before_children(
    drawn: tuple[int, list[tuple[int, int]]],
) -> None:
    count, edges = drawn[0], [(low, high) for low, high in drawn[1] if low < high]
    plan = graph_of(count, edges[::-1]).lock()
    links = linked(plan)
    order = [int(thing.name) for thing in plan.order]
    assert order == list(range(count))
    for number in range(count):
        link = links[str(number)]
        children = [child for parent, child in edges[::-1] if parent == number]
        parents = [parent for parent, child in edges[::-1] if child == number]
        assert [int(thing.name) for thing in link.children] == children
        assert [int(thing.name) for thing in link.parents] == parents
        assert (link.node in plan.roots) == (not parents)
        assert (link.node in plan.leaves) == link.leads_to_sink == (not children)
        assert (link.node in plan.joins) == link.is_join == (len(parents) > 1)


@given(edges_between())
def test_the_order_is_the_first_by_adding_of_all_that_fit(
    drawn: tuple[int, list[tuple[int, int]]],
) -> None:
    count, edges = drawn[0], [(high, low) for low, high in drawn[1] if low < high]
    order = [int(thing.name) for thing in graph_of(count, edges).lock().order]
    done: set[int] = set()
    for number in order:
        free = [
            each
            for each in range(count)
            if each not in done and all(parent in done for parent, child in edges if child == each)
        ]
        assert number == min(free)
        done.add(number)
