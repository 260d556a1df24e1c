"""Checking the chain of digests, record by record, in constant memory."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tertulia import events
from tertulia.events import Record


class Verification(msgspec.Struct, frozen=True):
    """Whether a log holds; true when it does.

    `checked` records were looked at, `erased` of them have no body any more. `head` is the
    digest of the newest one, as hex. `first_bad` is the position of the first thing that does
    not fit, where it has one, and `reason` says what it is.
    """

    ok: bool
    checked: int
    head: str
    first_bad: int | None = None
    reason: str | None = None
    erased: int = 0

    def __bool__(self) -> bool:
        return self.ok


class ChainChecker:
    """Recomputes the digests of one session's own events, fed in the order of the log.

    It begins after `seq` with `digest`: `events.genesis(uid)` at 0, or `events.branch(...)`
    where a fork begins. `anchored` gives digests that were signed, by position: they must be
    reached and be the same.
    """

    __slots__ = ("_anchored", "_uid", "checked", "digest", "erased", "first_bad", "reason", "seq")

    def __init__(
        self, uid: bytes, digest: bytes, seq: int = 0, anchored: Mapping[int, bytes] | None = None
    ) -> None:
        self._uid = uid
        self._anchored = dict(anchored or {})
        self.digest = digest
        self.seq = seq
        self.checked = 0
        self.erased = 0
        self.first_bad: int | None = None
        self.reason: str | None = None
        self._check_anchor()

    @classmethod
    def new(cls, uid: bytes, anchored: Mapping[int, bytes] | None = None) -> ChainChecker:
        """For a session of its own."""
        return cls(uid, events.genesis(uid), 0, anchored)

    @classmethod
    def fork(
        cls,
        uid: bytes,
        parent_uid: bytes,
        seq: int,
        parent_digest: bytes,
        anchored: Mapping[int, bytes] | None = None,
    ) -> ChainChecker:
        """For a session that forked off its parent at `seq`, where the parent had that digest."""
        return cls(uid, events.branch(uid, parent_uid, seq, parent_digest), seq, anchored)

    @property
    def ok(self) -> bool:
        """Whether everything fits so far."""
        return self.reason is None

    def feed(self, record: Record) -> bool:
        """Check the next record; False from the first one on that does not fit."""
        if self.reason is not None:
            return False
        self.checked += 1
        expected = self.seq + 1
        if record.seq > expected:
            return self._refuse(expected, f"event {expected} is missing before {record.seq}")
        if record.seq < expected:
            return self._refuse(record.seq, f"event {record.seq} is there twice")
        of_body = self._body_digest(record)
        if of_body is None:
            return False
        head = events.header(
            self._uid, record.seq, record.type, record.time, record.actor, record.turn
        )
        digest = events.link(self.digest, head, of_body)
        if digest != record.digest:
            return self._refuse(
                record.seq, f"event {record.seq} is not what was written: its digest does not fit"
            )
        self.seq, self.digest = record.seq, digest
        return self._check_anchor()

    def finish(self, seq: int | None = None, digest: bytes | None = None) -> Verification:
        """The result, when all was fed; `seq` and `digest` are where the log must end."""
        if self.reason is None and seq is not None and seq != self.seq:
            self._refuse(
                min(seq, self.seq) + 1, f"the log ends at {self.seq}, and its head says {seq}"
            )
        if self.reason is None and digest is not None and digest != self.digest:
            self._refuse(self.seq, f"the head is not the digest of event {self.seq}")
        beyond = min((at for at in self._anchored if at > self.seq), default=None)
        if self.reason is None and beyond is not None:
            self._refuse(
                self.seq + 1, f"the log ends at {self.seq}, and position {beyond} was anchored"
            )
        return Verification(
            ok=self.reason is None,
            checked=self.checked,
            head=self.digest.hex(),
            first_bad=self.first_bad,
            reason=self.reason,
            erased=self.erased,
        )

    def _body_digest(self, record: Record) -> bytes | None:
        if record.body is None:
            if record.body_digest is None:
                self._refuse(record.seq, f"event {record.seq} has no body, and no digest of one")
            self.erased += 1
            return record.body_digest
        if record.salt is None:
            self._refuse(record.seq, f"event {record.seq} has a body, and no salt for it")
            return None
        return events.body_digest(record.salt, record.body)

    def _check_anchor(self) -> bool:
        signed = self._anchored.get(self.seq)
        if signed is None or signed == self.digest:
            return True
        return self._refuse(self.seq, f"up to {self.seq} the log is not the one that was anchored")

    def _refuse(self, seq: int, reason: str) -> bool:
        self.first_bad, self.reason = seq, reason
        return False
