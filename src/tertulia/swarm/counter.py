"""The counter: where other workers ask for the clients that are served by this one."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tertulia import host as hosts
from tertulia import slots
from tertulia.cluster.channels import Channel
from tertulia.cluster.parts import Whole
from tertulia.errors import InvalidInput, WorkerLost
from tertulia.messages import Message
from tertulia.swarm.answer import Answer, Outgoing
from tertulia.swarm.connecting import Far
from tertulia.swarm.parcels import (
    Answered,
    Call,
    Cancelled,
    Delivered,
    Elsewhere,
    Happened,
    Raised,
    call_in,
    packed,
)
from tertulia.swarm.streams import ClientStream

if TYPE_CHECKING:
    from tertulia.swarm.desk import Desk
    from tertulia.swarm.services import SessionConnectionService


class Counter:
    """Carries out one call of another worker, and tells it what comes of that."""

    def __init__(self, service: SessionConnectionService) -> None:
        self._service = service
        if service.host.cluster is not None:
            service.host.cluster.on_lapse(self._note_lapse, anywhere=True)

    def _note_lapse(self, lapsed: bool) -> None:
        """Once the lease is back, clients that somebody is connected to look for their seats."""
        for client in () if lapsed else self._service.live():
            client._desk.seat.look_again()  # pyright: ignore[reportPrivateUsage]

    async def serve(self, head: bytes, channel: Channel) -> None:
        """Answer a channel: the call is its head, or, where that is empty, what comes first."""
        whole = Whole(channel)
        try:
            call = call_in(head or await whole.receive() or b"")
            with hosts.using(self._service.host), slots.guest(call.inside):
                await self._answer(call, whole)
        except WorkerLost:
            raise
        except Exception as error:
            await whole.send(packed(Raised.of(error)))
        await channel.end()

    async def _answer(self, call: Call, channel: Whole) -> None:
        living = self._living(call)
        if call.op == "released":
            for desk in living:
                desk.seat.released()
            await channel.send(packed(Cancelled(bool(living))))
            return
        if call.op in {"emit", "notify"}:
            here = [desk for desk in living if await desk.seat.elsewhere(afresh=True) is None]
            if here:
                await _CALLS[call.op](call, here, channel)
                return
        desk = self._service.own(call.client_id, call.swarm)._desk  # pyright: ignore[reportPrivateUsage]
        if await desk.seat.elsewhere(afresh=True) is not None:
            await channel.send(packed(Elsewhere()))
            return
        await _CALLS[call.op](call, [desk], channel)

    def _living(self, call: Call) -> list[Desk]:
        """All that lives here of the client, also in live sessions."""
        return [
            each._desk  # pyright: ignore[reportPrivateUsage]
            for each in self._service.live()
            if (each.client_id, each.swarm.name) == (call.client_id, call.swarm)
        ]


def _requested(call: Call) -> Message:
    if call.request is None:
        raise InvalidInput("there is nothing to execute")
    return call.request


def _answered(desk: Desk, answer: Answer) -> Answered:
    """An answer, to be sent. Raises WorkerLost where this worker has stopped the turn to go."""
    if answer.kind == "cancelled" and desk.life.closed:
        raise WorkerLost("the worker that served the client has stopped")
    return Answered.of(answer)


async def _execute(call: Call, desks: list[Desk], channel: Whole) -> None:
    answer = await desks[0].execute(_requested(call), call.options)
    await channel.send(packed(_answered(desks[0], answer)))


async def _stream(call: Call, desks: list[Desk], channel: Whole) -> None:
    stream = ClientStream(desks[0], _requested(call), call.options)
    async with stream:
        async for event in stream:
            await channel.send(packed(Happened(event)))
    await channel.send(packed(_answered(desks[0], stream.answer)))


async def _resume(call: Call, desks: list[Desk], channel: Whole) -> None:
    del call
    await channel.send(packed(Answered.of(await desks[0].client.resume())))


async def _cancel(call: Call, desks: list[Desk], channel: Whole) -> None:
    del call
    await channel.send(packed(Cancelled(await desks[0].client.cancel())))


async def _emit(call: Call, desks: list[Desk], channel: Whole) -> None:
    said = [await each.client.emit(call.text) for each in desks]
    await channel.send(packed(Answered.of(said[0])))


async def _notify(call: Call, desks: list[Desk], channel: Whole) -> None:
    connected = [each for each in desks if each.connected] or desks[:1]
    said = [await each.client.notify(call.text) for each in connected]
    await channel.send(packed(Answered.of(said[0])))


async def _connect(call: Call, desks: list[Desk], channel: Whole) -> None:
    """Hand what goes out to the other worker, until it disconnects or looks elsewhere."""
    del call
    desk = desks[0]

    async def give(outgoing: Outgoing) -> None:
        with suppress(WorkerLost):  # who was connected there is told of it there
            await channel.send(packed(Delivered(outgoing)))

    await desk.begin()
    desk.check_room()
    far = Far(desk, give, lambda: channel.channel.shut("the client is served elsewhere"))
    desk.outlet.sends[far] = None
    try:
        while await channel.receive() is not None:
            continue
    finally:
        far.close()


_Work = Callable[[Call, Any, Whole], Coroutine[Any, Any, None]]
_CALLS: dict[str, _Work] = {
    "execute": _execute,
    "stream": _stream,
    "resume": _resume,
    "cancel": _cancel,
    "emit": _emit,
    "notify": _notify,
    "connect": _connect,
}
