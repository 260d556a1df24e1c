"""`tertulia swarm`: checks a swarm that is defined in a file, and draws it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click
import msgspec

from tertulia.cli import loading, places, texts
from tertulia.errors import UsageError
from tertulia.policies import Policy
from tertulia.swarm import Swarm

if TYPE_CHECKING:
    from rich.tree import Tree


def the_swarm(target: str) -> Swarm:
    """The swarm of FILE[:NAME]; without NAME the one that is called `swarm`, else the only one.

    Raises UsageError, and what the file raises.
    """
    place = target.rpartition(":")[0] if ":" in target else target
    if place != target:
        found = loading.loaded(target, ("swarm",))
        if not isinstance(found, Swarm):
            raise UsageError(f"{target} is no Swarm")
        return found
    named = vars(loading.module_of(place)).items()
    swarms = {name: each for name, each in named if isinstance(each, Swarm)}
    if "swarm" in swarms or len(swarms) == 1:
        return swarms.get("swarm") or next(iter(swarms.values()))
    there = f"several swarms ({', '.join(swarms)})" if swarms else "no swarm"
    raise UsageError(f"{place} has {there}; say which in {place}:NAME")


@click.command()
@click.argument("target", metavar="FILE[:NAME]")
@places.json_option
def swarm(target: str, as_json: bool) -> None:
    """Check the swarm in a FILE, and draw its agents, handoffs, policies and limits.

    FILE is a Python file, or a module as in shop.swarm. Without NAME it is what is called swarm,
    else the only swarm there is. The file is run; no store is opened.
    """
    found = the_swarm(target)
    if as_json:
        texts.print_json(_facts(found))
        return
    from rich.console import Console

    Console(soft_wrap=True, highlight=False, markup=False).print(_tree(found))


def _facts(swarm: Swarm) -> dict[str, Any]:
    return {
        "name": swarm.name,
        "app": swarm.app_name,
        "default": swarm.default,
        "agents": {name: _handoffs(swarm, name) for name in swarm.agents},
        "policies": [{"name": each.name, "about": _about(each)} for each in swarm.policies],
        "rescue": swarm.rescue.name,
        "limits": texts.fields(swarm.limits),
    }


def _tree(swarm: Swarm) -> Tree:
    from rich.tree import Tree

    app = "" if swarm.app_name == swarm.name else f" (app {swarm.app_name})"
    tree = Tree(texts.plain(f"swarm {swarm.name}{app}"))
    agents = tree.add("agents")
    for name, agent in swarm.agents.items():
        default = " (default)" if name == swarm.default else ""
        about = f": {agent.description}" if agent.description else ""
        branch = agents.add(texts.short(f"{name}{default}{about}"))
        for target in _handoffs(swarm, name):
            branch.add(texts.plain(f"-> {target}"))
    policies = tree.add("policies, in this order" if swarm.policies else "no policies")
    for policy in swarm.policies:
        policies.add(texts.short(f"{policy.name}: {_about(policy)}"))
    for line in _limits(swarm):
        tree.add(line)
    return tree


def _handoffs(swarm: Swarm, name: str) -> list[str]:
    handoffs = swarm.agents[name].handoffs
    return [each if isinstance(each, str) else str(each.name) for each in handoffs]


def _about(policy: Policy) -> str:
    looks = {"input": policy.checks_input, "output": policy.checks_output}
    told = [" and ".join(name for name, does in looks.items() if does) or "looks at nothing"]
    if policy.auto_ban:
        length = policy.ban_for
        span = length if isinstance(length, timedelta | None) else timedelta(seconds=length)
        told.append("bans for ever" if span is None else f"bans for {span}")
    if policy.chunk_window is not None:
        told.append(f"streams, {policy.chunk_window} characters behind")
    return ", ".join(told)


def _limits(swarm: Swarm) -> Iterator[str]:
    yield f"rescue: {swarm.rescue.name}"
    for name, value in msgspec.structs.asdict(swarm.limits).items():
        if value is not None:
            unit = " s" if name.endswith("_timeout") else ""
            yield f"{name}: {value:g}{unit}"
