"""Which changes one statement may write together."""

from __future__ import annotations

from collections import deque
from typing import Any

from msgspec.structs import replace

from tertulia.stores.base import Change, Mark, SessionRow, SharedWrite
from tertulia.stores.postgres.batches import BATCH_CHANGES, BATCH_EVENTS, Job, gather
from tertulia.testing.store_changes import append, birth, record, unborn


def row(name: str = "s", key: int = 1, **fields: Any) -> SessionRow:
    return replace(unborn(name), key=key, **fields)


def share(row: SessionRow, key: str = "k", expect: int | None = None) -> Change:
    write = SharedWrite(scope="app", app=None, user=None, key=key, value=b"1", expect=expect)
    return append(row, record(row.seq + 1), shared=[write])


def taken(*changes: Change) -> tuple[list[list[Change]], list[Change], list[Change]]:
    """The chains of the batch, what is written alone, and what has to wait."""
    waiting = deque(map(Job, changes))
    batch, alone = gather(waiting, set())
    chains = [[job.change for job in chain] for chain in batch.chains.values()]
    return chains, [job.change for job in alone], [job.change for job in waiting]


def following(start: SessionRow, count: int) -> list[Change]:
    changes: list[Change] = []
    for _ in range(count):
        changes.append(append(start, record(start.seq + 1)))
        start = changes[-1].after
    return changes


def test_changes_of_different_sessions_go_together() -> None:
    changes = [append(row(f"s{n}", n), record(1)) for n in range(1, 4)]
    assert taken(*changes) == ([[one] for one in changes], [], [])


def test_changes_of_one_session_that_follow_on_each_other_are_a_chain() -> None:
    changes = following(row(), 3)
    assert taken(*changes) == ([changes], [], [])


def test_a_change_that_does_not_follow_waits_and_so_does_what_comes_after_it() -> None:
    first, second = following(row(), 2)
    stale = append(row(), record(1, text="other"))
    assert taken(first, stale, second) == ([[first]], [], [stale, second])


def test_of_one_session_only_one_change_touches_more_than_the_log() -> None:
    marked = append(row(), record(1), marks=[Mark("floor", 0, 1, 1)])
    plain = append(marked.after, record(2))
    again = append(plain.after, record(3), marks=[Mark("floor", 0, 2, 3)])
    assert taken(marked, plain, again) == ([[marked, plain]], [], [again])


def test_two_changes_that_write_the_same_shared_value_are_not_in_one_batch() -> None:
    one, other, third = share(row()), share(row("t", 2)), share(row("u", 3), "other")
    assert taken(one, other, third) == ([[one], [third]], [], [other])


def test_a_change_that_may_be_refused_late_is_written_alone_in_the_order_of_its_session() -> None:
    before = append(row(), record(1))
    checked = share(before.after, expect=3)
    other = share(row("t", 2), expect=1)
    after = append(other.after, record(2))
    assert taken(before, checked, other, after) == ([[before]], [other], [checked, after])
    twice = append(row(), record(1), shared=[*share(row()).shared, *share(row()).shared])
    assert taken(twice) == ([], [twice], [])


def test_two_sessions_of_one_name_are_not_created_in_one_batch() -> None:
    one, other = birth("s"), birth("s", uid=b"other uid" + bytes(7))
    assert taken(one, other) == ([[one]], [], [other])


def test_a_batch_is_bounded() -> None:
    many = [append(row(f"s{n}", n + 1), record(1)) for n in range(BATCH_CHANGES + 1)]
    chains, _, left = taken(*many)
    assert (len(chains), left) == (BATCH_CHANGES, many[-1:])
    events = [record(n + 1) for n in range(BATCH_EVENTS + 1)]
    large = append(row(), *events)
    small = append(row("t", 2), record(1))
    assert taken(large, small) == ([[large]], [], [small])


def test_nothing_is_taken_of_what_another_batch_has_under_way() -> None:
    first, second, other = *following(row(), 2), append(row("other", 2), record(1))
    waiting = deque(map(Job, (first, second, other)))
    batch, alone = gather(waiting, {first.after.key})
    assert ([list(batch.chains), alone], [job.change for job in waiting]) == (
        [[other.after.key], []],
        [first, second],
    )
