"""Pacing: messages that come in quick succession, and clients that ask too often."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from tertulia.doors import Outcome
from tertulia.errors import InvalidInput, RateLimited
from tertulia.messages import Message
from tertulia.policies import Verdict
from tertulia.swarm.answer import Answer

if TYPE_CHECKING:
    from tertulia.swarm.connecting import Send
    from tertulia.swarm.desk import Desk

MOST = 100
"""Messages that wait to be executed together; another one has them executed at once."""
MAX_DELAY = 86_400.0
Waiting = tuple[Message, Verdict, "Send | None"]
"""What waits to be executed: it was admitted, and its answer may go to a connector."""


class Paced:
    """A way to execute for one client; all that ask for the same delay share it."""

    def __init__(self, desk: Desk, delay: float) -> None:
        self.delay = _checked(delay)
        self.desk = desk

    @property
    def waiting(self) -> bool:
        """Whether messages wait to be executed."""
        return False

    def close(self) -> None:
        """The client is gone."""


class Rated(Paced):
    """Executes at most once in `delay` seconds; another call raises RateLimited."""

    def __init__(self, desk: Desk, delay: float) -> None:
        super().__init__(desk, delay)
        self._last: float | None = None

    async def __call__(self, message: Any, **options: Any) -> Answer:
        """Execute a message. Raises RateLimited, and what `execute` raises."""
        now = self.desk.host.clock.monotonic()
        if self._last is not None and now - self._last < self.delay:
            left = self.delay - (now - self._last)
            raise RateLimited(
                f"client {self.desk.client_id!r} may ask again in {left:.3g} seconds",
                retry_after=left,
                session_id=self.desk.session.id,
            )
        before, self._last = self._last, now
        try:
            return await self.desk.client.execute(message, **options)
        except InvalidInput:
            if self._last == now:
                self._last = before  # nothing was executed
            raise

    execute = __call__

    def through(self, send: Send) -> Callable[..., Awaitable[Answer]]:
        """The same, with the answers handed to a connector."""

        async def rated(message: Any, **options: Any) -> Answer:
            return await send.hand(await self(message, **options))

        return rated


class Scheduled(Paced):
    """Executes what came within `delay` seconds of each other once."""

    def __init__(self, desk: Desk, delay: float) -> None:
        super().__init__(desk, delay)
        self._waiting: list[Waiting] = []
        self._outcome: Outcome[Answer] = Outcome()
        self._timer: asyncio.TimerHandle | None = None

    async def __call__(self, message: str) -> Answer:
        """The answer of the last message that comes before the silence; raises as `execute`.

        A message that a policy refuses is answered with the ban message at once.
        """
        return await self._enter(message, None)

    execute = __call__

    @property
    def waiting(self) -> bool:
        """Whether messages wait to be executed."""
        return bool(self._waiting)

    def through(self, send: Send) -> Callable[..., Awaitable[Answer]]:
        """The same, with the answer handed to a connector, once."""

        async def scheduled(message: str) -> Answer:
            return await self._enter(message, send)

        return scheduled

    def close(self) -> None:
        """Whoever waits gets an answer of the kind ``cancelled``."""
        if self._timer is not None:
            self._timer.cancel()
        self._waiting = []
        self._outcome.set_result(Answer(kind="cancelled"))

    async def _enter(self, message: Any, send: Send | None) -> Answer:
        if not isinstance(message, str) or not message.strip():
            raise InvalidInput(f"a scheduled message is text that is not empty, not {message!r}")
        request = Message.user(message, metadata={"mode": "user"})
        verdict = await self.desk.admit(request)
        if isinstance(verdict, Answer):
            return verdict if send is None else await send.hand(verdict)
        self.desk.life.check()
        self._waiting.append((request, verdict, send))
        outcome = self._outcome
        if self._timer is not None:
            self._timer.cancel()
        if len(self._waiting) >= MOST:
            self._due()
        else:
            self._timer = asyncio.get_running_loop().call_later(self.delay, self._due)
        return await outcome

    def _due(self) -> None:
        """It was silent for long enough."""
        waiting, self._waiting = self._waiting, []
        outcome, self._outcome = self._outcome, Outcome()
        self._timer = None
        if waiting:
            self.desk.start(self._run(waiting, outcome))

    async def _run(self, waiting: list[Waiting], outcome: Outcome[Answer]) -> None:
        *earlier, (last, verdict, _) = waiting
        sends = {send: None for *_, send in waiting if send is not None}
        try:
            for request, _, _ in earlier:
                await self.desk.client.commit_user_message(request.text)
            answer = await self.desk.run(self.desk.plan(last, verdict, {}))
            for send in sends:
                await send.hand(answer)
        except BaseException as error:
            outcome.set_error(error)
            if not isinstance(error, Exception):
                raise
        else:
            outcome.set_result(answer)


def _checked(delay: Any) -> float:
    """Seconds between two executions. Raises InvalidInput."""
    number = isinstance(delay, int | float) and not isinstance(delay, bool)
    if not number or not math.isfinite(delay) or not 0 < delay <= MAX_DELAY:
        raise InvalidInput(f"delay is {delay!r}; it is seconds, more than 0, at most a day")
    return float(delay)
