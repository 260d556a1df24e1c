"""One channel: an ordered stream of messages each way, with no more ahead than its window."""

from __future__ import annotations

from collections.abc import Callable

from tertulia.cluster.frames import Frame, Word, split
from tertulia.cluster.lines import Ending, Line, Turnstile, check_size
from tertulia.cluster.windows import Arrivals, Room
from tertulia.doors import Outcome
from tertulia.errors import UsageError

PAUSE = 0.005
"""Seconds until a frame is tried again that the pipe had no room for."""


class Channel:
    """An ordered stream of messages to a worker and back; any thread or loop may use it.

    Whoever opened it closes it; a handler's is closed when the handler returns. What was received
    before the end is handed out before the end is told.
    """

    def __init__(self, line: Line, number: int, peer: bytes) -> None:
        self.peer = peer
        """The worker at the other side."""
        self.number = number
        self.first = 0
        """The number of the frame that opened it."""
        self.undelivered = False
        """Whether it is known that no handler began: the other side never heard of the channel, or
        refused it. Then it may be opened again elsewhere without asking what was done."""
        self.on_head: Callable[[bytes], None] | None = None
        """Told the head once it is whole."""
        self.on_over: Callable[[], None] | None = None
        """Told when the other side has closed the channel or was lost, with the lock held."""
        self._line = line
        self._lock = line.lock
        self._room = Room()
        self._arrivals = Arrivals()
        self._over: Ending | None = None
        self._ended = False
        self._ended_there = False
        self._senders = Turnstile(line.lock)
        self._made_room: Outcome[None] | None = None
        self._news: Outcome[None] | None = None

    # -- for whoever uses it

    async def send(self, data: bytes) -> None:
        """Send one message of at most 4 MB; waits while the other side has no room for it.

        It returns when the message is on its way, which does not say that it was received. Who is
        cancelled after a part of it went out has closed the channel.
        Raises InvalidInput for larger data, UsageError after `end`, ChannelClosed and WorkerLost.
        """
        check_size(data)
        await self.put(bytes(data))

    async def receive(self) -> bytes | None:
        """The next message, as it was sent; None where the other side has ended it.

        Raises WorkerLost, and ChannelClosed where the other side refused the channel, its handler
        failed (then `reason` is the type of its error), or this side closed it.
        """
        while True:
            with self._lock:
                data = self._arrivals.take()
                if data is not None:
                    self.pay()
                    return data
                if self._ended_there or (self._over is not None and self._over.done):
                    return None
                self._check()
                news = self._news = self._news or Outcome()
            await news

    async def end(self) -> None:
        """Say that nothing more is sent from here; the other direction goes on.

        Raises ChannelClosed and WorkerLost.
        """
        await self._senders.enter()
        try:
            while not self._say_end():
                await Outcome[None]().within(PAUSE)
        finally:
            self._senders.leave()

    async def close(self) -> None:
        """End both directions at once; the handler of the other side is cancelled.

        What was sent just before may not be read there. More than once is the same as once.
        """
        self.shut("the other side closed the channel")

    # -- for the switchboard

    async def put(self, data: bytes, *, kind: str | None = None, answer: bool = False) -> None:
        """Send a message; with a kind it is the head that opens the channel."""
        await self._senders.enter()
        parts, sent = split(data), 0
        try:
            for sent, part in enumerate(parts):
                opens = kind if sent == 0 else None
                await self._put(
                    part, opens, more=sent + 1 < len(parts), answer=answer and sent == 0
                )
        except BaseException:
            if sent:
                self.shut("the sender was cancelled", refused=True)
            raise
        finally:
            self._senders.leave()

    def shut(self, reason: str, *, refused: bool = False) -> None:
        """Close it from here; the other side is told why if it is refused."""
        with self._lock:
            if self._over is not None:
                return
            if not (self._ended and self._ended_there):
                self._line.say_later(Frame(Word.CLOSE, self.number, text=reason, refused=refused))
            self._arrivals.clear()
            self._finish(Ending("this side has closed it"))

    def check_lost(self) -> None:
        """Raises WorkerLost where the other side is lost."""
        with self._lock:
            if self._over is not None and self._over.lost:
                self._check()

    # -- for the link, with the lock held

    def arrived(self, part: bytes, *, more: bool) -> None:
        """A part of a message came."""
        if self._ended_there or not self._arrivals.add(part, more=more):
            refusal = Frame(Word.CLOSE, self.number, text="it sent more than it may", refused=True)
            self._line.say_later(refusal)
            self.over(Ending("the other side sent more than it may"))
        elif not more:
            if self.on_head is not None:
                self._take_head(self.on_head)
            self._tell()
        self.pay()

    def granted(self, size: int, frames: int) -> None:
        """The other side has room for so much more."""
        self._room.give(size, frames)
        self._tell_room()

    def ended(self) -> None:
        """The other side sends no more."""
        self._ended_there = True
        if self._ended:
            self._line.forget(self.number)
        self._tell()

    def over(self, ending: Ending) -> None:
        """The other side closed it, or is lost."""
        if self._over is None:
            self._finish(ending)
            if self.on_over is not None:
                self.on_over()

    def pay(self) -> None:
        """Give back the room that is due."""
        due = self._arrivals.due()
        if due is None or self._over is not None:
            return
        credit = Frame(Word.CREDIT, self.number, size=due.size, frames=due.frames)
        if self._line.say(credit):
            self._arrivals.paid()
        else:
            self._line.owes(self.number)

    # -- inside

    def _take_head(self, taken: Callable[[bytes], None]) -> None:
        self.on_head = None
        head = self._arrivals.take()
        if head is not None:
            taken(head)

    async def _put(self, part: bytes, kind: str | None, *, more: bool, answer: bool) -> None:
        """Send one part as soon as there is room for it."""
        while True:
            with self._lock:
                self._check_open()
                wait = None
                if not self._room.fits(len(part)):
                    wait = self._made_room = self._made_room or Outcome()
                elif self._say_part(part, kind, more=more, answer=answer):
                    return
            if wait is None:
                await Outcome[None]().within(PAUSE)
            else:
                await wait

    def _say_part(self, part: bytes, kind: str | None, *, more: bool, answer: bool) -> bool:
        word = Word.DATA if kind is None else Word.OPEN
        number = self._line.say(
            Frame(word, self.number, part, text=kind or "", more=more, answer=answer)
        )
        self.first = self.first or number
        if number:
            self._room.take(len(part))
        return number != 0

    def _say_end(self) -> bool:
        with self._lock:
            if self._ended:
                return True
            self._check()
            if not self._line.say(Frame(Word.END, self.number)):
                return False
            self._ended = True
            if self._ended_there:
                self._line.forget(self.number)
            return True

    def _check_open(self) -> None:
        if self._ended:
            raise UsageError("end() has said that nothing more is sent; send before it")
        self._check()

    def _check(self) -> None:
        if self._over is not None:
            raise self._over.error()

    def _finish(self, ending: Ending) -> None:
        self._over = ending
        self._line.forget(self.number)
        self._tell()
        self._tell_room()

    def _tell(self) -> None:
        if self._news is not None:
            self._news.set_result(None)
            self._news = None

    def _tell_room(self) -> None:
        if self._made_room is not None:
            self._made_room.set_result(None)
            self._made_room = None
