"""Work that takes long, on a thread of its own, so that it does not hold up an event loop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from tertulia.doors import Outcome

T = TypeVar("T")


async def aside(work: Callable[[], T]) -> T:
    """What `work` gives; at the end of the process, where no thread starts, done right here."""
    outcome: Outcome[T] = Outcome()

    def target() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_error(error)

    try:
        threading.Thread(target=target, name="tertulia-search", daemon=True).start()
    except RuntimeError:
        target()
    return await outcome
