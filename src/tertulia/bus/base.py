"""What a bus carries and what it promises: events, topics, patterns. Nothing here waits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, cast

import msgspec

from tertulia.errors import InvalidInput
from tertulia.values import identifier, json_object

if TYPE_CHECKING:
    from tertulia.bus.handles import BusEvents, Once, Subscription

EVERYONE = "*"
"""In the place of a client's id: every client."""
SIZE = 1_000
"""How many events wait for one listener, unless told otherwise."""
DRAIN = 1.0
"""Seconds that `drain` waits at most, unless told otherwise."""

_SUFFIX = "-bus"
_WILD = "*?[]"

Listener = Callable[["BusEvent"], Any]
Filter = Callable[["BusEvent"], object]


class BusEvent(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One thing that happened to a client. All listeners get the same object: do not change it.

    `seq` is its position in the client's log, where it has one; `time` is in microseconds since
    1970-01-01 UTC.
    """

    type: str
    source: str
    input: dict[str, Any] = {}
    output: dict[str, Any] = {}
    context: dict[str, Any] = {}
    client_id: str
    seq: int | None = None
    time: int | None = None

    @property
    def topic(self) -> str:
        """What patterns are matched with: ``session.execute`` for the source ``session-bus``."""
        return f"{self.source.removesuffix(_SUFFIX)}.{self.type}"

    def to_dict(self) -> dict[str, Any]:
        """The event as a new mapping of JSON values."""
        return cast("dict[str, Any]", msgspec.to_builtins(self))

    @classmethod
    def parse(cls, value: BusEvent | Mapping[str, Any], client_id: str) -> BusEvent:
        """An event of this client from what a user wrote; its values are copies.

        `clientId` may stand for `client_id`, and both may be left out. Raises InvalidInput, also
        for an unknown key, for a value that is not JSON, and for the id of another client.
        """
        client = check_client(client_id)
        fields = _fields(value)
        named = fields.get("client_id", client)
        if named != client:
            raise InvalidInput(
                f"the event names the client {named!r} but was emitted to {client!r}; "
                "leave client_id out of the event, or emit it to that client"
            )
        return cls(
            type=_word(fields, "type", "execute"),
            source=_word(fields, "source", "session-bus"),
            input=json_object(fields.get("input", {}), "input"),
            output=json_object(fields.get("output", {}), "output"),
            context=json_object(fields.get("context", {}), "context"),
            client_id=client,
            seq=_number(fields, "seq"),
            time=_number(fields, "time"),
        )


def check_client(client_id: Any) -> str:
    """The id of one client. Raises InvalidInput, also for "*"."""
    if client_id == EVERYONE:
        raise InvalidInput("an event is of one client: give its id, not '*'")
    return identifier(client_id, "the client id")


def check_listened(client_id: Any) -> str:
    """The id of a client, or "*". Raises InvalidInput."""
    return EVERYONE if client_id == EVERYONE else identifier(client_id, "the client id")


def compiled(pattern: Any) -> Callable[[str], bool]:
    """A test for topics. Every ``*`` of the pattern stands for any text, dots too.

    Raises InvalidInput for a pattern that no topic can match.
    """
    named = identifier(pattern, "the pattern")
    if any(wild in named for wild in _WILD if wild != EVERYONE):
        raise InvalidInput(f"the pattern {named!r} has ?, [ or ] in it; only * is a wildcard")
    if EVERYONE not in named and "." not in named:
        raise InvalidInput(f"no topic is called {named!r}; write '{named}.*' or '*.{named}'")
    source, _, kind = named.rpartition(".")
    if source.endswith(_SUFFIX):
        short = f"{source.removesuffix(_SUFFIX)}.{kind}"
        raise InvalidInput(f"topics leave out '{_SUFFIX}': write {short!r} and not {named!r}")
    first, *rest = named.split(EVERYONE)
    if not rest:
        return named.__eq__
    return lambda topic: _fits(topic, first, rest)


def _fits(topic: str, first: str, rest: list[str]) -> bool:
    """Whether a topic begins with the first text, has the next ones in order, ends with the last.

    Each is found as early as it can be, so that no pattern takes long.
    """
    *between, last = rest
    if len(topic) < len(first) + len(last) or not topic.startswith(first):
        return False
    if not topic.endswith(last):
        return False
    at, end = len(first), len(topic) - len(last)
    for part in between:
        at = topic.find(part, at, end)
        if at < 0:
            return False
        at += len(part)
    return True


def _fields(value: Any) -> dict[str, Any]:
    """The fields of an event by their names. Raises InvalidInput."""
    if isinstance(value, BusEvent):
        return {name: getattr(value, name) for name in BusEvent.__struct_fields__}
    if not isinstance(value, Mapping):
        raise InvalidInput(
            f"emit takes a BusEvent or a mapping, not {type(value).__name__}; write "
            '{"type": "placed", "source": "order-bus", "input": {…}}'
        )
    fields = dict(cast("Mapping[Any, Any]", value))
    if "clientId" in fields:
        if fields.get("client_id", fields["clientId"]) != fields["clientId"]:
            raise InvalidInput("client_id and clientId differ; leave one of them out")
        fields["client_id"] = fields.pop("clientId")
    if unknown := [key for key in fields if key not in BusEvent.__struct_fields__]:
        raise InvalidInput(
            f"an event has no {unknown[0]!r}; put it into input, output or context "
            f"(it has {', '.join(BusEvent.__struct_fields__)})"
        )
    return fields


def _word(fields: dict[str, Any], name: str, such_as: str) -> str:
    """A type or a source: what topics are made of. Raises InvalidInput."""
    value = fields.get(name)
    if value is None:
        raise InvalidInput(f"the event has no {name}; give it one, such as {such_as!r}")
    word = identifier(value, f"the {name} of an event")
    if any(wild in word for wild in _WILD) or not word.removesuffix(_SUFFIX):
        raise InvalidInput(f"the {name} {word!r} cannot be listened to; name it like {such_as!r}")
    return word


def _number(fields: dict[str, Any], name: str) -> int | None:
    """A position or a time. Raises InvalidInput."""
    value = fields.get(name)
    if value is None or (type(value) is int and value >= 0):
        return value
    raise InvalidInput(f"{name} is {value!r}; it is a whole number that is not negative, or None")


class Bus(Protocol):
    """Carries the events of clients to those who listen. It may be used from any thread.

    Each listener gets its events in the order in which they were published, one at a time, and
    none holds up the publisher, or another listener.
    """

    @property
    def subscriptions(self) -> int:
        """How many subscriptions there are, those of `once` and `events` too."""
        ...

    def listen(
        self, client_id: str, pattern: str, fn: Listener, *, size: int = SIZE
    ) -> Subscription:
        """Call a function, sync or async, with each event of a client whose topic fits.

        `client_id` may be "*". At most `size` events wait; the oldest one is dropped for another.
        Raises InvalidInput; UsageError when the bus is closed.
        """
        ...

    def once(
        self,
        client_id: str,
        pattern: str,
        filter: Filter | None = None,  # noqa: A002
        fn: Listener | None = None,
    ) -> Once:
        """Wait for the first event for which the filter is true: ``await bus.once(…)``.

        Raises InvalidInput; UsageError when the bus is closed.
        """
        ...

    def events(
        self, client_id: str = EVERYONE, pattern: str = EVERYONE, *, size: int = SIZE
    ) -> BusEvents:
        """Events as they come, from now on: ``async for event in bus.events(…)``.

        Raises InvalidInput; UsageError when the bus is closed.
        """
        ...

    async def emit(self, client_id: str, event: BusEvent | Mapping[str, Any]) -> int:
        """Publish an event of one's own; the number of subscriptions that it went to.

        It gets the time of now if it has none. Lets listeners that keep up make room first.
        Raises InvalidInput; UsageError when the bus is closed.
        """
        ...

    def publish(self, *events: BusEvent) -> int:
        """Give events to their listeners; how many. Neither waits, nor checks, nor raises."""
        ...

    def wants(self, client_id: str, topic: str) -> bool:
        """Whether anybody listens: where nobody does, an event need not be made."""
        ...

    async def drain(
        self,
        timeout: float = DRAIN,  # noqa: ASYNC109 - after it, it returns
        *,
        client_id: str = EVERYONE,
    ) -> bool:
        """Wait, at most `timeout` seconds, until what was published before has been handled.

        Only by listeners of this client, if one is given. False if the time was not enough; who
        was waited for in vain is not waited for again until it goes on. Raises InvalidInput.
        """
        ...

    def close(self) -> None:
        """End all subscriptions; what waits in them is dropped. May be called twice."""
        ...

    async def aclose(self) -> None:
        """Close, and wait, for a second at most, until the listeners' tasks have ended."""
        ...
