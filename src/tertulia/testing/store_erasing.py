"""The part of a store's promises that is about erasing and deleting."""

from __future__ import annotations

from msgspec.structs import replace

from tertulia.errors import StaleWriter
from tertulia.events import MESSAGE_ADDED, body_digest
from tertulia.stores.base import Input, Receipt, Segment, SharedValue, SharedWrite
from tertulia.testing.store_changes import (
    WORKER,
    StoreMaker,
    append,
    birth,
    record,
    refused,
    same,
    whole,
)


class ErasingContract(StoreMaker):
    """What erasing takes and what it leaves, one test each."""

    async def test_erasing_keeps_headers_and_digests(self) -> None:
        async with self.opened() as store:
            row = await self.grown(store, "s", 4)
            row = await store.commit(append(row, record(5, "usage")))
            part = [Segment(row.key, 1, 5)]
            same(await store.erase(part, types=[MESSAGE_ADDED]), 3)
            same(await store.erase(part, types=[MESSAGE_ADDED]), 0)
            expected = [record(1)]
            for seq in (2, 3, 4):
                full = record(seq)
                digest = body_digest(full.salt or b"", full.body or b"")
                expected.append(replace(full, body=None, salt=None, body_digest=digest))
            expected.append(record(5, "usage"))
            same(await store.records(whole(row)), expected)

    async def test_the_events_of_the_application_are_erased_by_one_name(self) -> None:
        async with self.opened() as store:
            row = await self.grown(store, "s", 1)
            kinds = ("app.paid", "application", "app.noted")
            events = [record(seq, kind) for seq, kind in enumerate(kinds, start=2)]
            row = await store.commit(append(row, *events))
            same(await store.erase(whole(row), types=["app.*"]), 2)
            same([each.body is None for each in await store.records(whole(row))], [0, 1, 0, 1])

    async def test_a_deleted_session_is_gone_and_its_id_is_free(self) -> None:
        async with self.opened() as store:
            row = await self.grown(store, "s", 3)
            entry = Input(session=row.key, worker=WORKER, kind="input", time=1, body=b"{}")
            await store.put_input(entry)
            receipt = Receipt(time=1, type="session.deleted", body=b"{}")
            await refused(
                StaleWriter, store.delete_session(replace(row, seq=2), receipt, stub=False)
            )
            same(await store.receipts(), [])
            await store.delete_session(row, receipt, stub=False)
            same(await store.find(None, "s"), None)
            same(await store.row(row.key), None)
            same(await store.rows(), [])
            same(await store.records(whole(row)), [])
            same(await store.inputs(row.key), [])
            same(await store.receipts(), [replace(receipt, id=1)])
            await refused(StaleWriter, store.commit(append(row, record(4))))
            again = await store.commit(birth("s", uid=b"second" + bytes(10)))
            same(again.key != row.key, True)

    async def test_a_session_that_is_deleted_without_a_receipt_leaves_nothing(self) -> None:
        async with self.opened() as store:
            row = await self.grown(store, "s", 3)
            await store.delete_session(row, None, stub=False)
            same(await store.find(None, "s"), None)
            same(await store.row(row.key), None)
            same(await store.records(whole(row)), [])
            same(await store.receipts(), [])

    async def test_a_stub_stays_for_those_that_forked_off(self) -> None:
        async with self.opened() as store:
            row = await self.grown(store, "s", 3, user="u")
            receipt = Receipt(time=1, type="session.deleted", body=b"{}")
            await store.delete_session(row, receipt, stub=True)
            stub = await store.row(row.key)
            if stub is None:
                raise AssertionError("the stub is gone")
            same((stub.status, stub.id, stub.user), ("deleted", "", None))
            same((stub.uid, stub.seq, stub.digest), (row.uid, row.seq, row.digest))
            same(await store.find(None, "s"), None)
            same(await store.rows(), [])
            same(await store.records(whole(row)), [])
            await self.grown(store, "s", 1, uid=b"second" + bytes(10))

    async def test_erasing_a_user_removes_their_state_only(self) -> None:
        async with self.opened() as store:
            row = await self.grown(store, "s", 0)
            shared = [
                SharedWrite(scope="user", app=None, user="u", key="a", value=b"1"),
                SharedWrite(scope="user", app="b", user="u", key="a", value=b"1"),
                SharedWrite(scope="user", app=None, user="v", key="a", value=b"1"),
                SharedWrite(scope="app", app=None, user=None, key="a", value=b"1"),
            ]
            await store.commit(append(row, shared=shared))
            receipt = Receipt(time=3, type="user.erased", body=b"{}")
            same(await store.erase_user("u", receipt), 2)
            same(await store.shared("user", None, "u", "a"), None)
            same(await store.shared("user", None, "v", "a"), SharedValue(b"1", 1))
            same(await store.shared("app", None, None, "a"), SharedValue(b"1", 1))
            await store.add_receipt(receipt)
            same([each.id for each in await store.receipts()], [1, 2])
