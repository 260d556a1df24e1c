"""What the HTTP API shows of swarms: their clients, answers, bans and the events of the bus."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from tertulia.approvals import Approval
from tertulia.bus import BusEvent
from tertulia.clock import to_iso
from tertulia.policies import Ban, Direction, Verdict
from tertulia.server.views import REFUSED
from tertulia.swarm import Answer, ClientSession, Swarm


class SwarmShown(msgspec.Struct, frozen=True):
    """A swarm: its agents and policies by name, and who new clients come to."""

    name: str
    agents: list[str]
    default: str
    policies: list[str]


class SwarmPage(msgspec.Struct, frozen=True):
    """The swarms of a server."""

    swarms: list[SwarmShown]


class ClientShown(msgspec.Struct, frozen=True):
    """A client that lives in this process, and the session that is its conversation."""

    client_id: str
    swarm: str
    agent: str
    """The agent that has the floor."""
    connected: bool
    session_id: str
    app_name: str | None


class ClientPage(msgspec.Struct, frozen=True):
    """The clients of a swarm that live in this process."""

    clients: list[ClientShown]


class VerdictShown(msgspec.Struct, frozen=True):
    """Why something was refused."""

    direction: Direction
    policy: str | None
    reason: str
    banned: bool
    """Whether a ban stood already, and nobody looked at the text."""


class SwarmAnswer(msgspec.Struct, frozen=True):
    """What a client gets. With `pending` calls it is none yet; `verdict` is there for a refusal."""

    text: str
    kind: Literal["answer", "ban", "placeholder", "cancelled", "pending"]
    agent: str | None
    turn: int | None
    verdict: VerdictShown | None
    pending: list[Approval]


class Disposed(msgspec.Struct, frozen=True):
    """Whether there was something to dispose."""

    disposed: bool


class BanShown(msgspec.Struct, frozen=True):
    """A ban; `policy` is ``*`` for one from the whole swarm, `until` None for ever."""

    policy: str
    since: str
    until: str | None
    reason: str


class BansShown(msgspec.Struct, frozen=True):
    """The bans of a client that stand."""

    bans: list[BanShown]


class BusEventShown(msgspec.Struct, frozen=True):
    """One thing that happened to a client; `seq` is its place in the log, where it has one."""

    type: str
    source: str
    input: dict[str, Any]
    output: dict[str, Any]
    context: dict[str, Any]
    client_id: str
    seq: int | None
    time: str | None


def swarm(made: Swarm) -> SwarmShown:
    """A swarm."""
    names = [policy.name for policy in made.policies]
    return SwarmShown(made.name, list(made.agents), made.default, names)


def client(live: ClientSession) -> ClientShown:
    """A client that lives."""
    return ClientShown(
        live.client_id,
        live.swarm.name,
        live.agent,
        live.connected,
        live.session.id,
        live.session.app_name,
    )


def answer(given: Answer) -> SwarmAnswer:
    """What a client gets."""
    why = None if given.verdict is None else _verdict(given.verdict)
    return SwarmAnswer(str(given), given.kind, given.agent, given.turn, why, given.pending)


def _verdict(given: Verdict) -> VerdictShown:
    return VerdictShown(given.direction, given.policy, given.reason, given.banned)


def bans(standing: Iterable[Ban]) -> BansShown:
    """Bans."""
    return BansShown(
        [
            BanShown(
                each.policy,
                to_iso(each.since),
                None if each.until is None else to_iso(each.until),
                each.reason,
            )
            for each in standing
        ]
    )


def bus_event(event: BusEvent, *, whole: bool) -> BusEventShown:
    """One thing that happened; not `whole`: without texts that no client may see."""
    given, told = event.input, event.output
    hidden = () if whole else REFUSED.get(event.source.removesuffix("-bus"), ())
    if hidden:
        given = {key: value for key, value in given.items() if key not in hidden}
        told = {key: value for key, value in told.items() if key not in hidden}
    return BusEventShown(
        event.type,
        event.source,
        given,
        told,
        event.context,
        event.client_id,
        event.seq,
        None if event.time is None else to_iso(event.time),
    )
