"""Asking the policies of a swarm about a text: the first one that refuses decides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from inspect import isawaitable, ismethod, signature
from types import CoroutineType
from typing import Any, Final, NamedTuple, cast

from msgspec import structs

from tertulia.doors import current_loop, protected
from tertulia.errors import PolicyError
from tertulia.policies import (
    BAN_MESSAGE,
    EVERYTHING,
    MAX_REASON,
    Ban,
    Direction,
    Judgement,
    Policy,
    PolicyContext,
    Refusal,
    Verdict,
    ban_of,
    until_of,
)
from tertulia.swarm.bans import Bans
from tertulia.swarm.stepping import Waiting, begun, within
from tertulia.values import storable

ContextOf = Callable[[Policy], PolicyContext]
"""What a policy is told besides the text."""
Told = Callable[[Verdict, str], Awaitable[None]]
"""Gets a verdict that has set a ban, and the text that it is about."""


class _Step(NamedTuple):
    policy: Policy
    name: str
    validate: Callable[[str, PolicyContext], Any] | None


class Checker:
    """Asks the policies of a swarm, in their order. It keeps nothing between two checks.

    `policies` are as `check_policies` returns them, `swarm` is the swarm's name. `told` is called
    with a verdict that has set a ban, and its text. A validator that is not async runs on the
    event loop and must not block; one that is async may take so many `seconds`.
    """

    def __init__(
        self,
        policies: Sequence[Policy],
        bans: Bans,
        swarm: str,
        told: Told | None = None,
        seconds: float | None = None,
    ) -> None:
        self._bans = bans
        self._timeout = seconds
        self._told = told
        self._swarm = swarm
        self._steps: Final[dict[Direction, tuple[_Step, ...]]] = {
            "input": tuple(
                _Step(each, each.name, each.validate_input if each.checks_input else None)
                for each in policies
            ),
            "output": tuple(
                _Step(each, each.name, each.validate_output if each.checks_output else None)
                for each in policies
            ),
        }
        windows = [each.chunk_window for each in policies if each.checks_output]
        self.looks_at_output: Final = bool(windows)
        """Whether any policy has a `validate_output`."""
        known = [window for window in windows if window is not None]
        self.window: Final = max(known, default=0) if len(known) == len(windows) else None
        """The largest `chunk_window`; None where an answer must be whole to be checked."""

    async def check(
        self, direction: Direction, text: str, context_of: ContextOf, client_id: str, now: int
    ) -> Verdict:
        """The verdict on a text. A ban that stands at `now` refuses everything, both ways.

        Where a policy with `auto_ban` refuses, the ban is durable and told of when this returns,
        also where the caller is cancelled meanwhile. Raises PolicyError where a policy raises or
        gives no verdict (nothing may be let through then), and StoreError.
        """
        bans = await self._bans.read(client_id)
        steps = self._steps[direction]
        if bans and (ban := ban_of(bans, EVERYTHING, now)):
            first = steps[0].policy if steps else None
            return await self._banned(direction, ban, first, context_of)
        passed: list[str] = []
        for policy, name, validate in steps:
            if bans and (ban := ban_of(bans, name, now)):
                refused = await self._banned(direction, ban, policy, context_of)
                return structs.replace(refused, passed=tuple(passed))
            if validate is None:
                continue
            context = context_of(policy)
            judgement = self._judge(name, validate, text, context)
            if isinstance(judgement, Waiting):
                judgement = await self._judged(name, judgement)
            if not judgement:
                refused = await self._refused(policy, judgement, context)
                refused = structs.replace(refused, passed=tuple(passed))
                return await self._ban(policy, refused, text, client_id, now)
            passed.append(name)
        return Verdict(allowed=True, direction=direction, passed=tuple(passed))

    async def banned(
        self, direction: Direction, context_of: ContextOf, client_id: str, now: int
    ) -> Verdict | None:
        """The verdict of a ban that stands at `now`, without a look at any text; None without."""
        bans = await self._bans.read(client_id)
        steps = self._steps[direction]
        first = steps[0].policy if steps else None
        for name, policy in ((EVERYTHING, first), *((step.name, step.policy) for step in steps)):
            if bans and (ban := ban_of(bans, name, now)):
                return await self._banned(direction, ban, policy, context_of)
        return None

    def _judge(
        self,
        name: str,
        validate: Callable[[str, PolicyContext], Any],
        text: str,
        context: PolicyContext,
    ) -> Judgement | Waiting[Any]:
        """What a policy says, or that it has to wait. Most need not: then no time is measured."""
        said: Any
        try:
            said = validate(text, context)
            if isinstance(said, CoroutineType):
                said = begun(cast("CoroutineType[Any, Any, Any]", said))
            elif isawaitable(said):
                said = begun(_awaited(said))
        except PolicyError:
            raise
        except Exception as error:
            raise self._error(name, f"raised {type(error).__name__}") from error
        if isinstance(said, Waiting):
            return cast("Waiting[Any]", said)
        return self._checked(name, said)

    async def _judged(self, name: str, waiting: Waiting[Any]) -> Judgement:
        try:
            said = await waiting.within(self._limited(name))
        except PolicyError:
            raise
        except Exception as error:
            raise self._error(name, f"raised {type(error).__name__}") from error
        return self._checked(name, said)

    def _checked(self, name: str, said: Any) -> Judgement:
        if isinstance(said, bool | Refusal):
            return said
        what = type(said).__name__
        raise self._error(
            name, f"gave no verdict but a {what}; return True, False or self.refuse(why)"
        )

    async def _refused(
        self, policy: Policy, judgement: Judgement, context: PolicyContext
    ) -> Verdict:
        return Verdict(
            allowed=False,
            direction=context.direction,
            policy=policy.name,
            reason=storable(judgement.reason) if isinstance(judgement, Refusal) else "",
            message=await self._message(policy, context),
        )

    async def _ban(
        self, policy: Policy, verdict: Verdict, text: str, client_id: str, now: int
    ) -> Verdict:
        """The verdict of a policy, with the ban that it has set if it sets any.

        Once a ban may be in the store it is told of too, whatever becomes of the caller.
        """
        if not policy.auto_ban:
            return verdict
        until, reason = until_of(policy.ban_for, now), verdict.reason[:MAX_REASON]
        made = [verdict]

        async def ban() -> None:
            for each in await self._bans.ban(client_id, policy.name, until, reason):
                made.append(structs.replace(verdict, ban=each))
                if self._told is not None:
                    await self._told(made[-1], text)

        await protected(ban)
        return made[-1]

    async def _banned(
        self, direction: Direction, ban: Ban, policy: Policy | None, context_of: ContextOf
    ) -> Verdict:
        return Verdict(
            allowed=False,
            direction=direction,
            policy=ban.policy,
            reason=ban.reason,
            banned=True,
            message=await self._message(policy, context_of(policy)) if policy else BAN_MESSAGE,
        )

    async def _message(self, policy: Policy, context: PolicyContext) -> str:
        said: Any = policy.ban_message
        if not isinstance(said, str):
            try:
                said = _as_function(said)(context) if callable(said) else said
                if isawaitable(said):
                    said = await within(_awaited(said), lambda: self._limited(policy.name))
            except PolicyError:
                raise
            except Exception as error:
                what = f"raised {type(error).__name__} in ban_message"
                raise self._error(policy.name, what) from error
        if not isinstance(said, str | None):
            raise self._error(
                policy.name, f"has a {type(said).__name__} as ban_message; return text"
            )
        return storable(said) if said else BAN_MESSAGE

    @asynccontextmanager
    async def _limited(self, policy: str) -> AsyncGenerator[None]:
        if current_loop() is None:
            yield
            return
        limit = asyncio.timeout(self._timeout)
        try:
            async with limit:
                yield
        except TimeoutError as error:
            if not limit.expired():
                raise
            what = f"did not answer within {self._timeout or 0:g} seconds"
            raise self._error(policy, what) from error

    def _error(self, policy: str, what: str) -> PolicyError:
        """An error that quotes nothing: what was looked at may be what nobody should read."""
        return PolicyError(
            f"the policy {policy!r} of the swarm {self._swarm!r} {what}; nothing was let through",
            policy=policy,
        )


async def _awaited(given: Awaitable[Any]) -> Any:
    return await given


def _as_function(said: Callable[..., Any]) -> Callable[..., Any]:
    """A function of the context, also one that a class has as an attribute without a ``self``."""
    if ismethod(said) and not signature(said).parameters:
        return said.__func__
    return said


class Screen:
    """Lets an answer out while it comes, as far as the output policies have accepted it.

    Where every policy that looks at output has a `chunk_window`, all of the text so far is
    checked whenever at least the largest window of new characters came, and text leaves up to
    that window before its end. So, if a policy refuses every text with some word in it that is no
    longer than the window, no character of such a word and nothing behind it ever leaves. Else
    nothing leaves before `finish`. Without policies that look at output all text leaves at once.

    After a refusal nothing leaves any more: `refused` is the verdict, and the caller stops. A ban
    that is set meanwhile is seen at the next check. To be used by one task at a time.
    """

    def __init__(
        self, checker: Checker, context_of: ContextOf, client_id: str, now: Callable[[], int]
    ) -> None:
        self._checker = checker
        self._context_of = context_of
        self._client_id = client_id
        self._now = now
        self._text = ""
        self._fresh: list[str] = []
        self._new = 0
        self._left = 0
        self.refused: Verdict | None = None
        """The verdict that stopped the answer, if one did."""

    async def feed(self, delta: str) -> str:
        """Take some more of the answer; returns the text that may leave now, often none.

        Raises what `Checker.check` raises; what was held stays held then.
        """
        if self.refused is not None:
            return ""
        if not self._checker.looks_at_output:
            return delta
        self._fresh.append(delta)
        self._new += len(delta)
        window = self._checker.window
        if window is None or self._new < max(window, 1):
            return ""
        await self._check()
        return self._leave(len(self._text) - window)

    async def finish(self) -> tuple[str, Verdict]:
        """The rest of the text and the verdict on all of it; no text after a refusal.

        Raises what `Checker.check` raises.
        """
        if self.refused is not None:
            return "", self.refused
        verdict = await self._check()
        return self._leave(len(self._text)), verdict

    async def _check(self) -> Verdict:
        self._text += "".join(self._fresh)
        self._fresh.clear()
        self._new = 0
        verdict = await self._checker.check(
            "output", self._text, self._context_of, self._client_id, self._now()
        )
        if not verdict.allowed:
            self.refused = verdict
        return verdict

    def _leave(self, until: int) -> str:
        """What may leave now, up to a position in the text."""
        if self.refused is not None or until <= self._left:
            return ""
        leaving = self._text[self._left : until]
        self._left = until
        return leaving
