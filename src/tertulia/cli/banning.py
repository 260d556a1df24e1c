"""`tertulia bans`, `ban` and `unban`: who may not talk to a swarm."""

from __future__ import annotations

from typing import Any

import click

from tertulia.agents import Agent
from tertulia.cli import places, texts
from tertulia.policies import EVERYTHING, Ban, Policy, PolicyContext
from tertulia.runtime import Runtime
from tertulia.swarm import Swarm
from tertulia.swarm import bans as kept


class _Named(Policy):
    """Stands for the policy of a name, which is code elsewhere."""

    def validate_input(self, message: str, context: PolicyContext, /) -> bool:
        """Is asked about nothing here."""
        return True


swarm_option = click.option("--swarm", required=True, metavar="NAME", help="Which swarm.")
swarm_app_option = click.option(
    "--app", metavar="NAME", help="The app of the swarm's sessions, where it is not its name."
)


@click.command()
@click.argument("client")
@click.option("--swarm", metavar="NAME", help="Only the bans of a swarm.")
@places.json_option
@places.store_option
def bans(client: str, swarm: str | None, as_json: bool, store: str) -> None:
    """List the bans of a CLIENT that stand, in one swarm or in all of them.

    Bans are kept by a digest of the client's id, so there is no list of all clients.
    """

    async def work(runtime: Runtime) -> dict[str, list[Ban]]:
        now = runtime.clock.now()
        names = [swarm] if swarm else list(await kept.exported(runtime.store, client))
        found = {name: await kept.Bans(runtime, name).read(client) for name in names}
        return {name: [ban for ban in all_ if ban.stands(now)] for name, all_ in found.items()}

    _print(places.run(store, work), as_json, "no ban stands")


@click.command()
@click.argument("client")
@swarm_option
@click.option("--policy", metavar="NAME", help="Because of a policy; else from the whole swarm.")
@click.option("--until", metavar="WHEN", help="As in 2027-01-31T08:30Z, or seconds; else for ever.")
@click.option("--reason", metavar="TEXT", default="", help="Why; the audit keeps it.")
@swarm_app_option
@places.json_option
@places.store_option
def ban(
    client: str, swarm: str, policy: str | None, as_json: bool, store: str, **said: Any
) -> None:
    """Let a CLIENT not talk to a swarm; it holds at once, in every process on the store.

    The swarm is code, so its name and its policy's are taken as they are said: a ban because of a
    policy that it does not have has no effect.
    """

    async def work(runtime: Runtime) -> list[Ban]:
        banned = _stand_in(runtime, swarm, policy, said["app"])
        return await banned.ban(client, policy, _end(said["until"]), reason=said["reason"])

    _print({swarm: places.run(store, work)}, as_json, "the client is banned for as long already")
    if policy not in (None, EVERYTHING):
        click.echo(
            f"the name {texts.plain(policy)!r} was taken as said: this has an effect only where "
            "the swarm has a policy of that name",
            err=True,
        )


@click.command()
@click.argument("client")
@swarm_option
@click.option("--policy", metavar="NAME", help="Only the ban under a policy; else all.")
@swarm_app_option
@places.json_option
@places.store_option
def unban(
    client: str, swarm: str, policy: str | None, app: str | None, as_json: bool, store: str
) -> None:
    """Lift the bans of a CLIENT in a swarm, and print those that were lifted."""

    async def work(runtime: Runtime) -> list[Ban]:
        return await _stand_in(runtime, swarm, policy, app).unban(client, policy)

    _print({swarm: places.run(store, work)}, as_json, "there was no ban to lift")


def _end(until: str | None) -> float | str | None:
    """Seconds, or a date as it was said."""
    return float(until) if until and until.replace(".", "", 1).isdecimal() else until


def _stand_in(runtime: Runtime, name: str, policy: str | None, app: str | None) -> Swarm:
    """A swarm of a name, for one that is defined elsewhere."""
    named = [_Named(name=policy)] if policy not in (None, EVERYTHING) else []
    found = Swarm(name, [Agent("nobody")], policies=named, app_name=app)
    runtime.clients.add(found)
    return found


def _print(found: dict[str, list[Ban]], as_json: bool, none: str) -> None:
    told = [(name, each) for name, bans in found.items() for each in bans]
    if as_json:
        texts.print_json([_told(name, each) for name, each in told])
    elif told:
        heads = ("swarm", "policy", "since", "until", "reason")
        rows = [tuple(str(part or "-") for part in _told(*each).values()) for each in told]
        texts.print_columns(heads, rows)
    else:
        click.echo(none, err=True)


def _told(swarm: str, ban: Ban) -> dict[str, Any]:
    until = None if ban.until is None else texts.moment(ban.until)
    return {
        "swarm": swarm,
        "policy": ban.policy,
        "since": texts.moment(ban.since),
        "until": until,
        "reason": ban.reason,
    }
