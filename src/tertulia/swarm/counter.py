"""The counter: where other workers ask for the clients that are served by this one."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tertulia import host as hosts
from tertulia.cluster.channels import Channel
from tertulia.errors import InvalidInput, WorkerLost
from tertulia.swarm.answer import Outgoing
from tertulia.swarm.connecting import Send
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

if TYPE_CHECKING:
    from tertulia.swarm.client import ClientSession
    from tertulia.swarm.services import SessionConnectionService


class Counter:
    """Carries out one call of another worker, and tells it what comes of that."""

    def __init__(self, service: SessionConnectionService) -> None:
        self._service = service

    async def serve(self, head: bytes, channel: Channel) -> None:
        """Answer a channel: the call is its head."""
        try:
            call = call_in(head)
            with hosts.using(self._service.host):
                await self._answer(call, channel)
        except WorkerLost:
            raise
        except Exception as error:
            await channel.send(packed(Raised.of(error)))
        await channel.end()

    async def _answer(self, call: Call, channel: Channel) -> None:
        living = self._living(call)
        if living and call.op in {"emit", "notify"}:
            await _CALLS[call.op](self, call, living, channel)
            return
        client = self._service.own(call.client_id, call.swarm)
        if await client._desk.seat.elsewhere() is not None:  # pyright: ignore[reportPrivateUsage]
            await channel.send(packed(Elsewhere()))
            return
        await _CALLS[call.op](self, call, [client], channel)

    def _living(self, call: Call) -> list[ClientSession]:
        """All that lives here of the client, also in live sessions."""
        return [
            each
            for each in self._service.live()
            if (each.client_id, each.swarm.name) == (call.client_id, call.swarm)
        ]

    # -- the calls

    async def _execute(self, call: Call, clients: list[ClientSession], channel: Channel) -> None:
        if call.request is None:
            raise InvalidInput("there is nothing to execute")
        answer = await clients[0]._desk.execute(call.request, call.options)  # pyright: ignore[reportPrivateUsage]
        await channel.send(packed(Answered.of(answer)))

    async def _stream(self, call: Call, clients: list[ClientSession], channel: Channel) -> None:
        if call.request is None:
            raise InvalidInput("there is nothing to execute")
        stream = clients[0]._streamed(call.request, call.options)  # pyright: ignore[reportPrivateUsage]
        async with stream:
            async for event in stream:
                await channel.send(packed(Happened(event)))
        await channel.send(packed(Answered.of(stream.answer)))

    async def _resume(self, call: Call, clients: list[ClientSession], channel: Channel) -> None:
        del call
        await channel.send(packed(Answered.of(await clients[0].resume())))

    async def _cancel(self, call: Call, clients: list[ClientSession], channel: Channel) -> None:
        del call
        await channel.send(packed(Cancelled(await clients[0].cancel())))

    async def _emit(self, call: Call, clients: list[ClientSession], channel: Channel) -> None:
        said = [await each.emit(call.text) for each in clients]
        await channel.send(packed(Answered.of(said[0])))

    async def _notify(self, call: Call, clients: list[ClientSession], channel: Channel) -> None:
        connected = [each for each in clients if each.connected] or clients[:1]
        said = [await each.notify(call.text) for each in connected]
        await channel.send(packed(Answered.of(said[0])))

    async def _connect(self, call: Call, clients: list[ClientSession], channel: Channel) -> None:
        """Hand what goes out to the other worker, until it disconnects."""
        del call
        desk = clients[0]._desk  # pyright: ignore[reportPrivateUsage]

        async def give(outgoing: Outgoing) -> None:
            with suppress(WorkerLost):  # who was connected there is told of it there
                await channel.send(packed(Delivered(outgoing)))

        await desk.begin()
        send = Send(desk, give)
        desk.outlet.sends[send] = None
        try:
            while await channel.receive() is not None:
                continue
        finally:
            send.close()


_Work = Callable[[Counter, Call, Any, Channel], Coroutine[Any, Any, None]]
_CALLS: dict[str, _Work] = {
    "execute": Counter._execute,  # pyright: ignore[reportPrivateUsage]
    "stream": Counter._stream,  # pyright: ignore[reportPrivateUsage]
    "resume": Counter._resume,  # pyright: ignore[reportPrivateUsage]
    "cancel": Counter._cancel,  # pyright: ignore[reportPrivateUsage]
    "emit": Counter._emit,  # pyright: ignore[reportPrivateUsage]
    "notify": Counter._notify,  # pyright: ignore[reportPrivateUsage]
    "connect": Counter._connect,  # pyright: ignore[reportPrivateUsage]
}
