"""The sweeps of servers: what is due is done by one worker of a store, and goes on when it dies.

A sweep does what retention says is due (`ttl_days`, `idle_days`, `max_messages`, what was hidden
long ago), closes the turns that dead workers left open, and forgets old idempotency records.
Nothing else grows idle: a session has no other clock, and a client session or a live one belongs
to its process. Rows and seats of dead workers are the store's own to forget.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import random
from collections import Counter
from typing import Literal

import msgspec

from tertulia import housekeeping
from tertulia.admission import REQUEST_TTL
from tertulia.errors import AgentError, ConfigurationError, ForkedRuntimeError, StoreClosed
from tertulia.host import Host
from tertulia.sweeping.duty import Duty
from tertulia.sweeping.leftovers import Leftovers

DUTY = "sweep"
SECONDS = 60.0
"""From one sweep to the next."""
GRACE = 60.0
"""Seconds for which a turn that a dead worker left open can be resumed before it is closed."""
LOOK_SECONDS = 5.0
"""How often a worker without the duty looks whether it is free, at least."""
ROWS = 5_000
"""Sessions that one sweep looks at where nothing has to be done; the next one goes on there."""
CLOSING = 5.0
"""Seconds that a sweep has to end by itself when it is told to."""

log = logging.getLogger(__name__)


class Sweep(msgspec.Struct, frozen=True, kw_only=True):
    """What one sweep did."""

    time: int
    """When it ended, in microseconds."""
    seconds: float
    term: int
    """The how manieth time it is that the duty changed hands."""
    done: dict[str, int]
    """How often what was done: `delete`, `end`, `prune`, `summarize`, `erase`; `close` is the
    end of a turn that was left open, `forget` that of an idempotency record."""
    failed: int
    """What was due and could not be done."""
    whole: bool
    """False where the duty was lost before the end, or the rest is left to the next sweep."""


def configured() -> float | None:
    """``TERTULIA_SWEEP`` in seconds, else 60; None for never. Raises ConfigurationError."""
    return _seconds("TERTULIA_SWEEP", os.environ.get("TERTULIA_SWEEP") or SECONDS) or None


def configured_grace() -> float:
    """``TERTULIA_SWEEP_GRACE`` in seconds, else 60. Raises ConfigurationError."""
    return _seconds("TERTULIA_SWEEP_GRACE", os.environ.get("TERTULIA_SWEEP_GRACE") or GRACE)


class Sweeper:
    """Sweeps while it runs, where no other worker of the store does.

    `every` is in seconds, from one sweep to the next; None or 0 is never, and the default is what
    ``TERTULIA_SWEEP`` says. A turn that a dead worker left open can be resumed for `grace` seconds
    after its death was seen, and is then closed; None is what ``TERTULIA_SWEEP_GRACE`` says.
    Raises ConfigurationError.
    """

    def __init__(
        self,
        host: Host,
        *,
        every: float | Literal["configured"] | None = "configured",
        grace: float | None = None,
    ) -> None:
        self._host = host
        said = configured() if every == "configured" else _seconds("every", every or 0)
        self._every = said or None
        self._duty = Duty(host, DUTY)
        kept = configured_grace() if grace is None else _seconds("grace", grace)
        self._left = Leftovers(host, kept)
        self._after = 0
        self._next = 0.0
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.last: Sweep | None = None
        """What the newest sweep of this worker did."""

    @property
    def ended(self) -> bool:
        """Whether it does nothing any more, or yet."""
        return self._task is None or self._task.done()

    def start(self) -> None:
        """Begin, on the running loop; once more does nothing. After `close` make a new one."""
        if self._every is not None and self._task is None:
            self._duty.watch_lease()
            self._task = asyncio.get_running_loop().create_task(self._run(self._every))

    async def close(self) -> None:
        """End, and leave the duty to others; on the loop where it was started."""
        task, self._task = self._task, None
        if task is None:
            return
        self._stop.set()
        await asyncio.wait({task}, timeout=CLOSING)
        task.cancel()
        await asyncio.wait({task})
        try:
            async with asyncio.timeout(CLOSING):
                await self._duty.leave()
        except (StoreClosed, ForkedRuntimeError):
            return
        except Exception as error:
            log.warning(
                "the sweep was not given back: %s; it is free once this process ends", error
            )

    async def _run(self, every: float) -> None:
        failures = 0
        while not self._stop.is_set():
            try:
                pause = await self._look(every)
                failures = 0
            except (StoreClosed, ForkedRuntimeError):
                return
            except Exception as error:
                failures += 1
                pause = min(every, 2.0 ** min(failures, 16))
                known = isinstance(error, AgentError)
                text = "the sweep failed (%s); it goes on in about %.0f s"
                log.warning(text, error, pause, exc_info=None if known else error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), _jittered(pause))

    async def _look(self, every: float) -> float:
        """Sweep if it is up to us and due; the seconds until the next look."""
        had = await self._duty.mine()
        if not await self._duty.take():
            return min(every, LOOK_SECONDS)
        now = self._host.clock.monotonic()
        if not had or now >= self._next:
            swept = self.last = await self._sweep()
            again = 0.0 if swept.done and not swept.whole else _jittered(every)
            self._next = self._host.clock.monotonic() + again
        return max(0.0, self._next - self._host.clock.monotonic())

    async def _sweep(self) -> Sweep:
        clock = self._host.clock
        began = clock.monotonic()
        done: Counter[str] = Counter()
        whole = await self._tend(done)
        whole = await self._close_left(done) and whole
        if await self._goes_on():
            records = await self._host.store.drop_requests(clock.now() - REQUEST_TTL)
            done.update({"forget": records} if records else {})
        failed = done.pop("failed", 0)
        swept = Sweep(
            time=clock.now(),
            seconds=clock.monotonic() - began,
            term=self._duty.term,
            done=dict(done),
            failed=failed,
            whole=whole,
        )
        _tell(swept)
        return swept

    async def _goes_on(self) -> bool:
        return not self._stop.is_set() and await self._duty.mine()

    async def _tend(self, done: Counter[str]) -> bool:
        """Do what retention says is due; whether all was looked at."""
        store, now, seen = self._host.store, self._host.clock.now(), 0
        while seen < ROWS:
            if not await self._goes_on():
                return False
            page = await store.rows(after=self._after, limit=housekeeping.PAGE, due_before=now)
            for row in page:
                if not await self._goes_on():
                    return False
                await self._tend_one(row.key, now, done)
                self._after = row.key
            seen += len(page)
            if len(page) < housekeeping.PAGE:
                self._after = 0
                return True
        return False

    async def _tend_one(self, key: int, now: int, done: Counter[str]) -> None:
        """Do what is due on a session as it is now, unless a turn of it runs."""
        row = await self._host.store.row(key)
        if row is None or row.status == "deleted" or await self._left.is_held(row):
            return
        for one in await housekeeping.tend(self._host, row, now):
            if one.error is not None:
                log.warning("sweep: %s of session %r: %s", one.action, one.session_id, one.error)
                done["failed"] += 1
            elif one.done:
                done[one.action] += 1

    async def _close_left(self, done: Counter[str]) -> bool:
        """Close the turns that dead workers left open; whether all was looked at."""
        while await self._goes_on():
            ripe, more = await self._left.ripe(ROWS)
            for row in ripe:
                if not await self._goes_on():
                    return False
                if await housekeeping.close_left(self._host, row):
                    done["close"] += 1
            if not more or not ripe:
                return not more
        return False


def _tell(swept: Sweep) -> None:
    """One line for a sweep that did something."""
    if not swept.done and not swept.failed:
        return
    said = [f"{action} {count}" for action, count in sorted(swept.done.items())]
    said += [f"failed {swept.failed}"] if swept.failed else []
    log.info("sweep %d: %s (%.1f s)", swept.term, ", ".join(said), swept.seconds)


def _seconds(name: str, said: float | str) -> float:
    """Seconds, 0 or more. Raises ConfigurationError."""
    try:
        seconds = float(said)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ConfigurationError(f"{name} is {said!r}; it is a number of seconds, 0 or more")
    return seconds


def _jittered(seconds: float) -> float:
    """About so many: workers that were started at once shall not ask at once for ever."""
    return seconds * random.uniform(0.9, 1.1)  # noqa: S311 - no secret
