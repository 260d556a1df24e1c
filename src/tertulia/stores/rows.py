"""Between the words and their rows in SQL: pure functions, made to be cheap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from tertulia.errors import StoreCorrupt
from tertulia.stores.base import Details, Receipt, Request, SessionRow, SharedWrite
from tertulia.stores.database import Values
from tertulia.usage import Usage

_details = msgspec.json.Decoder(Details)
_calls = msgspec.json.Decoder(tuple[str, ...])
_encoder = msgspec.json.Encoder()
NO_DETAILS = Details()


def scope_value(name: str | None) -> Any:
    """A name as a column that may not be NULL: 0 where there is no name."""
    return 0 if name is None else name


def head_values(row: SessionRow) -> Values:
    """What every change may change, in the order of `advance` and `create`."""
    calls = _encoder.encode(row.open_calls).decode() if row.open_calls else None
    return (
        row.branch,
        row.seq,
        row.digest,
        row.epoch,
        row.holder,
        row.open_turn,
        calls,
        row.visible,
        row.marks,
        row.usage.requests,
        row.usage.input_tokens,
        row.usage.output_tokens,
        row.active,
    )


def fence(row: SessionRow) -> Values:
    """What must still hold of the stored row for its writer to write."""
    return (row.key, row.seq, row.digest, row.epoch, row.holder)


def rare_values(row: SessionRow) -> Values:
    """What only some changes change; it stands in indexes."""
    return (row.status, row.due_at, row.user)


def birth_values(row: SessionRow) -> Values:
    """What never changes."""
    return (row.uid, scope_value(row.app), row.id, row.base, row.parent, row.created)


def details_text(details: Details) -> str:
    return _encoder.encode(details).decode()


def session_row(values: Sequence[Any]) -> SessionRow:
    """A row of `session_columns`. Raises StoreCorrupt."""
    calls, details = values[13], values[23]
    try:
        return SessionRow(
            key=values[0],
            uid=values[1],
            app=values[2] or None,
            id=values[3],
            user=values[4],
            base=values[5],
            parent=values[6],
            branch=values[7],
            seq=values[8],
            digest=values[9],
            epoch=values[10],
            holder=values[11],
            open_turn=values[12],
            open_calls=_calls.decode(calls) if calls else (),
            visible=values[14],
            marks=values[15],
            usage=Usage(values[16], values[17], values[18]),
            status=values[19],
            created=values[20],
            active=values[21],
            due_at=values[22],
            details=_details.decode(details) if details else NO_DETAILS,
        )
    except (msgspec.MsgspecError, ValueError) as error:
        raise StoreCorrupt(
            f"the row of session {values[3]!r} (key {values[0]}) cannot be read: {error}; "
            "restore it from a backup, or export its events, which are kept apart"
        ) from error


def shared_values(write: SharedWrite) -> dict[str, Any]:
    return {
        "scope": write.scope,
        "app": scope_value(write.app),
        "user": scope_value(write.user),
        "key": write.key,
        "value": write.value,
        "expect": write.expect,
    }


def request_values(session: int, request: Request) -> Values:
    return (
        session,
        request.key,
        request.digest,
        request.turn,
        request.status,
        request.result,
        request.time,
    )


def receipt_header(receipt: Receipt) -> bytes:
    """What the digest of a receipt covers, but for the digest before it."""
    return f"{receipt.id}\0{receipt.time}\0{receipt.type}\0".encode() + receipt.body


def types_text(types: Sequence[str] | None) -> str | None:
    """Event types as a parameter for json_each."""
    return None if types is None else _encoder.encode(list(types)).decode()
