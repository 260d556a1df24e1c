"""The bans of a swarm's clients, in the store.

All bans of a client, of all swarms, are one entity, so erasing a person is one write. Its key is
a digest of the client's id, because the key of an entity outlives its value. Nothing is kept in
memory: a ban that another process sets holds from the next look.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import Any, Final

import msgspec

from tertulia.codec import encode
from tertulia.errors import InvalidInput, StoreCorrupt, VersionConflict
from tertulia.host import Host
from tertulia.policies import MAX_REASON, Ban, added, lifted, standing
from tertulia.stores.base import LogStore, SharedValue
from tertulia.values import identifier, text

KIND: Final = "tertulia.bans"
TRIES: Final = 1_000
"""How often a change is tried while others change the bans of the same client."""

Names = str | Iterable[str]
BySwarm = dict[str, tuple[Ban, ...]]
Change = Callable[[BySwarm], list[Ban]]
"""Changes the bans of a client in place; returns those that it changed."""

_decode: Final = msgspec.json.Decoder(BySwarm).decode


class Bans:
    """The bans of one swarm's clients; `host` is the runtime and `swarm` the swarm's name."""

    def __init__(self, host: Host, swarm: str) -> None:
        self._host = host
        self._swarm = swarm
        self._newest = ("", key_of(""))
        """Whose bans were read last, and their key: a client session asks for its own only."""

    async def read(self, client_id: str) -> tuple[Ban, ...]:
        """The bans of a client, also those that are over: one read of the store.

        Raises StoreCorrupt.
        """
        if self._newest[0] != client_id:
            self._newest = client_id, key_of(client_id)
        stored = await self._host.store.entity(KIND, self._newest[1])
        if stored is None or stored.value is None:
            return ()
        return _by_swarm(stored).get(self._swarm, ())

    async def ban(
        self, client_id: str, policies: Names, until: int | None = None, reason: str = ""
    ) -> list[Ban]:
        """Ban a client for some policies (``*``: from the whole swarm) until a moment in
        microseconds, None for ever; durable when it returns.

        Returns the bans that are new or last longer now; one that is there already stays as it
        is. Raises InvalidInput, and VersionConflict when others change the bans of this client
        without end.
        """
        identifier(client_id, "the id of a client")
        now = self._host.clock.now()
        if len(text(reason, "the reason of a ban")) > MAX_REASON:
            raise InvalidInput(f"the reason of a ban has at most {MAX_REASON:,} characters")
        wanted = [Ban(name, now, until, reason) for name in _checked(policies)]

        def change(bans: BySwarm) -> list[Ban]:
            bans[self._swarm], changed = added(bans.get(self._swarm, ()), wanted, now)
            return changed

        return await _change(self._host.store, client_id, change, now)

    async def unban(self, client_id: str, policies: Names | None = None) -> list[Ban]:
        """Lift bans of a client, None for all that there are in this swarm.

        Returns those that were lifted. Raises InvalidInput, and VersionConflict as `ban` does.
        """
        now = self._host.clock.now()
        names = None if policies is None else _checked(policies)

        def change(bans: BySwarm) -> list[Ban]:
            bans[self._swarm], changed = lifted(bans.get(self._swarm, ()), names, now)
            return changed

        return await _change(self._host.store, client_id, change, now)


def key_of(client_id: str) -> str:
    """The key of a client's bans; the receipt of an erasure names the person in the same way."""
    return sha256(b"tertulia.1/user\0" + client_id.encode()).hexdigest()


async def exported(store: LogStore, client_id: str) -> dict[str, list[dict[str, Any]]]:
    """A client's bans by swarm as JSON-able data, also those that are over."""
    return msgspec.to_builtins(_by_swarm(await store.entity(KIND, key_of(client_id))))


async def erase(store: LogStore, client_id: str, now: int) -> int:
    """Remove a client's bans in every swarm; how many there were. Raises VersionConflict."""

    def change(bans: BySwarm) -> list[Ban]:
        gone = [ban for kept in bans.values() for ban in kept]
        bans.clear()
        return gone

    return len(await _change(store, client_id, change, now))


async def _change(store: LogStore, client_id: str, change: Change, now: int) -> list[Ban]:
    """Read, change and write a client's bans, again where another write came between."""
    key = key_of(client_id)
    for _ in range(TRIES - 1):
        try:
            return await _try_to_change(store, key, change, now)
        except VersionConflict:
            continue
    return await _try_to_change(store, key, change, now)


async def _try_to_change(store: LogStore, key: str, change: Change, now: int) -> list[Ban]:
    stored = await store.entity(KIND, key)
    before = _by_swarm(stored)
    bans = dict(before)
    changed = change(bans)
    kept = {swarm: stay for swarm, all_ in bans.items() if (stay := standing(all_, now))}
    if changed or kept != before:
        value = encode(kept, "the bans of a client") if kept else None
        await store.put_entity(KIND, key, value, stored.version if stored else 0)
    return changed


def _by_swarm(stored: SharedValue | None) -> BySwarm:
    if stored is None or stored.value is None:
        return {}
    try:
        return _decode(stored.value)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StoreCorrupt(f"the bans of a client are not what was written: {error}") from None


def _checked(policies: Names) -> list[str]:
    names = [policies] if isinstance(policies, str) else list(policies)
    return [identifier(name, "the name of a policy") for name in names]
