"""Proof of one session: verifying its log, signing its head, exporting it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tertulia import audit, events
from tertulia.codec import body_of
from tertulia.conversation import Conversation
from tertulia.errors import InvalidInput
from tertulia.events import Record
from tertulia.opening import Opening
from tertulia.stores.base import LogStore, Segment, SessionRow
from tertulia.view import View

if TYPE_CHECKING:
    from tertulia.audit import Exporter, Source, Verification

Format = Literal["jsonl", "json", "markdown"]
PAGE = 1_000


class Proof:
    """What can be proved of a session, and handed to others."""

    def __init__(self, conversation: Conversation, opening: Opening) -> None:
        self._conversation = conversation
        self._opening = opening

    @property
    def _store(self) -> LogStore:
        return self._conversation.host.store

    async def verify(
        self, anchor: Mapping[str, Any] | None = None, key: bytes | None = None
    ) -> Verification:
        """Recompute the chain, refold the row from the log, and compare with a signed anchor.

        Raises InvalidInput for an anchor without its key, SessionNotFound, StoreCorrupt.
        """
        row = await self._conversation.existing(self._opening)
        anchored = self._anchored(row, anchor, key)
        if anchor is not None and not anchored:
            reason = "the anchor names another log: this session was created anew, or is another"
            return audit.Verification(ok=False, checked=0, head=row.digest.hex(), reason=reason)
        return await verify_row(self._store, row, anchored)

    def _anchored(
        self, row: SessionRow, anchor: Mapping[str, Any] | None, key: bytes | None
    ) -> dict[int, bytes]:
        if anchor is None:
            return {}
        if key is None:
            raise InvalidInput("an anchor is checked with its key; pass key=")
        heads = audit.check_anchor(anchor, key)
        return {head.seq: head.digest for head in heads if head.uid == row.uid}

    async def anchor(self, key: bytes) -> dict[str, Any]:
        """Sign where the log stands now. Raises InvalidInput for a key that is none."""
        row = await self._conversation.existing(self._opening)
        now = self._conversation.host.clock.now()
        return audit.make_anchor([audit.Head(row.uid, row.seq, row.digest)], key, now)

    async def export(self, kind: Format, path: str | os.PathLike[str] | None) -> str:
        """The session as text; with a path, written there whole or not at all, and the path."""
        if kind not in ("jsonl", "json", "markdown"):
            raise InvalidInput(f"format {kind!r} does not exist; use jsonl, json or markdown")
        row = await self._conversation.existing(self._opening)
        parts = self._lines(row) if kind == "jsonl" else self._document(row, kind)
        if path is None:
            return "".join([part async for part in parts])
        return await _write(Path(path), parts)

    async def _document(self, row: SessionRow, kind: Format) -> AsyncIterator[str]:
        view: View = await self._conversation.view(row)
        messages = await view.messages()
        make = audit.export_json if kind == "json" else audit.export_markdown
        yield make(messages, _facts(row))

    async def _lines(self, row: SessionRow) -> AsyncIterator[str]:
        """The whole log, with what it inherits, line by line."""
        logs = [row]
        while logs[-1].parent is not None:
            parent = await self._store.row(logs[-1].parent)
            if parent is None or parent.status == "deleted":
                break
            logs.append(parent)
        exporter: Exporter | None = None
        for index in range(len(logs) - 1, -1, -1):
            high = logs[index - 1].base if index else row.seq
            source = await _source(self._store, logs[index])
            if exporter is None:
                exporter = audit.Exporter(source)
            else:
                exporter.begin(source)
            async for record in _records(self._store, logs[index], high):
                yield exporter.line(record) + "\n"
        if exporter is not None:
            yield exporter.head(self._conversation.host.clock.now(), _facts(row)) + "\n"


async def verify_row(
    store: LogStore, row: SessionRow, anchored: Mapping[int, bytes] | None = None
) -> Verification:
    """Recompute the chain of a session, and refold its row from its log. Raises StoreCorrupt."""
    source = await _source(store, row)
    chain = audit.ChainChecker(row.uid, source.start(), row.base, anchored)
    fold = audit.Refold(source.start(), row.base)
    async for record in _records(store, row):
        chain.feed(record)
        fold.feed(record)
    found = audit.verdict(chain, fold, row)
    if found and row.visible >= 0:
        position = row.seq if row.open_turn is None else row.open_turn - 1
        shown = await (await View.at(store, row, position)).count()
        if shown != row.visible:
            return audit.Verification(
                ok=False,
                checked=found.checked,
                head=found.head,
                reason=f"the row says that {row.visible} messages are visible, not {shown}",
            )
    return found


async def _source(store: LogStore, row: SessionRow) -> Source:
    if row.parent is None:
        return audit.Source(uid=row.uid)
    first = await store.records([Segment(row.key, row.base, row.base + 1)])
    body = body_of(first[0]) if first and first[0].type == events.SESSION_FORKED else {}
    try:
        uid, digest = bytes.fromhex(body["parent"]), bytes.fromhex(body["digest"])
    except (KeyError, ValueError, TypeError):
        uid, digest = b"", b""
    return audit.Source(uid=row.uid, parent_uid=uid, base=row.base, parent_digest=digest)


async def _records(
    store: LogStore, row: SessionRow, high: int | None = None
) -> AsyncIterator[Record]:
    position, end = row.base, row.seq if high is None else high
    while position < end:
        page = await store.records([Segment(row.key, position, end)], PAGE)
        for record in page:
            yield record
        if not page:
            return
        position = page[-1].seq


def _facts(row: SessionRow) -> dict[str, Any]:
    return {
        "session_id": row.id,
        "app_name": row.app,
        "user_id": row.user,
        "metadata": row.details.metadata,
        "retention": row.details.retention,
        "system": row.details.system,
    }


async def _write(path: Path, parts: AsyncIterator[str]) -> str:
    """Write a file beside its place and move it there when it is whole."""
    name = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            async for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        name.replace(path)
    except BaseException:
        name.unlink()
        raise
    return str(path)
