"""Entities: keyed, durable state with one writer at a time.

    class Counter(Entity):
        async def add(self, amount: int = 1) -> int:
            self.state["count"] = self.state.get("count", 0) + amount
            return self.state["count"]

        @query
        async def value(self) -> int:
            return self.state.get("count", 0)

    await Counter(key="visits").add()

Every public ``async def`` of a subclass is a call: it waits for its place, reads the state, runs,
and saves what it changed, all of it or, when it raises, nothing. Objects of the same class name
and key are the same entity. A method may call others: one of the same entity joins the call that
is running, also by way of another entity.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from functools import wraps
from inspect import getattr_static, iscoroutinefunction
from typing import Any, ClassVar, Final, TypeVar

from tertulia import scopes
from tertulia.entity import calls
from tertulia.entity.calls import Identity
from tertulia.errors import UsageError
from tertulia.host import Host
from tertulia.values import identifier, json_value

_QUERY: Final = "__tertulia_query__"
_CALL: Final = "__tertulia_call__"
_ABSENT: Final = object()

F = TypeVar("F", bound=Callable[..., Any])


def query(function: F) -> F:
    """Mark a method of an entity as one that only reads: such calls run at the same time.

    Raises UsageError where it is no ``async def``.
    """
    if not iscoroutinefunction(function):
        raise UsageError(f"@query is for async methods; write: async def {function.__name__}")
    setattr(function, _QUERY, True)
    return function


class Entity:
    """Keyed, single-writer, durable state; subclass it.

    A call raises VersionConflict when another process changed the same entity meanwhile: nothing
    was written, repeat the call. It raises SessionBusy when too many wait or when waiting could
    never end, TurnTimeout after 600 s, InvalidInput when the state is no JSON, and what the
    method itself raises, unchanged. In each of these cases the state is as it was.

    `runtime` is where it lives; without it the current one of each call.
    """

    kind: ClassVar[str] = "Entity"
    """The name under which the state is stored: the name of the class, or its own ``kind``."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.kind = identifier(vars(cls).get("kind", cls.__name__), "the kind of an entity")
        for name in dir(cls):
            function = None if name.startswith("_") else getattr_static(cls, name)
            if iscoroutinefunction(function) and not hasattr(function, _CALL):
                setattr(cls, name, _as_call(function))

    def __init__(self, key: str, *, runtime: Host | None = None) -> None:
        self._identity = Identity(self.kind, identifier(key, "the key of an entity"), runtime)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(key={self.key!r})"

    @property
    def key(self) -> str:
        """Which one of its class it is."""
        return self._identity.key

    @property
    def state(self) -> State:
        """The state, inside a method; raises UsageError outside of one."""
        calls.data_here(self._identity)
        return State(self._identity)


class State(MutableMapping[str, Any]):
    """The state of an entity as a mapping of text to JSON values, inside its methods.

    What is set is copied. What is got belongs to the state: changing it changes the state. All
    of it raises UsageError outside of a method.
    """

    __slots__ = ("_identity",)

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    def __getitem__(self, key: str) -> Any:
        return calls.data_here(self._identity)[key]

    def __setitem__(self, key: str, value: Any) -> None:
        name = scopes.check_key(key)
        copy = json_value(value, f"the state value of {name!r}")
        calls.data_here(self._identity, to_write=True)[name] = copy

    def __delitem__(self, key: str) -> None:
        del calls.data_here(self._identity, to_write=True)[key]

    def __iter__(self) -> Iterator[str]:
        return iter(list(calls.data_here(self._identity)))

    def __len__(self) -> int:
        return len(calls.data_here(self._identity))

    def __repr__(self) -> str:
        return f"State({calls.data_here(self._identity)!r})"

    def set(self, key: str, value: Any) -> None:
        """Set a value; raises InvalidInput for what is no JSON value."""
        self[key] = value

    def setdefault(self, key: str, default: Any = None) -> Any:
        """The value of a key, set to a copy of `default` before if it was not there."""
        if key not in self:
            self[key] = default
        return self[key]

    def delete(self, key: str) -> bool:
        """Delete a key; True if it was there."""
        data = calls.data_here(self._identity, to_write=True)
        return data.pop(key, _ABSENT) is not _ABSENT


def _as_call(function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    reads_only = bool(getattr(function, _QUERY, False))

    @wraps(function)
    async def method(self: Entity, /, *args: Any, **kwargs: Any) -> Any:
        async def body() -> Any:
            result = await function(self, *args, **kwargs)
            return dict(result) if isinstance(result, State) else result

        identity = self._identity  # pyright: ignore[reportPrivateUsage]
        return await calls.call(identity, body, reads_only=reads_only)

    setattr(method, _CALL, True)
    return method
