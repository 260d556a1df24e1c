"""The operations of the HTTP API that are about swarms, as rows of its table."""

from __future__ import annotations

from tertulia.server import requests, swarm_calls, swarm_views, views
from tertulia.server.operations import Operation

PREFIX = "/v1/swarms"
_CLIENTS = f"{PREFIX}/{{swarm}}/clients"
_ONE = f"{_CLIENTS}/{{client_id}}"

OPERATIONS = (
    Operation(
        name="listSwarms",
        method="GET",
        path=PREFIX,
        summary="List the swarms of this server",
        handle=swarm_calls.listing,
        answer=swarm_views.SwarmPage,
    ),
    Operation(
        name="listClients",
        method="GET",
        path=_CLIENTS,
        summary="List the clients of a swarm that live in this process",
        handle=swarm_calls.clients,
        answer=swarm_views.ClientPage,
    ),
    Operation(
        name="disposeClient",
        method="DELETE",
        path=_ONE,
        summary="Let go of all that lives of a client; its conversation stays",
        handle=swarm_calls.dispose,
        answer=swarm_views.Disposed,
    ),
    Operation(
        name="executeMessage",
        method="POST",
        path=f"{_ONE}/execute",
        summary="Say something to a swarm as a client; whole, or as server-sent events",
        handle=swarm_calls.execute,
        body=requests.Execution,
        answer=swarm_views.SwarmAnswer,
        streams=(views.TurnEvent, swarm_views.SwarmAnswer),
    ),
    Operation(
        name="resumeClient",
        method="POST",
        path=f"{_ONE}/resume",
        summary="Go on with a client's turn that was suspended, or left by a process that died",
        handle=swarm_calls.resume,
        body=requests.Nothing,
        answer=swarm_views.SwarmAnswer,
    ),
    Operation(
        name="emitMessage",
        method="POST",
        path=f"{_ONE}/emit",
        summary="Say something to a client unasked",
        handle=swarm_calls.emit,
        body=requests.Saying,
        answer=swarm_views.SwarmAnswer,
    ),
    Operation(
        name="notifyClient",
        method="POST",
        path=f"{_ONE}/notify",
        summary="Tell whoever is connected something that is no part of the history",
        handle=swarm_calls.notify,
        body=requests.Saying,
        answer=swarm_views.SwarmAnswer,
    ),
    Operation(
        name="listBans",
        method="GET",
        path=f"{_ONE}/bans",
        summary="List the bans of a client that stand",
        handle=swarm_calls.bans,
        answer=swarm_views.BansShown,
    ),
    Operation(
        name="banClient",
        method="PUT",
        path=f"{_ONE}/bans",
        summary="Ban a client",
        handle=swarm_calls.ban,
        body=requests.Banning,
        answer=swarm_views.BansShown,
    ),
    Operation(
        name="unbanClient",
        method="DELETE",
        path=f"{_ONE}/bans",
        summary="Lift bans of a client",
        handle=swarm_calls.unban,
        query=requests.Unbanning,
        answer=swarm_views.BansShown,
    ),
    Operation(
        name="followBus",
        method="GET",
        path="/v1/bus",
        summary="Follow what happens to clients as server-sent events, from now on",
        handle=swarm_calls.bus,
        query=requests.BusAsked,
        streams=(swarm_views.BusEventShown,),
    ),
)
