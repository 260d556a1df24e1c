"""The promises of a store as tests: subclass `StoreContract`, say how to make a store, and run it.

    class TestMyStore(StoreContract):
        def make(self) -> LogStore:
            return MyStore(...)

The tests are coroutines and need anyio's pytest plugin.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from tertulia.errors import SessionExists, StaleWriter, StoreClosed, VersionConflict
from tertulia.events import MESSAGE_ADDED
from tertulia.stores.base import (
    Branch,
    Change,
    Details,
    Input,
    Mark,
    Request,
    Segment,
    SharedValue,
    SharedWrite,
)
from tertulia.testing.store_changes import (
    WORKER,
    append,
    birth,
    record,
    refused,
    same,
    seqs,
    unborn,
    whole,
)
from tertulia.testing.store_erasing import ErasingContract


class StoreContract(ErasingContract):
    """Every promise of `LogStore`, one test each."""

    # -- one writer

    async def test_what_was_committed_is_found(self) -> None:
        async with self.opened() as store:
            details = Details(metadata={"a": [1]}, system="be kind", agent="ada")
            row = await store.commit(birth("s", app="shop", user="u", details=details, due_at=9))
            row = await store.commit(
                append(row, record(1), after={"open_calls": ("c1", "c2"), "holder": WORKER})
            )
            same(row.key > 0, True)
            same(await store.find("shop", "s"), row)
            same(await store.row(row.key), row)
            same(await store.find(None, "s"), None)
            same(await store.find("shop", "other"), None)
            same(await store.row(row.key + 1), None)

    async def test_a_stale_writer_is_refused_and_writes_nothing(self) -> None:
        async with self.opened() as store:
            old = await store.commit(birth("s", epoch=1, holder=WORKER))
            new = await store.commit(append(old, record(1)))
            wrongs = [
                old,
                replace(new, epoch=2),
                replace(new, holder=None),
                replace(new, holder=b"v" * 16),
                replace(new, digest=b"x" * 32),
            ]
            for wrong in wrongs:
                change = append(
                    wrong,
                    record(wrong.seq + 1, text="never"),
                    marks=[Mark("floor", 0, 1, wrong.seq + 1)],
                    state=[("k", wrong.seq + 1)],
                    shared=[SharedWrite(scope="app", app=None, user=None, key="k", value=b"1")],
                    after={"details": Details(system="never"), "due_at": 5},
                    request=Request(
                        key="r", digest=b"", turn=1, status="done", result=None, time=1
                    ),
                )
                await refused(StaleWriter, store.commit(change))
            same(await store.find(None, "s"), new)
            same(await store.records(whole(new)), [record(1)])
            same(await store.marks(Segment(new.key, 0, 9), "floor", below=9), [])
            same(await store.state_keys([Segment(new.key, 0, 9)]), [])
            same(await store.shared("app", None, None, "k"), None)
            same(await store.request(new.key, "r"), None)

    async def test_a_session_is_created_once(self) -> None:
        async with self.opened() as store:
            row = await store.commit(birth("s"))
            await refused(SessionExists, store.commit(birth("s")))
            await refused(SessionExists, store.commit(birth("s", uid=b"other uid" + bytes(7))))
            same(await store.find(None, "s"), row)
            same(await store.rows(), [row])

    async def test_the_same_id_in_another_app_is_another_session(self) -> None:
        async with self.opened() as store:
            ones = [await store.commit(birth("s", app=app)) for app in (None, "a", "b")]
            for row in ones:
                same(await store.find(row.app, "s"), row)
            same([row.app for row in await store.rows()], [None, "a", "b"])

    async def test_a_refused_change_does_not_fail_the_others(self) -> None:
        async with self.opened() as store:
            rows = [await store.commit(birth(f"s{n}")) for n in range(3)]
            waiting = [store.commit(append(row, record(1))) for row in rows]
            late = store.commit(append(rows[1], record(1, text="late")))
            more = store.commit(append(rows[2], record(1, text="late")))
            for each in waiting:
                await each
            await refused(StaleWriter, late)
            await refused(StaleWriter, more)
            for row in rows:
                same(await store.records([Segment(row.key, 0, 1)]), [record(1)])

    async def test_changes_submitted_together_apply_in_their_order(self) -> None:
        async with self.opened() as store:
            row = await store.commit(birth("s"))
            waiting: list[Any] = []
            for seq in range(1, 51):
                change = append(row, record(seq))
                waiting.append(store.commit(change))
                row = change.after
            for each in waiting:
                await each
            same(await store.find(None, "s"), row)
            same(seqs(await store.records(whole(row))), list(range(1, 51)))

    async def test_a_closed_store_refuses(self) -> None:
        store = self.make()
        row = await store.commit(birth("s"))
        await store.close()
        await store.close()
        await refused(StoreClosed, store.find(None, "s"))
        try:
            await refused(StoreClosed, store.commit(append(row, record(1))))
        except StoreClosed:
            return

    # -- sessions

    async def test_sessions_are_listed_in_pages_by_owner_and_by_due_time(self) -> None:
        async with self.opened() as store:
            made = [
                await store.commit(
                    birth(f"s{n}", app="ab"[n % 2], user="uv"[n % 3 == 0], due_at=n * 10 or None)
                )
                for n in range(6)
            ]
            first = await store.rows(limit=4)
            same(first, made[:4])
            same(await store.rows(after=first[-1].key), made[4:])
            same(await store.rows(user="v"), [made[0], made[3]])
            same(await store.rows(app="b", any_app=False), made[1::2])
            same(await store.rows(app=None, any_app=False), [])
            same(await store.rows(user="u", app="a", any_app=False), [made[2], made[4]])
            same(await store.rows(due_before=20), made[1:3])
            same(await store.rows(due_before=30, user="v"), [made[3]])

    async def test_what_is_rarely_changed_can_be_changed(self) -> None:
        async with self.opened() as store:
            row = await store.commit(birth("s"))
            fields = {"status": "ended", "due_at": 7, "details": Details(hold="court")}
            row = await store.commit(append(row, record(1), after=fields))
            same(await store.find(None, "s"), row)
            back = {"status": "open", "due_at": None, "details": Details()}
            row = await store.commit(append(row, record(2), after=back))
            same(await store.find(None, "s"), row)
            same(await store.rows(due_before=99), [])

    async def test_nothing_handed_out_is_an_alias(self) -> None:
        async with self.opened() as store:
            details = Details(metadata={"list": [1]})
            row = await store.commit(birth("s", details=details))
            details.metadata["list"].append(2)
            found = await store.row(row.key)
            if found is None:
                raise AssertionError("the session is gone")
            same(found.details.metadata, {"list": [1]})
            found.details.metadata["list"].append(3)
            again = await store.row(row.key)
            same(again and again.details.metadata, {"list": [1]})

    # -- views

    async def test_a_chain_leads_through_rewinds_and_forks(self) -> None:
        async with self.opened() as store:
            row = await self.grown(store, "s", 6)
            rewound = append(
                row,
                record(7),
                branch=Branch(row.key, 6, row.key, 0, 3),
                after={"branch": 6},
            )
            row = await store.commit(rewound)
            fork = unborn("f", base=5, parent=row.key, branch=5, seq=5)
            fork = await store.commit(
                Change(before=fork, after=fork, create=True, branch=Branch(0, 5, row.key, 0, 5))
            )
            fork = await store.commit(append(fork, record(6, text="fork")))
            same(await store.chain(row.key, 6, 7), [Segment(row.key, 6, 7), Segment(row.key, 0, 3)])
            same(await store.chain(row.key, 6, 7, limit=1), [Segment(row.key, 6, 7)])
            view = await store.chain(fork.key, 5, 6)
            same(view, [Segment(fork.key, 5, 6), Segment(row.key, 0, 5)])
            same(seqs(await store.messages(view)), [1, 2, 3, 4, 5, 6])
            same((await store.messages(view))[-1], record(6, text="fork"))
            same(await store.children(row.key), [fork])
            same(await store.branch_at(row.key, 6), Branch(row.key, 0))
            same(await store.branch_at(row.key, 7), Branch(row.key, 6, row.key, 0, 3))
            same(await store.branch_at(row.key, 0), None)

    async def test_marks_come_newest_first_and_within_bounds(self) -> None:
        async with self.opened() as store:
            row = await self.grown(store, "s", 9)
            marks = [Mark("floor", 0, 2, 5), Mark("floor", 0, 4, 7), Mark("floor", 0, 3, 9)]
            marks += [Mark("cut", 2, 4, 4), Mark("cut", 5, 6, 6), Mark("hole", 0, 1, 8)]
            row = await store.commit(append(row, marks=marks))
            every = Segment(row.key, 0, 9)
            same(await store.marks(every, "floor", below=9), [marks[2], marks[1], marks[0]])
            same(await store.marks(every, "floor", below=3, limit=1), [marks[2]])
            same(await store.marks(Segment(row.key, 5, 8), "floor", below=9), [marks[1]])
            same(await store.marks(every, "cut", below=9), [marks[4], marks[3]])
            same(await store.marks(every, "cut", below=5), [marks[3]])
            same(await store.marks(every, "hole", below=9), [marks[5]])
            row = await store.commit(append(row, extend_cut=(6, 8)))
            same((await store.marks(every, "cut", below=9))[0], Mark("cut", 5, 8, 6))

    async def test_records_and_messages_are_read_from_either_end(self) -> None:
        async with self.opened() as store:
            row = await store.commit(birth("s"))
            kinds = [MESSAGE_ADDED, "usage"]
            written = [record(n, kinds[n % 2], time=1000 - n) for n in range(1, 11)]
            row = await store.commit(append(row, *written))
            split = [Segment(row.key, 6, 10), Segment(row.key, 0, 6)]
            same(await store.records(split), written)
            same(await store.records(split, 7), written[:7])
            same(await store.records(split, 7, newest=True), written[-7:])
            same(seqs(await store.messages(split)), [2, 4, 6, 8, 10])
            same(seqs(await store.messages(split, 3)), [6, 8, 10])
            same(seqs(await store.messages(split, 4, newest=False)), [2, 4, 6, 8])
            same(seqs(await store.records(split, types=["usage"])), [1, 3, 5, 7, 9])
            same(seqs(await store.records(split, 2, types=["usage"], newest=True)), [7, 9])
            same(seqs(await store.records(split, since_time=997)), [1, 2, 3])
            same(await store.records(split, types=[]), [])
            same(await store.messages(split, 0), [])
            same(await store.messages([]), [])
            same(await store.count_messages(split), 5)
            same(await store.count_messages([Segment(row.key, 2, 6)]), 2)

    # -- state

    async def test_state_is_read_along_the_chain(self) -> None:
        async with self.opened() as store:
            row = await self.grown(store, "s", 0)
            for seq, key in enumerate(["a", "b", "a"], start=1):
                change = append(row, record(seq, "state.set"), state=[(key, seq)])
                row = await store.commit(change)
            fork = unborn("f", base=2, parent=row.key, branch=2, seq=2)
            fork = await store.commit(
                Change(before=fork, after=fork, create=True, branch=Branch(0, 2, row.key, 0, 2))
            )
            fork = await store.commit(append(fork, record(3, "state.deleted"), state=[("b", 3)]))
            view = await store.chain(fork.key, 2, 3)
            same(await store.state(view, "a"), record(1, "state.set"))
            same(await store.state(view, "b"), record(3, "state.deleted"))
            same(await store.state(view, "c"), None)
            same(sorted(await store.state_keys(view)), [("a", 1), ("b", 3)])
            same(await store.state(whole(row), "a"), record(3, "state.set"))

    async def test_shared_state_has_a_version_per_key(self) -> None:
        async with self.opened() as store:
            row = await self.grown(store, "s", 0)

            def write(value: bytes | None, expect: int | None = None) -> Change:
                shared = SharedWrite(
                    scope="user", app="a", user="u", key="k", value=value, expect=expect
                )
                return append(row, shared=[shared])

            await store.commit(write(b"1", 0))
            await refused(VersionConflict, store.commit(write(b"2", 0)))
            await refused(VersionConflict, store.commit(write(b"2", 7)))
            await store.commit(write(b"2"))
            same(await store.shared("user", "a", "u", "k"), SharedValue(b"2", 2))
            same(await store.shared_keys("user", "a", "u"), [("k", SharedValue(b"2", 2))])
            await store.commit(write(None, 2))
            same(await store.shared("user", "a", "u", "k"), SharedValue(None, 3))
            same(await store.shared_keys("user", "a", "u"), [])
            same(await store.shared("user", None, "u", "k"), None)
            same(await store.shared("app", "a", None, "k"), None)

    async def test_a_version_conflict_writes_nothing_of_its_change(self) -> None:
        async with self.opened() as store:
            row = await self.grown(store, "s", 1)
            writes = [
                SharedWrite(scope="app", app=None, user=None, key="a", value=b"1"),
                SharedWrite(scope="app", app=None, user=None, key="b", value=b"1", expect=3),
            ]
            change = append(row, record(2), shared=writes, state=[("k", 2)])
            await refused(VersionConflict, store.commit(change))
            same(await store.find(None, "s"), row)
            same(await store.shared("app", None, None, "a"), None)
            same(await store.records([Segment(row.key, 0, 1)]), [record(1)])

    # -- inbox, requests, entities

    async def test_an_inbox_keeps_its_order_and_is_taken_with_a_change(self) -> None:
        async with self.opened() as store:
            row = await self.grown(store, "s", 0)
            entries = [
                await store.put_input(
                    Input(session=row.key, worker=WORKER, kind="input", time=n, body=b"%d" % n)
                )
                for n in range(3)
            ]
            same(await store.inputs(row.key), entries)
            await store.commit(append(row, take=[entries[0].id]))
            same(await store.inputs(row.key), entries[1:])
            same(await store.drop_inputs([entries[1].id, entries[0].id]), 1)
            same(await store.inputs(row.key), entries[2:])

    async def test_an_input_that_was_withdrawn_cannot_be_taken(self) -> None:
        async with self.opened() as store:
            row = await self.grown(store, "s", 0)
            entry = await store.put_input(
                Input(session=row.key, worker=WORKER, kind="input", time=1, body=b"{}")
            )
            await store.drop_inputs([entry.id])
            change = append(row, record(1), take=[entry.id])
            await refused(StaleWriter, store.commit(change))
            same(await store.find(None, "s"), row)

    async def test_requests_are_kept_per_session_until_dropped(self) -> None:
        async with self.opened() as store:
            row = await self.grown(store, "s", 0)
            request = Request(key="k", digest=b"d", turn=1, status="running", result=None, time=5)
            await store.commit(append(row, request=request))
            same(await store.request(row.key, "k"), request)
            done = replace(request, status="done", result=b"{}")
            await store.commit(append(row, request=done))
            same(await store.request(row.key, "k"), done)
            same(await store.request(row.key + 1, "k"), None)
            same(await store.drop_requests(5), 0)
            same(await store.drop_requests(6), 1)
            same(await store.request(row.key, "k"), None)

    async def test_an_entity_is_saved_only_at_its_version(self) -> None:
        async with self.opened() as store:
            same(await store.put_entity("Counter", "c", b"1", 0), 1)
            await refused(VersionConflict, store.put_entity("Counter", "c", b"2", 0))
            same(await store.put_entity("Counter", "c", b"2", 1), 2)
            same(await store.entity("Counter", "c"), SharedValue(b"2", 2))
            same(await store.put_entity("Counter", "c", None, 2), 3)
            same(await store.entity("Counter", "c"), SharedValue(None, 3))
            same(await store.entity("Counter", "other"), None)

    # -- watching

    async def test_a_bell_rings_after_a_commit_until_it_is_undone(self) -> None:
        async with self.opened() as store:
            row = await self.grown(store, "s", 0)
            other = await self.grown(store, "t", 0)
            rung: list[int] = []
            unwatch = store.watch(row.key, lambda: rung.append(1))
            row = await store.commit(append(row, record(1)))
            await store.commit(append(other, record(1)))
            await store.put_input(
                Input(session=row.key, worker=WORKER, kind="input", time=1, body=b"{}")
            )
            await store.drop_requests(0)
            same(len(rung) >= 2, True)
            unwatch()
            unwatch()
            del rung[:]
            await store.commit(append(row, record(2)))
            await store.drop_requests(0)
            same(rung, [])

    async def test_a_store_knows_itself(self) -> None:
        async with self.opened() as store:
            same(await store.worker_is_alive(store.worker), True)
            same(await store.worker_is_alive(b"nobody" + bytes(10)), False)
            same(await store.incarnation(), await store.incarnation())
            await self.grown(store, "s", 1)
            same(store.stats().changes >= 2, True)
