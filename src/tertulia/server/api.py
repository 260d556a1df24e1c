"""The HTTP API: its operations in one table, and the routes that serve them.

The table dispatches requests, checks them and describes itself as an OpenAPI document.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from tertulia.agents.runner import Runner
from tertulia.approvals import Approval
from tertulia.doors import Outcome
from tertulia.runtime import Runtime
from tertulia.server import openapi, requests, session_calls, swarm_api, turn_calls, views
from tertulia.server.operations import (
    SLASH,
    Authenticate,
    Call,
    Endpoint,
    Operation,
    Service,
    nowhere,
)
from tertulia.server.reaching import PREFIX
from tertulia.session import Session

_ONE = f"{PREFIX}/{{id}}"

_SAY = "say something to it with POST {client}/execute"
_RESUME = "go on with POST {client}/resume"
_READ = "read its messages, or follow GET /v1/bus; the log is for the server's own code"
_OURS = "the server's own code decides this"
_LET_GO = "DELETE {client} lets go of what lives of it; only the server's own code removes it"
"""What somebody with a name does with a conversation with a swarm."""


async def _document(call: Call) -> Response:
    return Response(call.service.document, media_type="application/json")


OPERATIONS = (
    Operation(
        name="createSession",
        method="POST",
        path=PREFIX,
        summary="Make a session",
        handle=session_calls.create,
        body=requests.NewSession,
        answer=views.SessionDetail,
        status=201,
        in_swarm=_SAY,
    ),
    Operation(
        name="listSessions",
        method="GET",
        path=PREFIX,
        summary="List the sessions of whoever asks, in the order of their creation",
        handle=session_calls.listing,
        query=requests.Listing,
        answer=views.SessionPage,
    ),
    Operation(
        name="readSession",
        method="GET",
        path=_ONE,
        summary="Read how a session stands",
        handle=session_calls.read,
        query=requests.OfSession,
        answer=views.SessionDetail,
    ),
    Operation(
        name="deleteSession",
        method="DELETE",
        path=_ONE,
        summary="Remove a session with all that belongs to it",
        handle=session_calls.delete,
        query=requests.OfSession,
        answer=views.ReceiptShown,
        in_swarm=_LET_GO,
    ),
    Operation(
        name="listMessages",
        method="GET",
        path=f"{_ONE}/messages",
        summary="Read the messages that are visible, the newest page first",
        handle=session_calls.history,
        query=requests.HistoryAsked,
        answer=views.MessagePage,
    ),
    Operation(
        name="appendMessages",
        method="POST",
        path=f"{_ONE}/messages",
        summary="Append messages, all of them or none",
        handle=session_calls.append,
        query=requests.OfSession,
        body=requests.NewMessages,
        answer=views.MessagesStored,
        status=201,
        in_swarm=_SAY,
    ),
    Operation(
        name="listEvents",
        method="GET",
        path=f"{_ONE}/events",
        summary="Read the log",
        handle=session_calls.events,
        query=requests.EventsAsked,
        answer=views.EventPage,
        in_swarm=_READ,
    ),
    Operation(
        name="followEvents",
        method="GET",
        path=f"{_ONE}/follow",
        summary="Follow the log as server-sent events; the header last-event-id resumes",
        handle=session_calls.follow,
        query=requests.FollowAsked,
        streams=(views.EventShown,),
        in_swarm=_READ,
    ),
    Operation(
        name="runTurn",
        method="POST",
        path=f"{_ONE}/run",
        summary="Run one turn of an agent, whole or as server-sent events",
        handle=turn_calls.run,
        query=requests.OfSession,
        body=requests.Run,
        answer=views.Answer,
        streams=(views.TurnEvent,),
        in_swarm=_SAY,
    ),
    Operation(
        name="resumeTurn",
        method="POST",
        path=f"{_ONE}/resume",
        summary="Go on with a turn that was suspended, or left by a process that died",
        handle=turn_calls.resume,
        query=requests.OfSession,
        body=requests.Resume,
        answer=views.Answer,
        in_swarm=_RESUME,
    ),
    Operation(
        name="decideApproval",
        method="POST",
        path=f"{_ONE}/approvals/{{call_id}}",
        summary="Approve or reject a tool call that waits",
        handle=turn_calls.decide,
        query=requests.OfSession,
        body=requests.Decision,
        answer=Approval,
        in_swarm=_OURS,
    ),
    Operation(
        name="forkSession",
        method="POST",
        path=f"{_ONE}/fork",
        summary="Branch off a new session",
        handle=session_calls.fork,
        query=requests.OfSession,
        body=requests.NewFork,
        answer=views.SessionDetail,
        status=201,
        in_swarm=_OURS,
    ),
    Operation(
        name="endSession",
        method="POST",
        path=f"{_ONE}/end",
        summary="End the conversation",
        handle=session_calls.end,
        query=requests.OfSession,
        body=requests.Ending,
        answer=views.SessionDetail,
        in_swarm=_OURS,
    ),
    *swarm_api.OPERATIONS,
    Operation(
        name="readDocument",
        method="GET",
        path="/openapi.json",
        summary="Read this document",
        handle=_document,
        answer=dict[str, Any],
        public=True,
    ),
)


def routes(
    runtime: Runtime,
    *,
    agents: Mapping[str, Runner] | None = None,
    agent: Runner | None = None,
    authenticate: Authenticate | None = None,
    closing: Outcome[None] | None = None,
    deleted: Callable[[Session], None] | None = None,
) -> list[Route]:
    """The routes of the HTTP API, below ``/v1``, and ``/openapi.json``.

    `agents` are asked for by name; `agent` answers where nobody is asked for and nobody of them
    has the floor. `authenticate` says who sends a request, and raises Unauthorized; who it names
    works with sessions of their own only. Without it, or where it gives None, all is allowed.
    When `closing` is given, whoever follows a log is told to come back. `deleted` is told of
    each session that is deleted here.
    """
    service = Service(
        runtime=runtime,
        agents={**_named(agent, agents or {}), **(agents or {})},
        agent=agent,
        authenticate=authenticate,
        closing=closing,
        document=openapi.document(OPERATIONS, secured=authenticate is not None),
        **({} if deleted is None else {"deleted": deleted}),
    )
    return [*_served(service), Route("/v1/{rest:path}", _Nowhere())]


def _served(service: Service) -> list[Route]:
    """One route for each path, whatever its methods."""
    by_path: dict[str, dict[str, Operation]] = {}
    for operation in OPERATIONS:
        by_path.setdefault(operation.path, {})[operation.method] = operation
    return [_Exact(path, Endpoint(service, path, there)) for path, there in by_path.items()]


class _Exact(Route):
    """A route in whose path ``%2F`` is a part of an id, and parts nothing."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether the path of a request is of this route."""
        raw: bytes | None = scope.get("raw_path")
        if raw is not None and b"%2f" in raw.lower():
            kept = re.sub("%2f", SLASH, raw.decode("latin-1"), flags=re.IGNORECASE)
            scope = {**scope, "path": unquote(kept)}
        return super().matches(scope)


def _named(agent: Runner | None, agents: Mapping[str, Runner]) -> dict[str, Runner]:
    """The agents by their own names, by which the floor is kept."""
    return {each.name: each for each in (agent, *agents.values()) if each and each.name}


class _Nowhere:
    """A class, because Starlette takes functions for handlers of its own kind."""

    __call__ = staticmethod(nowhere)
