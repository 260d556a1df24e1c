"""What belongs to no single session: shared state, entities and receipts, each a document."""

from __future__ import annotations

import msgspec

from tertulia.errors import StaleWriter, VersionConflict
from tertulia.stores import rows
from tertulia.stores.base import Change, Receipt, SharedValue
from tertulia.stores.database import Database
from tertulia.stores.documents import names
from tertulia.stores.documents.saved import SQL, part, stamp
from tertulia.stores.documents.shelf import Document, Shelf

Owner = tuple[str, str | None, str | None]
"""Whose state: (scope, app, user)."""


def owners(change: Change) -> list[Owner]:
    """Whose state a change writes, in an order that is the same for everybody."""
    found = {(write.scope, write.app, write.user) for write in change.shared}
    return sorted(found, key=lambda owner: tuple(part or "" for part in owner))


def put_shared(db: Database, owner: Owner, data: Document | None) -> None:
    """Bring somebody's state in memory to what their document says."""
    scope, app, user = owner
    place = (scope, rows.scope_value(app), rows.scope_value(user))
    db.execute(SQL["drop_shared"], place)
    for key, (text, version) in part(data, "values").items():
        value = None if text is None else text.encode()
        db.execute(SQL["put_shared"], (*place, key, value, version))


def shared_document(db: Database, owner: Owner, revision: int) -> Document:
    """The document of somebody's state as it is in memory."""
    scope, app, user = owner
    place = (scope, rows.scope_value(app), rows.scope_value(user))
    values = {
        key: [None if value is None else value.decode(), version]
        for key, value, version in db.execute(SQL["shared"], place)
    }
    return {"revision": revision, "values": values, "tertulia": {}}


def erase_user(shelf: Shelf, user: str) -> int:
    """Remove a user's state in every app; how many values that were."""
    erased = 0
    for name in shelf.all_names():
        if names.is_state_of(name, user):
            erased += len(part(shelf.load(name), "values"))
            shelf.delete(name)
    return erased


def entity(shelf: Shelf, kind: str, key: str) -> SharedValue | None:
    """The state of an entity."""
    data = shelf.load(names.of_entity(kind, key))
    if data is None:
        return None
    text = data["value"]
    return SharedValue(None if text is None else text.encode(), data["revision"])


def put_entity(shelf: Shelf, kind: str, key: str, value: bytes | None, expect: int) -> int:
    """Save an entity's state where it is still at a version; the new one."""
    name = names.of_entity(kind, key)
    found = shelf.load(name)
    actual = 0 if found is None else int(found["revision"])
    text = None if value is None else value.decode()
    data: Document = {"value": text, "revision": expect + 1, "tertulia": {}}
    if actual == expect:
        try:
            shelf.save(name, data, stamp(found))
        except StaleWriter:
            actual = -1
        else:
            return expect + 1
    raise VersionConflict(
        f"{kind} {key!r} is not at version {expect} any more; nothing was written: read it again "
        "and repeat",
        expected=expect,
        actual=actual,
    )


def receipts(shelf: Shelf) -> list[Receipt]:
    """The store's own audit log."""
    return _receipts(shelf.load(names.RECEIPTS))


def add_receipt(shelf: Shelf, receipt: Receipt) -> None:
    """Note something in the store's own audit log."""
    found = shelf.load(names.RECEIPTS)
    before = stamp(found)
    kept = _receipts(found)
    kept.append(msgspec.structs.replace(receipt, id=len(kept) + 1))
    data: Document = {
        "revision": before.revision + 1,
        "receipts": msgspec.to_builtins(kept),
        "tertulia": {},
    }
    shelf.save(names.RECEIPTS, data, before)


def _receipts(data: Document | None) -> list[Receipt]:
    """The entries in the document of receipts."""
    return msgspec.convert((data or {}).get("receipts", []), list[Receipt])
