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

import copy
import threading
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from functools import partial, wraps
from inspect import getattr_static, iscoroutinefunction
from typing import Any, ClassVar, Final, TypeVar, cast

from tertulia import scopes
from tertulia.codec import decode, encode
from tertulia.errors import SessionBusy, TurnTimeout, UsageError
from tertulia.gate import Gate, GateDeadlock, GateFull, GateTimeout
from tertulia.host import Host, current
from tertulia.stores.base import LogStore
from tertulia.values import identifier, json_value

MAX_WAITERS: Final = 1_000
TIMEOUT: Final = 600.0
"""Seconds that a call waits for its place."""

_QUERY: Final = "__tertulia_query__"
_CALL: Final = "__tertulia_call__"

Body = Callable[[], Awaitable[Any]]
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
    """The name under which the state is stored: the name of the class, or ``kind=`` of it."""

    def __init_subclass__(cls, *, kind: str | None = None, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.kind = identifier(kind or cls.__name__, "the kind of an entity")
        for name in dir(cls):
            function = None if name.startswith("_") else getattr_static(cls, name)
            if iscoroutinefunction(function) and not hasattr(function, _CALL):
                setattr(cls, name, _as_call(function))

    def __init__(self, key: str, *, runtime: Host | None = None) -> None:
        self._key = identifier(key, "the key of an entity")
        self._runtime = runtime

    def __repr__(self) -> str:
        return f"{type(self).__name__}(key={self._key!r})"

    @property
    def key(self) -> str:
        """Which one of its class it is."""
        return self._key

    @property
    def state(self) -> State:
        """The state, inside a method; raises UsageError outside of one."""
        state = State(self)
        state.reading()
        return state


class State(MutableMapping[str, Any]):
    """The state of an entity as a mapping of text to JSON values, inside its methods.

    What is set is copied. What is got belongs to the state: changing it changes the state.
    """

    __slots__ = ("_entity",)

    def __init__(self, entity: Entity) -> None:
        self._entity = entity

    def __getitem__(self, key: str) -> Any:
        return self.reading()[key]

    def __setitem__(self, key: str, value: Any) -> None:
        name = scopes.check_key(key)
        self._writing()[name] = json_value(value, f"the state value of {name!r}")

    def __delitem__(self, key: str) -> None:
        del self._writing()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(list(self.reading()))

    def __len__(self) -> int:
        return len(self.reading())

    def __repr__(self) -> str:
        return f"State({self.reading()!r})"

    def set(self, key: str, value: Any) -> None:
        """Set a value; raises InvalidInput for what is no JSON value."""
        self[key] = value

    def delete(self, key: str) -> bool:
        """Delete a key; True if it was there."""
        return self._writing().pop(key, _ABSENT) is not _ABSENT

    def reading(self) -> dict[str, Any]:
        """What the call that is running here sees. Raises UsageError where there is none."""
        return _visit_here(self._entity).usable().data

    def _writing(self) -> dict[str, Any]:
        visit = _visit_here(self._entity).usable()
        if visit.reads_only:
            raise UsageError(f"a @query method of {visit.room} may not change its state")
        return visit.data


_ABSENT: Final = object()


class _Room:
    """Where the calls of one entity meet; lives while one of them does."""

    __slots__ = ("__weakref__", "gate", "host", "key", "kind", "visit")

    def __init__(self, host: Host, kind: str, key: str) -> None:
        self.host = host
        self.kind = kind
        self.key = key
        self.gate = Gate(MAX_WAITERS)
        self.visit: _Visit | None = None
        """The call that is inside."""

    def __str__(self) -> str:
        return f"{self.kind} {self.key!r}"


class _Visit:
    """One call: the state that it sees, and the calls of the same entity that are part of it."""

    __slots__ = ("data", "failed", "inner", "open", "outer", "reads_only", "room", "waits_for")

    def __init__(
        self, room: _Room, data: dict[str, Any], *, reads_only: bool, outer: _Visit | None = None
    ) -> None:
        self.room = room
        self.data = data
        self.reads_only = reads_only
        self.outer = outer
        self.open = True
        self.failed = False
        self.inner = Gate(MAX_WAITERS)
        self.waits_for: list[_Room] = []

    def usable(self) -> _Visit:
        """This, if its state may be touched now. Raises UsageError."""
        self.refuse_if_failed()
        if self.inner.busy:
            raise UsageError(
                f"another call of {self.room} that was started here as a task is running; await "
                "it before touching the state"
            )
        return self

    def refuse_if_failed(self) -> None:
        """Raise UsageError when this was part of a call that failed and was taken back."""
        visit: _Visit | None = self
        while visit is not None:
            if visit.failed:
                raise UsageError(
                    f"the call of {self.room} that this was part of has failed; what it did was "
                    "taken back"
                )
            visit = visit.outer

    async def close(self) -> None:
        """Wait for the calls that are part of this one and were started as tasks."""
        await _enter(self.inner, self.room)
        self.open = False
        self.inner.leave()

    def fail(self) -> None:
        """From now on nothing that was part of this call may touch the state."""
        self.open, self.failed = False, True


_visits: ContextVar[tuple[_Visit, ...]] = ContextVar("tertulia_visits", default=())
_graph = threading.Lock()
"""Guards `_Room.visit`, `_Visit.waits_for` and the registry of rooms."""


def _as_call(function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    reads_only = bool(getattr(function, _QUERY, False))

    @wraps(function)
    async def method(self: Entity, /, *args: Any, **kwargs: Any) -> Any:
        return await _call(self, partial(function, self, *args, **kwargs), reads_only)

    setattr(method, _CALL, True)
    return method


async def _call(entity: Entity, body: Body, reads_only: bool) -> Any:
    while True:
        outer = _visit_of(entity)
        if outer is None:
            room = _room(_host(entity), entity)
            run = _read if reads_only else _write
            return await run(room.host.store, room, body)
        if outer.reads_only and not reads_only:
            raise UsageError(
                f"a @query method of {outer.room} called one that writes; mark that one as "
                "@query too, or remove the mark here"
            )
        await _enter(outer.inner, outer.room)
        try:
            outer.refuse_if_failed()
            if not outer.open:
                continue  # it ended while we waited, so this is a call of its own
            if not reads_only:
                return await _join(outer, body)
            visit = _Visit(outer.room, copy.deepcopy(outer.data), reads_only=True, outer=outer)
        finally:
            outer.inner.leave()
        return await _look(visit, body)


async def _write(store: LogStore, room: _Room, body: Body) -> Any:
    """A call of its own: one at a time, and what it changed is saved."""
    async with _inside(room) as visit:
        found = await store.entity(room.kind, room.key)
        loaded = b"{}" if found is None or found.value is None else found.value
        visit.data = _decoded(loaded, room)
        result = await _run(visit, body)
        value = encode(visit.data, str(room))
        if value != loaded:
            checked = json_value(visit.data, f"the state of {room}")
            version = 0 if found is None else found.version
            await store.put_entity(room.kind, room.key, encode(checked, str(room)), version)
        return result


async def _join(outer: _Visit, body: Body) -> Any:
    """A call that is part of another one: on the same state, which is saved with the other."""
    before = encode(outer.data, str(outer.room))
    visit = _Visit(outer.room, outer.data, reads_only=False, outer=outer)
    try:
        result = await _run(visit, body)
    except BaseException:
        # Also when nothing changed yet: a task may still hold something that is in the state.
        if visit.inner.busy or encode(outer.data, str(outer.room)) != before:
            outer.data.clear()
            outer.data.update(_decoded(before, outer.room))
        raise
    return _apart(result, outer.data)


async def _read(store: LogStore, room: _Room, body: Body) -> Any:
    """A query of its own: it sees what was saved last, and waits for nobody."""
    found = await store.entity(room.kind, room.key)
    loaded = b"{}" if found is None or found.value is None else found.value
    return await _look(_Visit(room, _decoded(loaded, room), reads_only=True), body)


async def _look(visit: _Visit, body: Body) -> Any:
    before = encode(visit.data, str(visit.room))
    result = await _run(visit, body)
    if encode(visit.data, str(visit.room)) != before:
        raise UsageError(f"a @query method of {visit.room} may not change its state")
    return result


async def _run(visit: _Visit, body: Body) -> Any:
    try:
        with _present(visit):
            result = await body()
        if isinstance(result, State):
            result = dict(visit.usable().data)
        await visit.close()
    except BaseException:
        visit.fail()
        raise
    return result


@contextmanager
def _present(visit: _Visit) -> Iterator[None]:
    token = _visits.set((*_visits.get(), visit))
    try:
        yield
    finally:
        with suppress(ValueError):  # a coroutine that is thrown away ends in another context
            _visits.reset(token)


@asynccontextmanager
async def _inside(room: _Room) -> Any:
    """The one place inside of a room, for those who hold it."""
    holding = [visit for visit in _visits.get() if visit.open]
    with _waiting(room, holding):
        await _enter(room.gate, room)
    visit = _Visit(room, {}, reads_only=False)
    try:
        with _graph:
            room.visit = visit
        yield visit
    except BaseException:
        visit.fail()
        raise
    finally:
        with _graph:
            room.visit = None
        room.gate.leave()


@contextmanager
def _waiting(room: _Room, holding: list[_Visit]) -> Iterator[None]:
    """Say that the calls that hold wait for a room. Raises SessionBusy if it is for ever."""
    with _graph:
        if holding and _leads_to(room, holding):
            raise SessionBusy(
                f"{holding[-1].room} waits for {room}, and {room} waits for {holding[-1].room}: "
                "call them in the same order everywhere"
            )
        for visit in holding:
            visit.waits_for.append(room)
    try:
        yield
    finally:
        with _graph:
            for visit in holding:
                visit.waits_for.remove(room)


def _leads_to(room: _Room, holding: list[_Visit]) -> bool:
    """Whether the call inside `room` waits, perhaps by way of others, for one of `holding`."""
    seen: set[_Room] = set()
    rooms = [room]
    while rooms:
        found = rooms.pop()
        if found in seen or found.visit is None:
            continue
        if found.visit in holding:
            return True
        seen.add(found)
        rooms.extend(found.visit.waits_for)
    return False


async def _enter(gate: Gate, room: _Room) -> None:
    try:
        await gate.enter(TIMEOUT)
    except GateFull:
        raise SessionBusy(f"{gate.waiting} calls wait for {room} already") from None
    except GateDeadlock:
        raise SessionBusy(
            f"{room} is in use by a task of this event loop, which a synchronous call here would "
            "block; await the asynchronous method instead"
        ) from None
    except GateTimeout:
        raise TurnTimeout(f"{room} did not become free in {TIMEOUT:g} s") from None


def _host(entity: Entity) -> Host:
    return entity._runtime or current()  # pyright: ignore[reportPrivateUsage]


def _room(host: Host, entity: Entity) -> _Room:
    name = ("entity", entity.kind, entity.key)
    with _graph:
        found = host.registry.get(name)
        if found is None:
            found = host.registry[name] = _Room(host, entity.kind, entity.key)
        return cast("_Room", found)


def _visit_of(entity: Entity) -> _Visit | None:
    """The innermost open call of this entity that the calling code is part of."""
    for visit in reversed(_visits.get()):
        room = visit.room
        same = room.kind == entity.kind and room.key == entity.key
        if same and visit.open and room.host is _host(entity):
            return visit
    return None


def _visit_here(entity: Entity) -> _Visit:
    for visit in reversed(_visits.get()):
        room = visit.room
        if room.kind == entity.kind and room.key == entity.key and room.host is _host(entity):
            visit.refuse_if_failed()
            if visit.open:
                return visit
            break
    raise UsageError(
        f"the state of {entity!r} exists inside its public async methods only; move this into one"
    )


def _decoded(data: bytes, room: _Room) -> dict[str, Any]:
    return cast("dict[str, Any]", decode(data, f"the state of {room}"))


def _apart(result: Any, data: dict[str, Any]) -> Any:
    """The result, copied where it shares lists or mappings with the state."""
    shared = {id(part) for part in _containers(data)}
    if any(id(part) in shared for part in _containers(result)):
        return copy.deepcopy(result)
    return result


def _containers(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield cast("dict[Any, Any]", value)
        for item in cast("dict[Any, Any]", value).values():
            yield from _containers(item)
    elif isinstance(value, list | tuple | set | frozenset):
        yield cast("list[Any]", value)
        for item in cast("list[Any]", value):
            yield from _containers(item)
