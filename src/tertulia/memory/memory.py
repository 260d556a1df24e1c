"""Memory: the door to what is remembered of one user or one app."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from tertulia import host as hosts
from tertulia.errors import ConfigurationError, InvalidInput
from tertulia.history import check_position
from tertulia.host import Host
from tertulia.memory import entries, ingesting
from tertulia.memory.entries import MemoryEntry, entry_of
from tertulia.memory.services import MemoryService, VectorMemoryService
from tertulia.stores.memories import MemoryKeeper, MemoryScope
from tertulia.values import identifier

if TYPE_CHECKING:
    from tertulia.agents.models import ModelLike
    from tertulia.session import Session

PAGE = 200


class Memory:
    """What is known across sessions: of a user in an app, or without `user_id` of the app.

    It is kept in the file or database of the sessions, and outlives them. `service` is how it is
    found: a `VectorMemoryService()` by default. Making one does no I/O. Two objects of the same
    user and app are the same memory, and nobody else's is seen through them. Raises InvalidInput
    for what is no service.
    """

    def __init__(
        self,
        service: MemoryService | None = None,
        user_id: str | None = None,
        app_name: str | None = None,
        *,
        runtime: Host | None = None,
        store: Any = None,
    ) -> None:
        if runtime is None:
            runtime = hosts.current() if store is None else hosts.for_store(store)
        self._host = runtime
        self._service = VectorMemoryService() if service is None else _checked(service)
        self._scope = MemoryScope(
            app=None if app_name is None else identifier(app_name, "app_name"),
            user=None if user_id is None else identifier(user_id, "user_id"),
        )

    @property
    def user_id(self) -> str | None:
        """The user whose memory it is; None for the memory of the app."""
        return self._scope.user

    @property
    def app_name(self) -> str | None:
        """The app that it belongs to; None is the default app."""
        return self._scope.app

    def __repr__(self) -> str:
        return f"Memory(user_id={self.user_id!r}, app_name={self.app_name!r})"

    async def store(self, key: str, content: str, **metadata: Any) -> MemoryEntry:
        """Remember `content` under `key`, in place of what was there; durable when it returns.

        Raises InvalidInput for a content over 64 KB, metadata over 16 KB of JSON or a key that
        cannot be, and ModelError when the embedder fails; then nothing is stored.
        """
        row = entries.new_row(key, content, metadata, self._host.clock.now())
        await self._keeper.put_memories(self._scope, await self._service.prepare([row]))
        return (await self.recall(row.key) or [entry_of(row)])[0]

    async def recall(self, keys: str | Iterable[str]) -> list[MemoryEntry]:
        """The entries with these keys, in their order; a key that is not there is left out.

        Raises InvalidInput for more than 1,000 keys.
        """
        return await self._with_keys(entries.check_keys(keys))

    async def search(self, query: str, limit: int = 10) -> list[MemoryEntry]:
        """At most `limit` (1 to 1,000) entries that fit the query, the best first.

        Raises InvalidInput, and ModelError when the embedder fails.
        """
        wanted, most = entries.check_query(query), entries.check_limit(limit)
        found = await self._service.search(self._keeper, self._scope, wanted, most)
        return [entry_of(row, score) for row, score in found]

    async def entries(self, limit: int = 100, after: str | None = None) -> list[MemoryEntry]:
        """What is remembered, in the order in which it was first stored, a page at a time.

        `after` is the key of the last entry of the page before. Raises InvalidInput, also for a
        key that is not there any more.
        """
        most, position = entries.check_limit(limit), 0
        if after is not None:
            found = await self._keeper.memories(self._scope, entries.check_keys(after))
            if not found:
                raise InvalidInput(f"after={after!r} is not remembered any more; begin again")
            position = check_position(found[0].id, "after")
        page = await self._keeper.memory_page(self._scope, position, most)
        return [entry_of(row) for row in page]

    async def forget(self, key: str) -> bool:
        """Remove an entry for good; whether it was there."""
        return bool(await self._keeper.forget_memories(self._scope, entries.check_keys(key)))

    async def ingest_from_session(
        self, session: Session, strategy: str = "smart", model: ModelLike = None
    ) -> list[MemoryEntry]:
        """Remember what the visible history of a session says; returns the entries.

        ``"smart"`` asks a model for facts: `model`, else that of the session's agent, else the
        configured default. ``"messages"`` keeps what the user said, without a model. Each entry
        names its source in its metadata (`source_session`, `source_seqs`), and goes when that is
        deleted or erased. The same fact of the same session is one entry, however often it is
        ingested. A turn that is running is left out.

        Raises AccessDenied for a session of another user or app, SchemaValidationError for an
        answer that is no list of facts, ModelError and ConfigurationError; then nothing is stored.
        """
        ingesting.check_strategy(strategy)
        if session._host.store is not self._host.store:  # pyright: ignore[reportPrivateUsage]
            raise InvalidInput("the session lives in another store than this memory")
        ingesting.check_owner(session, self._scope)
        rows = await ingesting.remembered(
            session, self._host.store, strategy, model, self._host.clock.now()
        )
        if not rows:
            return []
        await self._keeper.put_memories(self._scope, await self._service.prepare(rows))
        return await self._with_keys([row.key for row in rows])

    async def reembed(self) -> int:
        """Make the vector of every entry again, after a change of the embedder; how many.

        Until then entries with a vector of another embedder are found by their words alone. An
        entry that changes meanwhile keeps its new vector. Raises ModelError; what was done stays.
        """
        done, after = 0, 0
        while page := await self._keeper.memory_page(self._scope, after, PAGE):
            rows = [msgspec.structs.replace(row, embedder=None) for row in page]
            made = [row for row in await self._service.prepare(rows) if row.embedder is not None]
            done += await self._keeper.put_vectors(self._scope, made) if made else 0
            after = page[-1].id
        return done

    async def _with_keys(self, keys: Sequence[str]) -> list[MemoryEntry]:
        found = {row.key: row for row in await self._keeper.memories(self._scope, keys)}
        return [entry_of(found[key]) for key in keys if key in found]

    @property
    def _keeper(self) -> MemoryKeeper:
        store = self._host.store
        if not isinstance(store, MemoryKeeper):
            raise ConfigurationError(f"{store.url} keeps no memories; use another store")
        return store


def _checked(service: Any) -> MemoryService:
    if isinstance(service, type) or not isinstance(service, MemoryService):
        raise InvalidInput(f"{service!r} is no service; pass VectorMemoryService(), or none")
    return service
