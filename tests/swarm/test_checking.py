"""Asking policies about a text, whole or while it comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tertulia import Agent, Runtime, Swarm
from tertulia.clock import MICROSECONDS
from tertulia.errors import PolicyError
from tertulia.policies import (
    BAN_MESSAGE,
    Ban,
    Direction,
    Policy,
    PolicyContext,
    Refusal,
    Verdict,
    check_policies,
)
from tertulia.swarm.bans import Bans
from tertulia.swarm.checking import Checker, Screen
from tertulia.testing import FrozenClock, ScriptedModel


class Shop:
    """A swarm's policies on a store, as a client sees them."""

    def __init__(self, runtime: Runtime, policies: Iterable[Any]) -> None:
        self.runtime = runtime
        self.bans = Bans(runtime, "shop")
        self.told: list[tuple[Verdict, str]] = []
        self.checker = Checker(check_policies(policies), self.bans, "shop", self._tell)

    async def _tell(self, verdict: Verdict, text: str) -> None:
        self.told.append((verdict, text))

    async def says(self, text: str, client: str = "ann") -> Verdict:
        return await self._check("input", text, client)

    async def hears(self, text: str, client: str = "ann") -> Verdict:
        return await self._check("output", text, client)

    async def _check(self, direction: Direction, text: str, client: str) -> Verdict:
        now = self.runtime.clock.now()
        context = self.context_of(client, direction)
        return await self.checker.check(direction, text, context, client, now)

    def screen(self, client: str = "ann") -> Screen:
        context = self.context_of(client, "output")
        return Screen(self.checker, context, client, self.runtime.clock.now)

    def context_of(self, client: str, direction: Direction) -> Callable[[Policy], PolicyContext]:
        def context(policy: Policy) -> PolicyContext:
            return PolicyContext(
                client_id=client,
                swarm="shop",
                agent="triage",
                policy=policy.name,
                session=None,
                state={"client": client},
                direction=direction,
            )

        return context


Open = Callable[..., Shop]


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
async def shop(clock: FrozenClock) -> AsyncGenerator[Open]:
    async with Runtime("memory:", clock=clock) as runtime:
        yield lambda *policies: Shop(runtime, policies)


class No(Policy):
    """Refuses, both ways, every text with one of some words in it."""

    def __init__(self, *words: str, **options: Any) -> None:
        super().__init__(**options)
        self.words = words
        self.asked: list[str] = []

    async def validate_input(self, message: str, context: PolicyContext) -> bool | Refusal:
        self.asked.append(message)
        found = [word for word in self.words if word in message]
        return self.refuse(f"it says {found[0]}") if found else True

    validate_output = validate_input


class Yes(Policy):
    def validate_input(self, message: str, context: PolicyContext) -> bool:
        return True


class YesToAnswers(Policy):
    def validate_output(self, text: str, context: PolicyContext) -> bool:
        return True


# -- verdicts


async def test_without_policies_all_is_allowed(shop: Open) -> None:
    assert await shop().says("x") == Verdict(allowed=True, direction="input")


async def test_a_verdict_names_those_who_accepted_in_order(shop: Open) -> None:
    swarm = shop(Yes, YesToAnswers, No("x"), Yes(name="again"))
    assert (await swarm.says("a")).passed == ("Yes", "No", "again")
    assert (await swarm.hears("a")).passed == ("YesToAnswers", "No")


async def test_the_first_that_refuses_decides_and_the_others_are_not_asked(shop: Open) -> None:
    first = No("bad", name="first", ban_message="first says no")
    second = No("bad", name="second", ban_message="second says no")
    verdict = await shop(Yes, first, second).says("bad")
    assert verdict == Verdict(
        allowed=False,
        direction="input",
        policy="first",
        reason="it says bad",
        message="first says no",
        passed=("Yes",),
    )
    assert second.asked == []
    assert (await shop(second, first).says("bad")).message == "second says no"


async def test_false_refuses_without_a_reason(shop: Open) -> None:
    class Never(Policy):
        def validate_output(self, text: str, context: PolicyContext) -> bool:
            return False

    verdict = await shop(Never).hears("x")
    assert (verdict.allowed, verdict.policy, verdict.reason) == (False, "Never", "")
    assert verdict.message == BAN_MESSAGE


async def test_a_validator_is_told_about_whom_it_is_asked(shop: Open) -> None:
    seen: list[PolicyContext] = []

    class Curious(Policy):
        async def validate_output(self, text: str, context: PolicyContext) -> bool:
            seen.append(context)
            return True

    await shop(Curious(name="c")).hears("x", client="bob")
    [context] = seen
    assert (context.client_id, context.swarm, context.policy) == ("bob", "shop", "c")
    assert (context.direction, context.state) == ("output", {"client": "bob"})


class Meeting(Policy):
    """Refuses all, but only when two clients are being checked at the same time."""

    def __init__(self) -> None:
        self.both = asyncio.Barrier(2)

    async def validate_input(self, message: str, context: PolicyContext) -> bool:
        await self.both.wait()
        return False

    async def ban_message(self, context: PolicyContext) -> str:
        await self.both.wait()
        return f"no, {context.client_id}"


async def test_two_clients_at_once_each_hear_what_is_meant_for_them(shop: Open) -> None:
    swarm = shop(Meeting)
    said = await asyncio.gather(swarm.says("x", "ann"), swarm.says("y", "bob"))
    assert [verdict.message for verdict in said] == ["no, ann", "no, bob"]


# -- policies that fail


class Raising(Policy):
    def validate_input(self, message: str, context: PolicyContext) -> bool:
        raise KeyError("config")

    async def validate_output(self, text: str, context: PolicyContext) -> bool:
        raise ValueError("broken")


async def test_a_validator_that_raises_lets_nothing_through(shop: Open) -> None:
    swarm = shop(Raising(auto_ban=True), No("x"))
    with pytest.raises(PolicyError, match="'Raising' of the swarm 'shop' raised KeyError") as found:
        await swarm.says("a")
    assert found.value.policy == "Raising"
    assert isinstance(found.value.__cause__, KeyError)
    with pytest.raises(PolicyError, match="raised ValueError; nothing was let through"):
        await swarm.hears("a")
    assert await swarm.bans.read("ann") == ()


@pytest.mark.parametrize("said", [None, 1, 0, "", "yes", (True,), Refusal])
@pytest.mark.parametrize("is_async", [True, False])
async def test_what_is_no_verdict_lets_nothing_through(
    shop: Open, said: Any, is_async: bool
) -> None:
    class Vague(Policy):
        def validate_input(self, message: str, context: PolicyContext) -> Any:
            return self.later() if is_async else said

        async def later(self) -> Any:
            return said

    with pytest.raises(PolicyError, match=r"gave no verdict but .*return True, False or") as found:
        await shop(Vague).says("a")
    assert found.value.policy == "Vague"


class Telling(Policy):
    """Gives what it looks at in place of a verdict, or raises with it."""

    def validate_input(self, message: str, context: PolicyContext) -> Any:
        return message

    def validate_output(self, text: str, context: PolicyContext) -> bool:
        raise ValueError(f"cannot handle {text}")


class TellingWhenItRefuses(No):
    raises = True

    def ban_message(self, context: PolicyContext) -> Any:
        if self.raises:
            raise ValueError("the SECRET")
        return ["the SECRET"]


class TellingAList(TellingWhenItRefuses):
    raises = False


@pytest.mark.parametrize("policy", [Telling(), TellingWhenItRefuses("x"), TellingAList("x")])
async def test_the_error_of_a_policy_quotes_nothing(shop: Open, policy: Policy) -> None:
    swarm = shop(policy)
    for check in (swarm.says, swarm.hears):
        with pytest.raises(PolicyError) as found:
            await check("x: the SECRET")
        assert "SECRET" not in str(found.value)


async def test_a_cancelled_check_is_cancelled(shop: Open) -> None:
    begun = asyncio.Event()

    class Slow(Policy):
        auto_ban = True

        async def validate_input(self, message: str, context: PolicyContext) -> bool:
            begun.set()
            await asyncio.Event().wait()
            return False

    swarm = shop(Slow)
    task = asyncio.create_task(swarm.says("a"))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await swarm.bans.read("ann") == ()


# -- ban messages


class Method(No):
    def ban_message(self, context: PolicyContext) -> str:
        return f"{context.policy}: no, {context.client_id}"


class AsyncMethod(No):
    async def ban_message(self, context: PolicyContext) -> str:
        return f"later: no, {context.client_id}"


def name_them(context: PolicyContext) -> str:
    return f"function: no, {context.client_id}"


def none(context: PolicyContext) -> None:
    return None


def empty(context: PolicyContext) -> str:
    return ""


class FunctionOfTheClass(No):
    ban_message = name_them


async def later(context: PolicyContext) -> str | None:
    return f"{context.agent} says no" if context.client_id == "ann" else None


@pytest.mark.parametrize(
    ("policy", "heard"),
    [
        (No("x", ban_message="no"), "no"),
        (No("x", ban_message=""), BAN_MESSAGE),
        (No("x", ban_message=name_them), "function: no, ann"),
        (No("x", ban_message=none), BAN_MESSAGE),
        (No("x", ban_message=empty), BAN_MESSAGE),
        (No("x", ban_message=later), "triage says no"),
        (Method("x"), "Method: no, ann"),
        (AsyncMethod("x"), "later: no, ann"),
        (FunctionOfTheClass("x"), "function: no, ann"),
    ],
)
async def test_a_ban_message_is_text_or_a_function_or_a_method(
    shop: Open, policy: Policy, heard: str
) -> None:
    assert (await shop(policy).says("x")).message == heard


async def test_a_class_may_set_no_ban_message(shop: Open) -> None:
    class Silent(No):
        ban_message: Any = None

    assert (await shop(Silent("x")).says("x")).message == BAN_MESSAGE


def number(context: PolicyContext) -> int:
    return 3


def broken(context: PolicyContext) -> str:
    raise RuntimeError("no words")


@pytest.mark.parametrize("message", [broken, number])
async def test_a_ban_message_that_fails_is_an_error_and_sets_no_ban_that_nobody_is_told_of(
    shop: Open, message: Any
) -> None:
    swarm = shop(No("x", ban_message=message, auto_ban=True))
    with pytest.raises(PolicyError, match="ban_message"):
        await swarm.says("x")
    assert await swarm.bans.read("ann") == ()
    assert swarm.told == []


# -- bans


async def test_a_ban_refuses_both_ways_and_nobody_is_asked(shop: Open) -> None:
    policy = No("x", ban_message="no")
    swarm = shop(Yes, policy)
    await swarm.bans.ban("ann", "No", None, "she was rude")
    for verdict in (await swarm.says("hello"), await swarm.hears("hello")):
        assert (verdict.allowed, verdict.banned, verdict.policy) == (False, True, "No")
        assert (verdict.reason, verdict.message) == ("she was rude", "no")
    assert policy.asked == []
    assert (await swarm.says("hello", "bob")).allowed


async def test_a_policy_before_the_one_with_the_ban_goes_first(shop: Open) -> None:
    swarm = shop(No("x", name="first"), No("y", name="second"))
    await swarm.bans.ban("ann", "second")
    assert (await swarm.says("x")).policy == "first"
    verdict = await swarm.says("a")
    assert (verdict.policy, verdict.banned, verdict.passed) == ("second", True, ("first",))


async def test_a_ban_for_a_policy_that_only_looks_at_input_refuses_output_too(shop: Open) -> None:
    swarm = shop(Yes)
    await swarm.bans.ban("ann", "Yes")
    assert not (await swarm.hears("hello")).allowed


async def test_a_ban_from_the_whole_swarm_needs_no_policy(shop: Open) -> None:
    await shop().bans.ban("ann", "*", None, "why")
    verdict = await shop().says("hello")
    assert (verdict.allowed, verdict.policy, verdict.banned) == (False, "*", True)
    assert (verdict.message, verdict.reason) == (BAN_MESSAGE, "why")
    asked = No("x", ban_message="no")
    verdict = await shop(asked, Yes).hears("hello")
    assert (verdict.policy, verdict.message, asked.asked) == ("*", "no", [])


async def test_a_ban_for_a_policy_that_the_swarm_does_not_have_refuses_nothing(shop: Open) -> None:
    swarm = shop(Yes)
    await swarm.bans.ban("ann", "former")
    assert (await swarm.says("hello")).allowed


async def test_a_ban_ends_to_the_microsecond(shop: Open, clock: FrozenClock) -> None:
    swarm = shop(No("x", auto_ban=True, ban_for=timedelta(seconds=10)))
    now = clock.now()
    verdict = await swarm.says("x")
    assert verdict.ban == Ban("No", now, now + 10 * MICROSECONDS, "it says x")
    clock.advance(9.999999)
    assert (await swarm.says("hello")).banned
    clock.advance(0.000001)
    assert (await swarm.says("hello")).allowed


async def test_an_auto_ban_is_durable_when_the_verdict_is_there(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path / 'x.db'}"
    async with Runtime(address) as runtime, Runtime(address) as other:
        verdict = await Shop(runtime, [No("x", auto_ban=True)]).hears("x")
        assert (verdict.banned, verdict.policy) == (False, "No")
        assert verdict.ban is not None
        assert (verdict.ban.policy, verdict.ban.until) == ("No", None)
        assert await Bans(other, "shop").read("ann") == (verdict.ban,)
    async with Runtime(address) as runtime:
        assert (await Shop(runtime, [No("x")]).says("hello")).banned


class Cancelling(No):
    """Cancels whoever asks it, at the moment at which the ban is about to be set."""

    def ban_message(self, context: PolicyContext) -> str:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return "no"


async def test_a_ban_that_is_set_is_told_of_also_where_the_caller_is_cancelled(shop: Open) -> None:
    swarm = shop(Yes, Cancelling("x", auto_ban=True))
    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(swarm.says("x"))
    async with asyncio.timeout(10):
        while not swarm.told:
            await asyncio.sleep(0)
    [(verdict, text)] = swarm.told
    assert (verdict.passed, verdict.message, text) == (("Yes",), "no", "x")
    assert await swarm.bans.read("ann") == (verdict.ban,)


@pytest.mark.parametrize(
    ("said", "checked"),
    [("x", ["validate-input"]), ("a", ["validate-input", "validate-output"])],
)
async def test_a_ban_is_in_the_log_and_on_the_bus_also_where_the_caller_is_cancelled(
    said: str, checked: list[str]
) -> None:
    desk = Agent("desk", model=ScriptedModel("an x"))
    swarm = Swarm("shop", [desk], policies=[Cancelling("x", auto_ban=True)])
    heard: list[str] = []
    async with Runtime("memory:", swarms=[swarm]) as runtime:
        runtime.bus.listen("ann", "policy.*", lambda event: heard.append(event.type))
        client = await runtime.client_session("ann", "shop")
        with suppress(asyncio.CancelledError):
            await asyncio.create_task(client.execute(said))
        async with asyncio.timeout(10):
            while "ban-client" not in heard:
                await asyncio.sleep(0)
        assert heard == [*checked, "ban-client"]
        told = await client.session.events(types=["policy.checked", "policy.banned"])
        assert [event.type for event in told][-2:] == ["policy.checked", "policy.banned"]
        assert [ban.policy for ban in await swarm.bans("ann")] == ["Cancelling"]


async def test_only_an_auto_ban_bans_and_a_ban_bans_no_further(shop: Open) -> None:
    swarm = shop(No("x", name="mild"), No("y", name="strict", auto_ban=True, ban_for=10))
    assert (await swarm.says("x")).ban is None
    assert await swarm.bans.read("ann") == ()
    assert (await swarm.says("y")).ban is not None
    before = await swarm.bans.read("ann")
    verdict = await swarm.says("y")
    assert (verdict.banned, verdict.ban) == (True, None)
    assert await swarm.bans.read("ann") == before


async def test_a_long_reason_is_cut_for_the_ban_only(shop: Open) -> None:
    class Wordy(Policy):
        auto_ban = True

        def validate_input(self, message: str, context: PolicyContext) -> Refusal:
            return self.refuse("x" * 5_000)

    verdict = await shop(Wordy).says("a")
    assert verdict.ban is not None
    assert (len(verdict.reason), len(verdict.ban.reason)) == (5_000, 1_000)


# -- answers that come in parts


async def fed(screen: Screen, deltas: Iterable[str]) -> list[str]:
    return [await screen.feed(delta) for delta in deltas]


async def test_without_output_policies_all_leaves_at_once(shop: Open) -> None:
    screen = shop(Yes).screen()
    assert await fed(screen, ["ab", "c"]) == ["ab", "c"]
    rest, verdict = await screen.finish()
    assert (rest, verdict.allowed, screen.refused) == ("", True, None)


async def test_a_policy_without_a_window_holds_the_answer_until_it_is_whole(shop: Open) -> None:
    policy = No("bad")
    screen = shop(policy, No("worse", name="other", chunk_window=2)).screen()
    assert await fed(screen, ["ab", "c" * 1_000]) == ["", ""]
    assert policy.asked == []
    assert (await screen.finish())[0] == "ab" + "c" * 1_000
    assert policy.asked == ["ab" + "c" * 1_000]


async def test_text_leaves_the_largest_window_behind_what_was_accepted(shop: Open) -> None:
    policy = No("bad", chunk_window=4)
    screen = shop(policy, No("x", name="other", chunk_window=2), Yes).screen()
    assert await fed(screen, ["abc", "d", "efg", "h", "ijklmno"]) == ["", "", "", "abcd", "efghijk"]
    rest, verdict = await screen.finish()
    assert (rest, verdict.passed) == ("lmno", ("No", "other"))
    assert policy.asked == ["abcd", "abcdefgh", "abcdefghijklmno", "abcdefghijklmno"]


async def test_after_a_refusal_nothing_leaves_any_more(shop: Open) -> None:
    policy = No("bad", chunk_window=3, ban_message="no", auto_ban=True)
    swarm = shop(policy)
    screen = swarm.screen()
    assert await fed(screen, ["good and ", "ba"]) == ["good a", ""]
    assert screen.refused is None
    assert await fed(screen, ["d and more", "and good again, for a long time"]) == ["", ""]
    assert screen.refused is not None
    assert (screen.refused.message, screen.refused.allowed) == ("no", False)
    assert screen.refused.ban is not None
    asked = len(policy.asked)
    assert await screen.finish() == ("", screen.refused)
    assert len(policy.asked) == asked


async def test_a_refusal_at_the_end_keeps_the_rest(shop: Open) -> None:
    screen = shop(No("bad", chunk_window=100)).screen()
    assert await fed(screen, ["a bad word"]) == [""]
    rest, verdict = await screen.finish()
    assert (rest, verdict.allowed, screen.refused) == ("", False, verdict)


async def test_a_ban_that_lands_while_an_answer_comes_stops_it(shop: Open) -> None:
    swarm = shop(No("bad", chunk_window=2))
    screen = swarm.screen()
    assert await screen.feed("hello ") == "hell"
    await swarm.bans.ban("ann", "No")
    assert await screen.feed("world") == ""
    assert screen.refused is not None
    assert screen.refused.banned


async def test_a_policy_that_raises_keeps_what_was_held(shop: Open) -> None:
    class Moody(Policy):
        chunk_window = 1
        good = True

        def validate_output(self, text: str, context: PolicyContext) -> bool:
            if not self.good:
                raise ValueError("not now")
            return True

    policy = Moody()
    screen = shop(policy).screen()
    assert await screen.feed("abc") == "ab"
    policy.good = False
    with pytest.raises(PolicyError):
        await screen.feed("def")
    with pytest.raises(PolicyError):
        await screen.finish()
    policy.good = True
    assert (await screen.finish())[0] == "cdef"


words = st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3)
pieces = st.lists(st.text("abc", max_size=6), max_size=12)


@settings(max_examples=300)
@given(words, pieces, st.integers(0, 3))
def test_no_part_of_a_forbidden_word_leaves_however_the_text_is_cut(
    forbidden: list[str], deltas: list[str], extra: int
) -> None:
    """What leaves is a prefix of the text that ends where a forbidden word begins, or before.

    It is the whole text if there is no such word, and never held back by more than two windows
    while no such word came.
    """
    window = max(map(len, forbidden)) + extra
    text = "".join(deltas)
    begins = [text.find(word) for word in forbidden if word in text]

    async def run() -> tuple[list[str], str, Verdict]:
        async with Runtime("memory:") as runtime:
            screen = Shop(runtime, [No(*forbidden, chunk_window=window)]).screen()
            left: list[str] = []
            came = ""
            for delta in deltas:
                left.append(await screen.feed(delta))
                came += delta
                if not begins:
                    assert len("".join(left)) > len(came) - 2 * window
            rest, verdict = await screen.finish()
            return left, rest, verdict

    left, rest, verdict = asyncio.run(run())
    out = "".join(left) + rest
    assert verdict.allowed == (not begins)
    if begins:
        assert rest == ""
        assert text.startswith(out)
        assert len(out) <= min(begins)
    else:
        assert out == text
