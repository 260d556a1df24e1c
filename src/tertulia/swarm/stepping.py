"""Coroutines that mostly need not wait: what a wait needs is set up only where one comes."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager
from types import coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Waiting(Generic[T]):
    """A coroutine that was begun, and waits for something."""

    __slots__ = ("_waits_for", "_work")

    def __init__(self, work: Coroutine[Any, Any, T], waits_for: Any) -> None:
        self._work = work
        self._waits_for = waits_for

    async def within(self, limit: AbstractAsyncContextManager[Any]) -> T:
        """Go on with it inside of `limit`."""
        try:
            async with limit:
                return await _rest(self._work, self._waits_for)
        finally:
            self._work.close()  # where the limit let nobody in; else it has ended


def begun(work: Coroutine[Any, Any, T]) -> T | Waiting[T]:
    """What a coroutine gives, or where it waits for the first time. Raises what it raises."""
    try:
        return Waiting(work, work.send(None))
    except StopIteration as done:
        return done.value


async def within(
    work: Coroutine[Any, Any, T], limit: Callable[[], AbstractAsyncContextManager[Any]]
) -> T:
    """What a coroutine gives; from its first wait on it runs inside of `limit`."""
    try:
        waits_for = work.send(None)
    except StopIteration as done:
        return done.value
    return await Waiting(work, waits_for).within(limit())


@coroutine
def _rest(work: Coroutine[Any, Any, T], waits_for: Any) -> Generator[Any, Any, T]:
    """Go on with a coroutine that waits, as `await` would."""
    stopped: BaseException | None
    while True:
        sent, stopped = None, None
        try:
            sent = yield waits_for
        except BaseException as error:
            stopped = error
        try:
            waits_for = work.send(sent) if stopped is None else work.throw(stopped)
        except StopIteration as done:
            return done.value
