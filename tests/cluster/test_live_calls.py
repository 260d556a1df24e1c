"""Phone calls on several workers: a call is served where its connection comes."""

from __future__ import annotations

from tests.cluster.live_workers import Working, working
from tests.live.talking import eventually

from tertulia import Telephony
from tertulia.server.seats import place_of
from tertulia.testing import SimulatedCaller


def _relay(worker: Working) -> str:
    return f"ws://127.0.0.1:{worker.port}/voice/relay"


async def _holder(worker: Working, session_id: str) -> str | None:
    """Which worker has the seat of a session: "here", "there" or None."""
    cluster = worker.app.runtime.cluster
    assert cluster is not None
    place = place_of(worker.app.runtime.session(session_id))
    found = await cluster.take_seat(place)
    if found is not None:
        return "there"
    return "here" if worker.lives else None


async def test_a_call_that_comes_to_another_worker_is_served_there_and_ends_nothing(
    postgres: str,
) -> None:
    telephony = Telephony()
    async with (
        working(postgres, telephony=telephony) as one,
        working(postgres, telephony=telephony) as two,
    ):
        async with SimulatedCaller(_relay(one)) as first:
            await first.says("a b")
            assert await first.hears() == "a b "
            async with SimulatedCaller(_relay(two), setup={"callSid": first.call_id}) as second:
                assert second.session_id == first.session_id
                await second.says("c d")
                assert await second.hears() == "c d "
                assert two.lives == [first.session_id]
                assert await _holder(one, first.session_id) == "there"
                await first.says("e f")
                assert await first.hears() == "e f "
                await first.hangs_up()
                await eventually(lambda: not one.lives)
                assert await _holder(one, first.session_id) == "there"
                await second.says("g h")
                assert await second.hears() == "g h "
        await eventually(lambda: not two.lives)
        said = await one.app.runtime.session(first.session_id).history()
        assert [each.text.strip() for each in said if each.role == "user"] == [
            *("a b", "c d", "e f", "g h")
        ]
