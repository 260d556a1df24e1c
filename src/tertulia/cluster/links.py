"""A link: what this worker and another have said to each other over one pipe, without a gap.

It makes of messages that may get lost a connection that is whole or over: frames are counted, so
a lost one ends it, and while it has channels both sides send a beat, so silence ends it too.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Protocol

from msgspec.structs import replace

from tertulia.cluster.channels import Channel
from tertulia.cluster.frames import Frame, Word, encode
from tertulia.cluster.lines import Ending, NotDelivered
from tertulia.doors import Outcome
from tertulia.errors import WorkerLost

BEAT = 0.5
"""Seconds between the beats of a link that has channels."""
SILENCE = 2.0
"""Seconds without a frame until the other side is lost."""
IDLE = 30.0
"""Seconds without a channel until whoever began a link of NATS lets it go."""
_BEAT = Frame(Word.BEAT)
_LATER_LIMIT = 20_000
"""Closes that may wait for room."""


def reset(sender: bytes, link: int) -> bytes:
    """The frame that says that a link is not known."""
    return encode(Frame(Word.RESET, sender=sender, link=link))


def _unserved(channel: int, reason: str) -> Frame:
    return Frame(Word.CLOSE, channel, text=reason, refused=True, unserved=True)


class Desk(Protocol):
    """What a link asks of its switchboard, with the link's lock held."""

    def refusal(self, kind: str) -> str | None:
        """Why a channel of a kind cannot be opened here; None where it can."""
        ...

    def begin(self, channel: Channel, kind: str, head: bytes) -> None:
        """Run the handler of a channel."""
        ...


class Link:
    """One link. `transmit` sends a frame and says whether it had room; its number comes with it
    where the link wants to know that nobody heard it, else 0."""

    def __init__(  # noqa: PLR0913 what it stands between
        self,
        me: bytes,
        peer: bytes,
        number: int,
        desk: Desk,
        transmit: Callable[[bytes, int], bool],
        on_lost: Callable[[Link], None],
        *,
        began: bool,
        idle: float | None = None,
    ) -> None:
        self.peer = peer
        self.number = number
        self.began = began
        """Whether this side began it."""
        self.lock = threading.Lock()
        self.channels: dict[int, Channel] = {}
        self.lost: str | None = None
        """Why it is over, once it is."""
        self._me = me
        self._desk = desk
        self._transmit = transmit
        self._on_lost = on_lost
        self._idle = idle
        self._sent = 0
        self._heard = 0
        self._heard_at: float | None = None
        self._quiet_since = monotonic()
        """Since when it has had no channel, or since when it has had one again."""
        self._next_channel = 1 if began else 2
        self._last_there = 0
        self._later: deque[Frame] = deque()
        self._overrun = False
        """Whether more closes wait than may."""
        self._owing: set[int] = set()
        self._awaited: Outcome[None] | None = None

    # -- for the switchboard

    @property
    def usable(self) -> bool:
        """Whether a channel may be opened on it."""
        with self.lock:
            return self.lost is None and not self._is_idle(monotonic())

    async def open(self, kind: str, head: bytes, until: float) -> Channel:
        """Open a channel. Raises NotDelivered and WorkerLost.

        Where nothing was heard of the other side lately it waits, until the time of `monotonic`
        at most, for a sign of life; the head is on its way meanwhile.
        """
        channel, awaited = self._new()
        try:
            await channel.put(head, kind=kind, answer=awaited is not None)
            if awaited is not None and not await awaited.within(until - monotonic()):
                raise WorkerLost(f"worker {self.peer.hex()} did not answer in time")
            channel.check_lost()
        except WorkerLost as error:
            channel.shut("nobody waits for it")
            if channel.undelivered:
                raise NotDelivered(str(error)) from None
            raise
        except BaseException:
            channel.shut("nobody waits for it")
            raise
        return channel

    def beat(self, now: float, *, late: bool) -> None:
        """Say that this side lives, and see whether the other does; `late` if it cannot tell."""
        with self.lock:
            owing, self._owing = self._owing, set()
            for number in owing:
                self.channels[number].pay()
            self._flush()
            heard = max(self._heard_at or 0.0, self._quiet_since)
            silent = bool(self.channels) and not late and now - heard >= SILENCE
            if self.channels and not silent and self.lost is None:
                self.say(_BEAT)
            idle = self._is_idle(now)
        if silent or self._overrun:
            why = f"has been silent for {SILENCE:g} s" if silent else "takes nothing any more"
            self.lose(f"worker {self.peer.hex()} {why}")
        elif idle:
            self.lose("nobody uses it")

    # -- for the pipe

    def heard(self, frame: Frame) -> None:
        """A frame came; called in the order of their coming, from one thread at a time."""
        if frame.word is Word.RESET:
            self.lose(f"worker {self.peer.hex()} does not know this link", tell=False)
            return
        with self.lock:
            if self.lost is not None or frame.number <= self._heard:
                return
            whole = frame.number == self._heard + 1
            if whole:
                self._heard = frame.number
                self._take(frame)
        if not whole:
            self.lose(f"messages of worker {self.peer.hex()} were lost")

    def lose(self, reason: str, *, tell: bool = True, undelivered: int | None = None) -> None:
        """End it and all its channels; from frame `undelivered` on the other side heard nothing."""
        with self.lock:
            if self.lost is not None:
                return
            if tell:
                self._transmit(reset(self._me, self.number), 0)
            self.lost = reason
            for channel in tuple(self.channels.values()):
                if undelivered is not None and (not channel.first or channel.first >= undelivered):
                    channel.undelivered = True
                channel.over(Ending(reason, lost=True))
            self.channels.clear()
            self._later.clear()
            self._owing.clear()
            self._answered()
        self._on_lost(self)

    # -- for its channels, with the lock held

    def say(self, frame: Frame) -> int:
        """Send a frame: its number; 0 where there is no room for it now."""
        number = self._sent + 1
        asks = number if frame.word in (Word.OPEN, Word.BEAT) else 0
        data = encode(replace(frame, sender=self._me, link=self.number, number=number))
        if self.lost is not None or not self._transmit(data, asks):
            return 0
        self._sent = number
        return number

    def say_later(self, frame: Frame) -> None:
        """Send a CLOSE as soon as there is room for it."""
        self._overrun = self._overrun or len(self._later) >= _LATER_LIMIT
        if not self._overrun:
            self._later.append(frame)
        self._flush()

    def owes(self, channel: int) -> None:
        """Have a channel try with the next beat to give room back."""
        self._owing.add(channel)

    def forget(self, channel: int) -> None:
        """A channel is over."""
        self._owing.discard(channel)
        if self.channels.pop(channel, None) is not None and not self.channels:
            self._quiet_since = monotonic()

    # -- inside, with the lock held but for `_new`

    def _new(self) -> tuple[Channel, Outcome[None] | None]:
        """A channel of this side, and the sign of life to wait for, if it is not known to live."""
        with self.lock:
            if self.lost is not None:
                raise NotDelivered(self.lost)
            now = monotonic()
            channel = Channel(self, self._next_channel, self.peer)
            self._next_channel += 2
            self._add(channel, now)
            if self._heard_at is not None and now - self._heard_at < SILENCE:
                return channel, None
            self._awaited = self._awaited or Outcome()
            return channel, self._awaited

    def _add(self, channel: Channel, now: float) -> None:
        if not self.channels:
            self._quiet_since = now
        self.channels[channel.number] = channel

    def _take(self, frame: Frame) -> None:
        self._heard_at = monotonic()
        self._answered()
        if frame.word is Word.OPEN:
            self._opened(frame)
        elif (channel := self.channels.get(frame.channel)) is not None:
            self._take_for(channel, frame)
        if frame.answer:
            self.say(_BEAT)

    def _take_for(self, channel: Channel, frame: Frame) -> None:
        match frame.word:
            case Word.DATA:
                channel.arrived(frame.data, more=frame.more)
            case Word.CREDIT:
                channel.granted(frame.size, frame.frames)
            case Word.END:
                channel.ended()
            case _:
                reason = frame.text if frame.refused else "the other side is done with it"
                channel.undelivered = frame.unserved
                channel.over(Ending(reason, done=not frame.refused))

    def _opened(self, frame: Frame) -> None:
        """The other side opened a channel."""
        number, kind = frame.channel, frame.text
        ours = number % 2 == (1 if self.began else 0)
        if ours or number <= self._last_there:
            self.say_later(_unserved(number, "its number is not a new one"))
            return
        self._last_there = number
        refusal = self._desk.refusal(kind)
        if refusal is not None:
            self.say_later(_unserved(number, refusal))
            return
        channel = Channel(self, number, self.peer)
        channel.on_head = lambda head: self._desk.begin(channel, kind, head)
        self._add(channel, monotonic())
        channel.arrived(frame.data, more=frame.more)

    def _answered(self) -> None:
        if self._awaited is not None:
            self._awaited.set_result(None)
            self._awaited = None

    def _flush(self) -> None:
        """Send the closes that wait."""
        while self._later and self.say(self._later[0]):
            self._later.popleft()

    def _is_idle(self, now: float) -> bool:
        if self._idle is None or self.channels:
            return False
        return now - max(self._quiet_since, self._heard_at or 0.0) >= self._idle
