"""What the HTTP API does with swarms: their clients, what these say and are told, and the bus.

Somebody with a name is the client of that name, and no other one. What the application itself says
to a client, and who is banned, is for those who have no name: the code of the server.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Iterable
from typing import Any, cast

from tertulia import host as hosts
from tertulia.bus import BusEvent
from tertulia.bus.base import EVERYONE
from tertulia.errors import AccessDenied, UnknownName
from tertulia.server import requests, sse, swarm_views
from tertulia.server.operations import Call
from tertulia.server.problems import Refused
from tertulia.server.session_calls import RETRY, key_of, plain
from tertulia.server.sse import EventStream
from tertulia.server.swarm_views import BansShown, ClientPage, Disposed, SwarmAnswer, SwarmPage
from tertulia.server.turn_calls import streams
from tertulia.server.views import turn_event
from tertulia.swarm import Answer, ClientSession, ClientStream, Swarm


async def listing(call: Call) -> SwarmPage:
    """The swarms of this server."""
    swarms = call.service.runtime.clients.swarms.values()
    return SwarmPage([swarm_views.swarm(each) for each in swarms])


async def clients(call: Call) -> ClientPage:
    """The clients of a swarm that live here, of whoever asks."""
    swarm = _swarm(call)
    live = call.service.runtime.client_sessions()
    mine = [each for each in live if each.swarm is swarm and call.user in (None, each.client_id)]
    return ClientPage([swarm_views.client(each) for each in mine])


async def execute(call: Call) -> SwarmAnswer | EventStream:
    """What a client gets for what it says, whole or as it happens."""
    body: requests.Execution = call.body
    client = _client(call)
    if body.mode == "tool":
        _trusted(call, "the mode tool")
    said = body.message if isinstance(body.message, str) else plain(body.message)
    options: dict[str, Any] = {
        "metadata": body.metadata,
        "timeout": body.timeout,
        "idempotency_key": key_of(call, body.idempotency_key),
    }
    if streams(call, body.stream):
        return EventStream(_told(client.stream(said, body.mode, **options)), call.place)
    return swarm_views.answer(await client.execute(said, body.mode, **options))


async def _told(stream: ClientStream) -> AsyncGenerator[bytes]:
    """A client's turn as bytes; the last event is its answer."""
    async with stream:
        async for happened in stream:
            if happened.type != "error":
                seq = None if happened.message is None else happened.message.seq
                yield sse.event(happened.type, turn_event(happened), seq)
        yield sse.event("answer", swarm_views.answer(stream.answer))


async def resume(call: Call) -> SwarmAnswer:
    """The answer of the turn that was suspended, or left by a process that died."""
    return swarm_views.answer(await _client(call).resume())


async def emit(call: Call) -> SwarmAnswer:
    """What was said to a client unasked, wherever it lives; else in its own conversation."""
    body: requests.Saying = call.body
    _client_id(call)
    _trusted(call, "emit")
    living = _instances(call) or [_client(call)]
    return await _said_by_all(each.emit(body.text) for each in living)


async def notify(call: Call) -> SwarmAnswer:
    """What those who are connected were told. Raises NotConnected where nobody is."""
    body: requests.Saying = call.body
    _client_id(call)
    _trusted(call, "notify")
    connected = [each for each in _instances(call) if each.connected]
    return await _said_by_all(each.notify(body.text) for each in connected or [_client(call)])


async def _said_by_all(said: Iterable[Awaitable[Answer]]) -> SwarmAnswer:
    """The first answer of all, once each was given; raises what the first failure was."""
    given = await asyncio.gather(*said, return_exceptions=True)
    for each in given:
        if isinstance(each, BaseException):
            raise each
    return swarm_views.answer(cast("Answer", given[0]))


async def dispose(call: Call) -> Disposed:
    """Whether something of a client lived here, which is disposed now."""
    found = _instances(call)
    for each in found:
        await each.dispose()
    return Disposed(bool(found))


async def bans(call: Call) -> BansShown:
    """The bans of a client that stand."""
    swarm, client_id = _swarm(call), _client_id(call)
    _trusted(call, "the list of bans")
    with hosts.using(call.service.runtime):
        return swarm_views.bans(await swarm.bans(client_id))


async def ban(call: Call) -> BansShown:
    """The bans of a client, with a new one."""
    body: requests.Banning = call.body
    swarm, client_id = _swarm(call), _client_id(call)
    _trusted(call, "a ban")
    with hosts.using(call.service.runtime):
        await swarm.ban(client_id, body.policy, body.until, reason=body.reason)
        return swarm_views.bans(await swarm.bans(client_id))


async def unban(call: Call) -> BansShown:
    """The bans of a client that are left."""
    asked: requests.Unbanning = call.query
    swarm, client_id = _swarm(call), _client_id(call)
    _trusted(call, "the end of a ban")
    with hosts.using(call.service.runtime):
        await swarm.unban(client_id, asked.policy)
        return swarm_views.bans(await swarm.bans(client_id))


async def bus(call: Call) -> EventStream:
    """What happens to a client, or to all of them, from now on."""
    asked: requests.BusAsked = call.query
    wanted = asked.client_id or call.user or EVERYONE
    if wanted == EVERYONE:
        _trusted(call, "the bus of all clients")
    if call.user not in (None, wanted):
        raise _denied(wanted)
    heard = call.service.runtime.bus.events(wanted, asked.topic)

    async def told() -> AsyncGenerator[bytes]:
        lost = 0
        yield RETRY
        async with heard:
            async for event in heard:
                if heard.lost > lost:
                    yield sse.comment(f"{heard.lost - lost} events were dropped")
                    lost = heard.lost
                yield _bus_event(event, whole=call.user is None)

    return EventStream(told(), call.place, call.service.closing)


def _bus_event(event: BusEvent, *, whole: bool) -> bytes:
    return sse.event(event.topic, swarm_views.bus_event(event, whole=whole), event.seq)


# -- who may


def _client(call: Call) -> ClientSession:
    """The client that a path names, in its own conversation and not in that of a live session.

    Raises AccessDenied for somebody else's one.
    """
    return call.service.runtime.clients.own(_client_id(call), _swarm(call).name)


def _instances(call: Call) -> list[ClientSession]:
    """All that lives here of the client that a path names, also in live sessions."""
    client_id, swarm = _client_id(call), _swarm(call)
    live = call.service.runtime.client_sessions()
    return [each for each in live if each.swarm is swarm and each.client_id == client_id]


def _client_id(call: Call) -> str:
    """The id in a path. Raises AccessDenied for that of somebody else."""
    client_id = call.path["client_id"]
    if call.user not in (None, client_id):
        raise _denied(client_id)
    return client_id


def _denied(client_id: str) -> AccessDenied:
    return AccessDenied("the client is somebody else", session_id=client_id)


def _swarm(call: Call) -> Swarm:
    """The swarm that a path names. Raises UnknownName."""
    there, wanted = call.service.runtime.clients.swarms, call.path["swarm"]
    if wanted not in there:
        raise UnknownName(
            f"there is no swarm {wanted!r} here, but: {', '.join(there) or 'none'}; a server has "
            "those of AgentApp(setup, swarms=[…]), and those of the SwarmNodes of its setup handler"
        )
    return there[wanted]


def _trusted(call: Call, what: str) -> None:
    """Raise Refused for somebody with a name."""
    if call.user is not None:
        raise Refused(403, "Forbidden", f"{what} is for the server's own code, not for its clients")
