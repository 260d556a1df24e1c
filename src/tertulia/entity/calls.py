"""Calls of entities: who is inside, who waits, who joins, and what is saved.

A call of its own takes the one place in the entity's room, reads the state, and saves it at its
end. A call made from inside one joins it: it works on the same state, and those that are started
side by side, as tasks, run one after the other. A query works on a copy.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, Final, cast

import msgspec

from tertulia.codec import decode, encode
from tertulia.entity.places import Holder, Place
from tertulia.errors import UsageError
from tertulia.host import Host, current
from tertulia.stores.base import LogStore
from tertulia.values import json_value

Body = Callable[[], Awaitable[Any]]

_CONTAINERS: Final = (dict, list, tuple, set, frozenset)


class Identity(msgspec.Struct, frozen=True):
    """Which entity is meant; without a runtime, in the current one."""

    kind: str
    key: str
    runtime: Host | None

    def host(self) -> Host:
        """Where it lives."""
        return self.runtime or current()

    def is_in(self, room: _Room) -> bool:
        """Whether this is the entity of a room."""
        return room.kind == self.kind and room.key == self.key and room.host is self.host()


def data_here(identity: Identity, *, to_write: bool = False) -> dict[str, Any]:
    """The state that the call which is running here sees.

    Raises UsageError where there is none, or where it may not be touched.
    """
    for visit in reversed(_visits.get()):
        if identity.is_in(visit.room):
            visit.refuse_if_failed()
            if visit.open:
                return visit.usable(to_write=to_write)
            break
    raise UsageError(
        f"the state of {identity.kind} {identity.key!r} exists inside its public async methods "
        "only; move this into one"
    )


async def call(identity: Identity, body: Body, *, reads_only: bool) -> Any:
    """Run the body of a method of an entity, in its place. Raises what `Entity` says."""
    while True:
        holding = [visit for visit in _visits.get() if visit.open]
        outer = next((visit for visit in reversed(holding) if identity.is_in(visit.room)), None)
        if outer is None:
            room = _room(identity)
            if reads_only:
                return await _read(room.host.store, room, body)
            return await _write(room.host.store, room, body, holding)
        if outer.reads_only and not reads_only:
            raise UsageError(
                f"a @query method of {outer.room} called one that writes; mark that one as "
                "@query too, or remove the mark here"
            )
        visit = _Visit(outer.room, outer.data, reads_only=reads_only, outer=outer)
        async with outer.inner.held_by(visit, holding):
            outer.refuse_if_failed()
            if not outer.open:
                continue  # it ended while we waited, so this is a call of its own
            if not reads_only:
                return await _join(visit, body)
            visit.data = copy.deepcopy(outer.data)
        return await _look(visit, body)


class _Room:
    """Where the calls of one entity meet; lives while one of them does."""

    __slots__ = ("__weakref__", "host", "key", "kind", "place")

    def __init__(self, host: Host, kind: str, key: str) -> None:
        self.host = host
        self.kind = kind
        self.key = key
        self.place = Place(str(self))

    def __str__(self) -> str:
        return f"{self.kind} {self.key!r}"


class _Visit(Holder):
    """One call: the state that it sees, and the calls of the same entity that are part of it."""

    __slots__ = ("data", "failed", "inner", "open", "outer", "reads_only", "room")

    def __init__(
        self, room: _Room, data: dict[str, Any], *, reads_only: bool, outer: _Visit | None = None
    ) -> None:
        super().__init__()
        self.room = room
        self.data = data
        self.reads_only = reads_only
        self.outer = outer
        self.open = True
        self.failed = False
        self.inner = Place(str(room))

    def usable(self, *, to_write: bool) -> dict[str, Any]:
        """The state, if it may be touched now. Raises UsageError."""
        if self.inner.busy:
            raise UsageError(
                f"another call of {self.room} that was started here as a task is running; await "
                "it before touching the state"
            )
        if to_write and self.reads_only:
            raise _written(self.room)
        return self.data

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

    async def run(self, body: Body) -> Any:
        """Run a body as this call, and wait for what it started as tasks on the same entity."""
        try:
            with _present(self):
                result = await body()
            async with self.inner.held_by(None, ()):
                self.open = False
            self.refuse_if_failed()
        except BaseException:
            self.open, self.failed = False, True
            raise
        return result


_visits: ContextVar[tuple[_Visit, ...]] = ContextVar("tertulia_visits", default=())
_registry = threading.Lock()


async def _write(store: LogStore, room: _Room, body: Body, holding: list[_Visit]) -> Any:
    """A call of its own: one at a time, and what it changed is saved."""
    visit = _Visit(room, {}, reads_only=False)
    async with room.place.held_by(visit, holding):
        loaded, version = await _stored(store, room)
        visit.data = _decoded(loaded, room)
        result = await visit.run(body)
        if encode(visit.data, _state_of(room)) != loaded:
            value = encode(json_value(visit.data, _state_of(room)), _state_of(room))
            await store.put_entity(room.kind, room.key, value, version)
        return result


async def _read(store: LogStore, room: _Room, body: Body) -> Any:
    """A query of its own: it sees what was saved last, and waits for nobody."""
    loaded, _ = await _stored(store, room)
    return await _look(_Visit(room, _decoded(loaded, room), reads_only=True), body)


async def _join(visit: _Visit, body: Body) -> Any:
    """A call that is part of another one: on the same state, which is saved with the other."""
    data, room = visit.data, visit.room
    before = encode(data, _state_of(room))
    try:
        result = await visit.run(body)
    except BaseException:
        # What did not change is left alone, because the outer call may hold parts of it; but a
        # task that goes on after the failure may hold them too.
        if visit.inner.busy or not _is_still(data, before):
            data.clear()
            data.update(_decoded(before, room))
        raise
    shared = not _containers(data).isdisjoint(_containers(result))
    return copy.deepcopy(result) if shared else result


async def _look(visit: _Visit, body: Body) -> Any:
    """A call that works on a copy, which must be the same afterwards."""
    before = encode(visit.data, _state_of(visit.room))
    result = await visit.run(body)
    if not _is_still(visit.data, before):
        raise _written(visit.room)
    return result


@contextmanager
def _present(visit: _Visit) -> Generator[None]:
    token = _visits.set((*(other for other in _visits.get() if other.open), visit))
    try:
        yield
    finally:
        with suppress(ValueError):  # a coroutine that is thrown away ends in another context
            _visits.reset(token)


def _room(identity: Identity) -> _Room:
    host = identity.host()
    name = ("entity", identity.kind, identity.key)
    with _registry:
        found = host.registry.get(name)
        if found is None:
            found = host.registry[name] = _Room(host, identity.kind, identity.key)
        return cast("_Room", found)


async def _stored(store: LogStore, room: _Room) -> tuple[bytes, int]:
    """The state as it was saved last, and its version."""
    found = await store.entity(room.kind, room.key)
    if found is None:
        return b"{}", 0
    return b"{}" if found.value is None else found.value, found.version


def _state_of(room: _Room) -> str:
    return f"the state of {room}"


def _decoded(data: bytes, room: _Room) -> dict[str, Any]:
    return cast("dict[str, Any]", decode(data, _state_of(room)))


def _is_still(data: dict[str, Any], before: bytes) -> bool:
    """Whether a state is what it was; one that cannot be stored is not."""
    try:
        return encode(data) == before
    except (ValueError, RecursionError):
        return False


def _written(room: _Room) -> UsageError:
    return UsageError(f"a @query method of {room} may not change its state")


def _containers(value: Any) -> set[int]:
    """The ids of the lists and mappings in a value."""
    found: set[int] = set()
    left: list[object] = [value]
    while left:
        part = left.pop()
        if isinstance(part, _CONTAINERS) and id(cast("object", part)) not in found:
            found.add(id(cast("object", part)))
            mapping = cast("Any", part)
            left.extend(mapping.values() if isinstance(part, dict) else mapping)
    return found
