"""Any sequence of operations leaves every store as it leaves a few dictionaries."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Coroutine
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from msgspec.structs import replace

from tertulia import doors
from tertulia.errors import SessionExists, StaleWriter, VersionConflict
from tertulia.events import MESSAGE_ADDED, Record, body_digest
from tertulia.stores import LogStore, MemoryStore, SQLiteStore
from tertulia.stores.base import Input, Receipt, Segment, SessionRow, SharedValue, SharedWrite
from tertulia.stores.postgres import PostgresStore
from tertulia.testing.servers import empty_database
from tertulia.testing.store_changes import append, birth, record

T = TypeVar("T")
NOTHING = cast("Any", multiple())
NAMES = st.sampled_from(["a", "b", "c"])
APPS = st.sampled_from([None, "shop"])
VALUES = st.sampled_from([b"1", b"2", None])


def run(work: Coroutine[Any, Any, T]) -> T:
    return doors.call(work)


class StoreMachine(RuleBasedStateMachine):
    """The model: rows and logs by key, versions by name, inboxes by session."""

    rows = Bundle("rows")
    inputs = Bundle("inputs")

    def __init__(self) -> None:
        super().__init__()
        self.born = 0
        self.heads: dict[int, SessionRow] = {}
        self.logs: dict[int, list[Record]] = {}
        self.state: dict[int, dict[str, int]] = {}
        self.shared: dict[str, SharedValue] = {}
        self.inbox: dict[int, Input] = {}
        self.receipts = 0

    def open(self) -> LogStore:
        return MemoryStore()

    @initialize()
    def start(self) -> None:
        self.store = self.open()

    def teardown(self) -> None:
        run(self.store.close())

    def commit(self, change: Any) -> SessionRow:
        async def wait() -> SessionRow:
            return await self.store.commit(change)

        return run(wait())

    @rule(target=rows, name=NAMES, app=APPS)
    def create(self, name: str, app: str | None) -> Any:
        self.born += 1
        change = birth(name, app=app, uid=self.born.to_bytes(16, "big"))
        if any((row.app, row.id) == (app, name) for row in self.heads.values()):
            with pytest.raises(SessionExists):
                self.commit(change)
            return NOTHING
        row = self.commit(change)
        self.heads[row.key], self.logs[row.key], self.state[row.key] = row, [], {}
        return row

    @rule(target=rows, row=rows, count=st.integers(1, 3), kind=st.sampled_from(["usage", ""]))
    def append(self, row: SessionRow, count: int, kind: str) -> Any:
        records = [record(row.seq + n, kind or MESSAGE_ADDED) for n in range(1, count + 1)]
        return self._try(row, append(row, *records))

    @rule(target=rows, row=rows, key=st.sampled_from(["k", "l"]))
    def set_state(self, row: SessionRow, key: str) -> Any:
        seq = row.seq + 1
        after = self._try(row, append(row, record(seq, "state.set"), state=[(key, seq)]))
        if isinstance(after, SessionRow):
            self.state[row.key][key] = seq
        return after

    def _try(self, row: SessionRow, change: Any) -> Any:
        """Commit where the model allows it; a writer that is behind must be refused."""
        if self.heads.get(row.key) != row:
            with pytest.raises(StaleWriter):
                self.commit(change)
            return NOTHING
        after = self.commit(change)
        self.heads[row.key] = after
        self.logs[row.key] += change.records
        return after

    @rule(
        row=rows,
        key=st.sampled_from(["k", "l"]),
        value=VALUES,
        expect=st.none() | st.integers(0, 3),
    )
    def share(self, row: SessionRow, key: str, value: bytes | None, expect: int | None) -> None:
        write = SharedWrite(scope="user", app=None, user="u", key=key, value=value, expect=expect)
        before = self.shared.get(key, SharedValue(None, 0))
        if self.heads.get(row.key) != row:
            with pytest.raises(StaleWriter):
                self.commit(append(row, shared=[write]))
        elif expect not in {None, before.version}:
            with pytest.raises(VersionConflict):
                self.commit(append(row, record(row.seq + 1), shared=[write]))
        else:
            self.commit(append(row, shared=[write]))
            self.shared[key] = SharedValue(value, before.version + 1)

    @rule(target=inputs, row=rows)
    def put_input(self, row: SessionRow) -> Any:
        if row.key not in self.heads:
            return NOTHING
        entry = Input(session=row.key, worker=b"w" * 16, kind="input", time=1, body=b"{}")
        entry = run(self.store.put_input(entry))
        self.inbox[entry.id] = entry
        return entry

    @rule(entry=consumes(inputs))
    def drop_input(self, entry: Input) -> None:
        there = self.inbox.pop(entry.id, None) is not None
        assert run(self.store.drop_inputs([entry.id])) == there

    @rule(target=rows, row=rows, entry=inputs)
    def take_input(self, row: SessionRow, entry: Input) -> Any:
        change = append(row, record(row.seq + 1), take=[entry.id])
        there = self.inbox.get(entry.id)
        if there is not None and there.session == row.key and self.heads.get(row.key) == row:
            del self.inbox[entry.id]
            return self._try(row, change)
        with pytest.raises(StaleWriter):
            self.commit(change)
        return NOTHING

    @rule(row=rows, low=st.integers(0, 6), high=st.integers(0, 12))
    def erase(self, row: SessionRow, low: int, high: int) -> None:
        log = self.logs.get(row.key, [])
        erased = 0
        for place, each in enumerate(log):
            if low < each.seq <= high and each.body is not None and each.salt is not None:
                digest = body_digest(each.salt, each.body)
                log[place] = replace(each, body=None, salt=None, body_digest=digest)
                erased += 1
        assert run(self.store.erase([Segment(row.key, low, high)])) == erased

    @rule(row=consumes(rows), stub=st.booleans())
    def delete(self, row: SessionRow, stub: bool) -> None:
        receipt = Receipt(time=1, type="session.deleted", body=b"{}")
        if self.heads.get(row.key) != row:
            with pytest.raises(StaleWriter):
                run(self.store.delete_session(row, receipt, stub=stub))
            return
        run(self.store.delete_session(row, receipt, stub=stub))
        self.receipts += 1
        del self.heads[row.key], self.logs[row.key], self.state[row.key]
        self.inbox = {n: each for n, each in self.inbox.items() if each.session != row.key}

    @invariant()
    def the_store_is_what_the_model_is(self) -> None:
        assert run(self.store.rows()) == list(self.heads.values())
        for key, row in self.heads.items():
            view = [Segment(key, 0, row.seq)]
            assert run(self.store.find(row.app, row.id)) == row
            assert run(self.store.records(view)) == self.logs[key]
            messages = [each for each in self.logs[key] if each.type == MESSAGE_ADDED]
            assert run(self.store.messages(view, 2)) == messages[-2:]
            assert run(self.store.count_messages(view)) == len(messages)
            assert dict(run(self.store.state_keys(view))) == self.state[key]
            waiting = [each for each in self.inbox.values() if each.session == key]
            assert run(self.store.inputs(key)) == waiting
        for key in ("k", "l"):
            assert run(self.store.shared("user", None, "u", key)) == self.shared.get(key)
        assert len(run(self.store.receipts())) == self.receipts


class SQLiteMachine(StoreMachine):
    """The same on a file, which is closed and opened again at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())

    def open(self) -> LogStore:
        return SQLiteStore(self.folder / "x.db")

    @rule()
    def reopen(self) -> None:
        run(self.store.close())
        self.store = self.open()

    def teardown(self) -> None:
        super().teardown()
        shutil.rmtree(self.folder)


class PostgresMachine(StoreMachine):
    """The same on a database, with another store on it at any time."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self.address = address

    def open(self) -> LogStore:
        return PostgresStore(self.address)

    @rule()
    def reopen(self) -> None:
        run(self.store.close())
        self.store = self.open()

    def teardown(self) -> None:
        super().teardown()
        empty_database(self.address)


FEW = settings(
    max_examples=30,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


class TestMemoryModel(StoreMachine.TestCase):
    settings = FEW


class TestSQLiteModel(SQLiteMachine.TestCase):
    settings = FEW


def test_a_database_is_what_the_model_is(postgres: str) -> None:
    fewer = settings(FEW, max_examples=10)
    machine = cast("Any", partial(PostgresMachine, postgres))
    run_state_machine_as_test(machine, settings=fewer)
