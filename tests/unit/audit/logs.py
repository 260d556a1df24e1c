"""Small logs for the tests of the audit."""

import msgspec

from tertulia.drafting import Draft
from tertulia.events import Record, body_digest, genesis
from tertulia.messages import Message
from tertulia.stores.base import Change, SessionRow

UID = bytes(range(16))
PARENT = bytes(range(16, 32))
START = 1_700_000_000_000_000


class Log:
    """A log written by the drafts that sessions write with."""

    def __init__(self, uid: bytes = UID, digest: bytes | None = None, base: int = 0) -> None:
        self.row = SessionRow(
            key=1,
            uid=uid,
            app=None,
            id="s",
            user=None,
            base=base,
            seq=base,
            digest=genesis(uid) if digest is None else digest,
            created=START,
            active=START,
        )
        self.records: list[Record] = []
        self._salts = 0

    def draft(self, turn: int | None = None, group: int | None = None) -> Draft:
        """A draft that goes on where the log ends."""
        now = START + len(self.records) * 1_000_001
        return Draft(self.row, now=now, salt=self._salt, turn=turn, group=group)

    def apply(self, draft: Draft) -> Change:
        """Do what a store does."""
        change = draft.change()
        self.records += change.records
        self.row = change.after
        return change

    def say(self, *messages: Message) -> None:
        """Messages outside of a turn, in one commit."""
        group = self.records[-1].turn if self.row.open_calls else None
        draft = self.draft(group=group)
        for message in messages:
            draft.message(message)
        self.apply(draft)

    def note(self, kind: str, body: dict[str, object], turn: int | None = None) -> int:
        """One event."""
        draft = self.draft(turn)
        seq = draft.add(kind, body)
        self.apply(draft)
        return seq

    def _salt(self) -> bytes:
        self._salts += 1
        return self._salts.to_bytes(16, "big")


def erased(record: Record) -> Record:
    """The record without its body, as a store leaves it after erasure."""
    if record.body is None or record.salt is None:
        return record
    digest = body_digest(record.salt, record.body)
    return msgspec.structs.replace(record, body=None, salt=None, body_digest=digest)


def conversation() -> Log:
    """A log with messages, a tool call, state, and text in it that is hard to carry."""
    log = Log()
    log.note("session.created", {"metadata": {"project": "x"}})
    log.say(
        Message.system("Be brief."),
        Message.user('héllo \u2028 \x85 \\ " \n \N{GRINNING FACE}', metadata={"a": [1, 2.5, None]}),
    )
    log.say(
        Message.assistant(
            "", tool_calls=[{"id": "c1", "name": "find", "arguments": {"q": "x"}}], agent="router"
        )
    )
    log.say(Message.tool("42", "c1"), Message.assistant("It is 42."))
    log.note("state.set", {"scope": "session", "key": "n", "value": 42})
    return log
