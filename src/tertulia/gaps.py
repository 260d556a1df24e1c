"""What a view leaves out between the messages that it shows: its cuts and its holes.

Both are read a page at a time, from the newest on, so that a short history needs few of them.
"""

from __future__ import annotations

from tertulia.stores.base import LogStore, MarkKind, Segment

PAGE = 64
_EVERYTHING = 2**62


class _Marks:
    """The marks of one kind that were made inside a segment, read up to `unread`."""

    __slots__ = ("kind", "segment", "unread")

    def __init__(self, segment: Segment, kind: MarkKind) -> None:
        self.segment = segment
        self.kind: MarkKind = kind
        self.unread = _EVERYTHING  # a cut that has grown since may end beyond the segment
        """Marks that end at or below it are not read yet; 0 when all are."""


class Gaps:
    """The cuts and holes of a view whose segments are gone through, newest first."""

    def __init__(self, store: LogStore, *, cuts: bool, holes: bool) -> None:
        self._store = store
        self._cuts = cuts
        self._holes = holes
        self._sources: list[_Marks] = []
        self._found: list[tuple[int, int]] = []

    def enter(self, segment: Segment) -> None:
        """Go on to the next segment: its holes may lie in older ones too, its cuts may not."""
        self._sources = [each for each in self._sources if each.kind == "hole" and each.unread]
        if self._cuts:
            self._sources.append(_Marks(segment, "cut"))
        if self._holes:
            self._sources.append(_Marks(segment, "hole"))

    async def below(self, high: int, bottom: int) -> tuple[int, list[tuple[int, int]]]:
        """Down to where the gaps below `high` are known, not below `bottom`, and those gaps.

        They are (low, high]; ask again from where they are known for those below.
        """
        low = bottom
        for source in self._sources:
            while source.unread >= high:
                await self._page(source)
            low = max(low, source.unread)
        found = [gap for gap in self._found if gap[0] < high]
        self._found = [gap for gap in found if gap[0] < low]
        return low, [gap for gap in found if gap[1] > low]

    async def _page(self, source: _Marks) -> None:
        found = await self._store.marks(
            source.segment, source.kind, below=source.unread, limit=PAGE
        )
        self._found.extend((mark.low, mark.high) for mark in found)
        source.unread = found[-1].high - 1 if len(found) == PAGE else 0
