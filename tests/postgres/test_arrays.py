"""Rows as the parameters of a statement."""

from __future__ import annotations

import pytest

from tertulia.stores.postgres.arrays import TABLES, Statement
from tertulia.stores.postgres.driver import connect

CUT = Statement("SELECT n, old, new FROM <cut> c ORDER BY n")
EVENT = Statement("SELECT n, seq, type, body FROM <event> e ORDER BY n")


def event(number: int, body: bytes | None) -> tuple[object, ...]:
    known = {"n": number, "seq": number + 1, "type": "app.noted", "body": body}
    return tuple(known.get(column.split(" ")[0]) for column in TABLES["event"].split(", "))


@pytest.mark.parametrize("bodies", [[], [b"a"], [None], [b"a", None], [None, b"b"], [None] * 3])
async def test_rows_arrive_as_they_were_whatever_is_missing_of_them(
    postgres: str, bodies: list[bytes | None]
) -> None:
    rows = [event(number, body) for number, body in enumerate(bodies)]
    db = await connect(postgres)
    try:
        found = await db.fetch(*EVENT.call({"event": rows}))
    finally:
        await db.close()
    assert [tuple(each) for each in found] == [
        (number, number + 1, "app.noted", body) for number, body in enumerate(bodies)
    ]


def test_only_a_row_that_is_often_alone_comes_without_arrays() -> None:
    assert EVENT.call({"event": [event(0, b"")]})[1:3] == [0, 1]
    assert CUT.call({"cut": [(0, 1, 2)]})[1:] == ["{0}", "{1}", "{2}"]
    assert CUT.call({})[1:] == ["{}"] * 3
