"""How often and how fast a client tries to come back."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from tertulia.errors import InvalidInput


class Reconnect(msgspec.Struct, frozen=True, kw_only=True):
    """Try at most `attempts` times and for at most `within` seconds.

    Before each try the client waits for a random time, at most `first` seconds, then twice as
    long each time, up to `most`. Both bounds begin anew when something new came from the server.
    Raises InvalidInput for what is not positive.
    """

    attempts: int = 20
    within: float = 60.0
    first: float = 0.1
    most: float = 5.0

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if not getattr(self, name) > 0:
                raise InvalidInput(f"Reconnect.{name} is {getattr(self, name)}; it is more than 0")

    def delay(self, attempt: int, random: Callable[[], float]) -> float:
        """Seconds to wait before a try, of which `attempt` is the number, from 1."""
        longest = min(self.most, self.first * 2.0 ** min(attempt - 1, 32))
        return longest * random()
