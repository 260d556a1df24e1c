"""`tertulia bans`, `ban` and `unban`."""

from __future__ import annotations

import asyncio

import pytest
from tests.cli.program import Program

from tertulia import Agent, Policy, Runtime, Swarm

AGENTS = [Agent("desk", model="offline")]


class Polite(Policy):
    """Accepts what is said calmly."""

    def validate_input(self, message: str, context: object, /) -> bool:
        """Whether somebody does not shout."""
        return not message.isupper()


async def _execute(url: str, said: str) -> str:
    shop = Swarm("shop", AGENTS, policies=[Polite(auto_ban=True)])
    async with (
        Runtime(url, swarms=[shop]) as runtime,
        runtime.client_session("ann", "shop") as client,
    ):
        return (await client.execute(said)).kind


def execute(program: Program, said: str) -> str:
    """What kind of answer the client ann gets, as the program of the swarm would give it."""
    return asyncio.run(_execute(program.url, said))


@pytest.fixture
def shop(empty: Program) -> Program:
    """A store in which ann has talked with the swarm shop."""
    assert execute(empty, "My name is Ann") == "answer"
    return empty


def test_a_ban_that_a_policy_has_set_is_listed_and_lifted(shop: Program) -> None:
    assert execute(shop, "HELLO") == "ban"
    [ban] = shop.json("bans", "ann")
    assert (ban["swarm"], ban["policy"], ban["until"]) == ("shop", "Polite", None)
    assert "Polite" in shop.ok("unban", "ann", "--swarm", "shop", "--policy", "Polite")
    assert shop.json("bans", "ann") == []
    assert execute(shop, "Hello") == "answer"


def test_a_ban_from_outside_holds_and_is_in_the_log(shop: Program) -> None:
    shop.ok("ban", "ann", "--swarm", "shop", "--until", "3600", "--reason", "a pause")
    assert execute(shop, "Hello") == "ban"
    [ban] = shop.json("bans", "ann", "--swarm", "shop")
    assert (ban["policy"], ban["reason"]) == ("*", "a pause")
    told = shop.ok("tail", "ann", "--type", "policy.banned")
    assert "a pause" in told


def test_a_ban_of_somebody_who_never_came_makes_no_session(shop: Program) -> None:
    shop.ok("ban", "bob", "--swarm", "shop", "--policy", "Polite", "--until", "2999-01-01")
    [ban] = shop.json("bans", "bob")
    assert ban["until"] == "2999-01-01 00:00:00Z"
    assert [info["id"] for info in shop.json("sessions")] == ["ann"]


def test_the_bans_of_other_swarms_are_left_alone(shop: Program) -> None:
    shop.ok("ban", "ann", "--swarm", "shop")
    shop.ok("ban", "ann", "--swarm", "bank")
    shop.ok("unban", "ann", "--swarm", "shop")
    assert [ban["swarm"] for ban in shop.json("bans", "ann")] == ["bank"]
    assert shop.json("bans", "ann", "--swarm", "shop") == []


def test_what_changes_nothing_says_so(shop: Program) -> None:
    assert "no ban stands" in shop("bans", "ann").stderr
    assert "no ban to lift" in shop("unban", "ann", "--swarm", "shop").stderr
    shop.ok("ban", "ann", "--swarm", "shop")
    assert "as long already" in shop("ban", "ann", "--swarm", "shop", "--until", "60").stderr


def test_a_ban_because_of_a_policy_says_that_its_name_is_taken_as_said(shop: Program) -> None:
    said = shop("ban", "ann", "--swarm", "shop", "--policy", "Nope")
    assert "'Nope' was taken as said" in said.stderr
    assert execute(shop, "Hello") == "answer"
    assert "taken as said" not in shop("ban", "ann", "--swarm", "shop").stderr


def test_a_moment_that_is_none_or_is_over_is_refused(shop: Program) -> None:
    assert "'soon' is no date" in shop.refused("ban", "ann", "--swarm", "shop", "--until", "soon")
    over = shop.refused("ban", "ann", "--swarm", "shop", "--until", "2001-01-01")
    assert "is not after now" in over
    assert shop.json("bans", "ann") == []
