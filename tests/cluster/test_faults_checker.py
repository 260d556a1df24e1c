"""The checker of logs itself: it finds what is wrong, and nothing where all is well."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from tests.cluster.checker import Acknowledged, Log, Row, check, faults_in, faults_of

from tertulia import Message, Runtime
from tertulia.stores.postgres import driver

EVENT = "(SELECT key FROM tertulia.sessions WHERE id = 's')"


async def a_log(address: str) -> list[Acknowledged]:
    """A message and a turn; what of them was acknowledged."""
    async with Runtime(address) as runtime:
        session = runtime.session("s")
        await session.send_message(Message.user("hello"))
        async with session.turn("question") as turn:
            await turn.add_message(Message.assistant("answer"))
        return [
            Acknowledged(session="s", seq=event.seq, digest=event.digest, turn=event.turn)
            for event in await session.events()
        ]


async def change(address: str, statement: str) -> None:
    connection = await driver.connect(address)
    await connection.execute(statement)
    await connection.close()


async def test_nothing_is_wrong_with_a_log_as_it_was_written(postgres: str) -> None:
    await check(postgres, await a_log(postgres))


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (f"DELETE FROM tertulia.events WHERE session = {EVENT} AND seq = 2", "event 2 should come"),
        (
            f"DELETE FROM tertulia.events WHERE session = {EVENT} AND type = 'turn.completed'",
            "its head is",
        ),
        (
            f"UPDATE tertulia.events SET digest = sha256('x') WHERE session = {EVENT} AND seq = 1",
            "event 1 is another one",
        ),
        (
            f"UPDATE tertulia.events SET body = '{{}}' WHERE session = {EVENT} AND seq = 2",
            "does not verify at 2",
        ),
        ("UPDATE tertulia.sessions SET open_turn = 3", "its open turn is 3"),
        ("UPDATE tertulia.sessions SET status = 'deleted'", "the session is not there"),
    ],
)
async def test_what_somebody_changed_in_the_database_is_found(
    postgres: str, statement: str, expected: str
) -> None:
    acknowledged = await a_log(postgres)
    await change(postgres, statement)
    faults = await faults_in(postgres, acknowledged)
    assert any(expected in fault for fault in faults), faults


async def test_a_request_that_was_answered_otherwise_is_found(postgres: str) -> None:
    await a_log(postgres)
    wrong = Acknowledged(session="s", seq=1, key="k", turn=1)
    assert any("the request 'k'" in fault for fault in await faults_in(postgres, [wrong]))


def row(seq: int, kind: str, turn: int = 0, **body: object) -> Row:
    return Row(seq=seq, type=kind, turn=turn, digest=b"", body=json.dumps(body).encode())


def started(seq: int, key: str | None = None) -> Row:
    return row(seq, "turn.started", seq, key=key)


def said(seq: int, turn: int, text: str) -> Row:
    return row(seq, "message.added", turn, content=text)


def completed(seq: int, turn: int) -> Row:
    return row(seq, "turn.completed", turn)


Rows = Callable[[], list[Row]]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([started(1), completed(2, 1), completed(3, 1)], "turn 1 ends at 3, where None runs"),
        ([started(1), started(2), completed(3, 2)], "turn 2 begins inside of turn 1"),
        (
            [started(1), said(2, 1, "m"), completed(3, 1), said(4, 0, "m")],
            "'m' is there 2 times",
        ),
        (
            [started(1), completed(2, 1), said(3, 1, "m")],
            "event 3 is of turn 1, where None runs",
        ),
        (
            [started(1, "k"), completed(2, 1), started(3, "k"), completed(4, 3)],
            "the request 'k' was carried out in turns [1, 3]",
        ),
        ([started(1)], "its open turn is None, and in its log 1"),
        ([started(1), completed(1, 1)], "event 2 should come, and 1 does"),
    ],
)
def test_what_the_fences_should_prevent_is_found(rows: list[Row], expected: str) -> None:
    log = Log(app=None, id="s", base=0, head=rows[-1].seq, open_turn=None, rows=rows)
    acknowledged = [Acknowledged(session="s", seq=2, text="m")] if len(rows) > 3 else []
    assert any(fault.startswith(expected) for fault in faults_of(log, acknowledged))


def test_a_turn_that_was_left_and_asked_for_again_is_no_fault() -> None:
    rows = [started(1, "k"), row(2, "turn.abandoned", 1), started(3, "k"), completed(4, 3)]
    log = Log(app=None, id="s", base=0, head=4, open_turn=None, rows=rows)
    assert list(faults_of(log, [Acknowledged(session="s", seq=4, key="k", turn=3)])) == []
