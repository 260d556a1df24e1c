"""The services behind client sessions: one live instance of each, and a door that logs."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterable
from typing import Any

from tertulia import events
from tertulia.bus import Bus
from tertulia.conversation import Conversation, How
from tertulia.doors import current_loop
from tertulia.errors import (
    AgentError,
    ClientDisposed,
    ConfigurationError,
    InvalidInput,
    UnknownName,
)
from tertulia.handle import MessageLike, conversation_of
from tertulia.host import Host
from tertulia.messages import Message
from tertulia.opening import Opening
from tertulia.policies import Ban
from tertulia.session import Session
from tertulia.swarm.answer import Answer
from tertulia.swarm.client import ClientSession, Mode, named
from tertulia.swarm.connecting import Connector, Send
from tertulia.swarm.counter import Counter
from tertulia.swarm.feed import Feed
from tertulia.swarm.guard import note_beside
from tertulia.swarm.parcels import KIND
from tertulia.swarm.swarm import Swarm
from tertulia.swarm.verdicts import ban_event, ban_told

_log = logging.getLogger("tertulia.swarm")
_NOTING = How(suspended="keep", timeout=5.0)


class SessionConnectionService:
    """Keeps one live `ClientSession` for each client and swarm, until it is disposed."""

    def __init__(self, host: Host, bus: Bus, swarms: Iterable[Swarm]) -> None:
        self.host = host
        self._bus = bus
        self.swarms: dict[str, Swarm] = {}
        self._lock = threading.Lock()
        self._live: dict[tuple[str, str], ClientSession] = {}
        self._beside: dict[tuple[str, str, str | None, str], ClientSession] = {}
        """Those whose conversation is another one than that of the client's live instance."""
        self._unwatched: list[ClientSession] = []
        """Those that were made where no event loop ran, which would let them go when idle."""
        for swarm in swarms:
            self._take(swarm)
        for swarm in self.swarms.values():
            swarm.join(self)
        if host.cluster is not None:
            host.cluster.serve(KIND, Counter(self).serve)

    def add(self, swarm: Swarm) -> None:
        """Serve one more swarm; one that is served already is no error.

        Raises InvalidInput, and ConfigurationError for the name of another swarm.
        """
        with self._lock:
            if self.swarms.get(getattr(swarm, "name", "")) is swarm:
                return
            self._take(swarm)
            swarm.join(self)

    def _take(self, swarm: Swarm) -> None:
        if not isinstance(swarm, Swarm):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidInput(f"{swarm!r} is no swarm; pass Swarm(…)")
        if swarm.name in self.swarms:
            raise ConfigurationError(
                f"two swarms are named {swarm.name!r}; give each a name of its own, and make a "
                "swarm once for all of its clients"
            )
        for other in self.swarms.values():
            if other.app_name == swarm.app_name:
                raise ConfigurationError(
                    f"the swarms {other.name!r} and {swarm.name!r} have the same "
                    f"app_name={swarm.app_name!r}, so their clients would share conversations; "
                    "leave it out of one of them"
                )
        self.swarms[swarm.name] = swarm

    def swarm(self, name: str | Swarm) -> Swarm:
        """The swarm of a name. Raises UnknownName."""
        wanted = name.name if isinstance(name, Swarm) else name
        found = self.swarms.get(wanted)
        if found is not None and isinstance(name, Swarm) and found is not name:
            raise UnknownName(
                f"the swarm {wanted!r} of this runtime is another object; make a swarm once, and "
                "pass that one or its name"
            )
        if found is None:
            there = ", ".join(self.swarms) or "none"
            raise UnknownName(
                f"there is no swarm {wanted!r} here; Runtime(swarms=[…]) was given: {there}"
            )
        return found

    def get(
        self, client_id: str, swarm: str | Swarm, session: Session | None = None
    ) -> ClientSession:
        """The live instance of a client in a swarm, made at its first use.

        `session` is a conversation for it other than its own; where the live instance has another
        one already, this one gets an instance beside it, so that no two conversations are mixed.
        Raises UnknownName, InvalidInput.
        """
        wanted = None if session is None else session._conversation  # pyright: ignore[reportPrivateUsage]
        return self._instance(self.swarm(swarm), client_id, session, wanted)

    def own(self, client_id: str, swarm: str | Swarm) -> ClientSession:
        """The live instance of a client on its own durable conversation, made at its first use;
        never that of a live session on another one. Raises UnknownName, InvalidInput.
        """
        found = self.swarm(swarm)
        wanted = conversation_of(self.host, found.app_name, named(client_id))
        return self._instance(found, client_id, None, wanted)

    def _instance(
        self, swarm: Swarm, client_id: str, session: Session | None, wanted: Conversation | None
    ) -> ClientSession:
        """The instance on the conversation that is wanted; None is any."""
        key = named(client_id), swarm.name
        with self._lock:
            self._watch()
            client = self._live.get(key)
            if client is None:
                client = self._live[key] = self._made(swarm, client_id, session)
            elif wanted is not None and client.session._conversation is not wanted:  # pyright: ignore[reportPrivateUsage]
                other = (*key, wanted.app, wanted.id)
                client = self._beside.get(other)
                if client is None:
                    client = self._beside[other] = self._made(swarm, client_id, session)
        return client

    def _made(self, swarm: Swarm, client_id: str, session: Session | None) -> ClientSession:
        client = ClientSession(
            swarm, client_id, self.host, self._bus, forget=self._forget, session=session
        )
        if current_loop() is None:
            self._unwatched.append(client)
        return client

    def _watch(self) -> None:
        """Let a loop look after those that were made where none ran."""
        while self._unwatched and current_loop() is not None:
            self._unwatched.pop()._desk.life.watch()  # pyright: ignore[reportPrivateUsage]

    def find(self, client_id: str, swarm: str | Swarm) -> ClientSession | None:
        """The live instance, if there is one. Raises UnknownName."""
        return self._live.get((client_id, self.swarm(swarm).name))

    def live(self) -> list[ClientSession]:
        """All live instances."""
        with self._lock:
            return [*self._live.values(), *self._beside.values()]

    async def close(self) -> None:
        """Dispose all of them, and leave the swarms."""
        for client in self.live():
            client._desk.life.closed = True  # pyright: ignore[reportPrivateUsage]
        ending = [client.dispose() for client in self.live()]
        if current_loop() is None:
            for each in ending:
                await each
        else:
            await asyncio.gather(*ending)
        for swarm in self.swarms.values():
            swarm.leave(self)

    def _forget(self, client: ClientSession) -> None:
        key = (client.client_id, client.swarm.name)
        with self._lock:
            if self._live.get(key) is client:
                del self._live[key]
            other = (*key, client.session.app_name, client.session.id)
            if self._beside.get(other) is client:
                del self._beside[other]

    async def banned(self, swarm: Swarm, kind: str, client_id: str, ban: Ban) -> None:
        """Tell the bus and the client's log of a ban, or of its end; make no session for it.

        It stands already: that the log could not be told is only noted in the log of the process.
        """
        self._bus.publish(ban_event(Feed(self._bus, client_id, swarm.name), kind, ban))
        live = self._live.get((client_id, swarm.name))
        if live is not None:
            conversation = live.session._conversation  # pyright: ignore[reportPrivateUsage]
        else:
            conversation = conversation_of(self.host, swarm.app_name, client_id)
        noted = events.POLICY_BANNED if kind == "ban-client" else events.POLICY_UNBANNED
        try:
            row = await conversation.row()
            if row is not None and row.status == "open":
                await note_beside(conversation, Opening(), [(noted, ban_told(ban))], _NOTING)
        except AgentError as error:
            _log.warning(
                "the %s of client %r is not in the log of its session: %s",
                kind,
                client_id,
                type(error).__name__,
            )


class SessionPublicService:
    """The outer door to client sessions: it validates, logs and hands on.

    `runtime` is one with swarms. Of what clients say and are told nothing goes into the log.
    """

    def __init__(self, runtime: Any) -> None:
        self._service: SessionConnectionService = runtime.clients

    async def execute(
        self, message: str | MessageLike, mode: Mode, client_id: str, swarm: str, **options: Any
    ) -> Answer:
        """As `ClientSession.execute`; `mode`, which comes before the client here, must be given."""
        return await self._client("execute", client_id, swarm).execute(message, mode, **options)

    async def emit(self, text: str, client_id: str, swarm: str) -> Answer:
        """As `ClientSession.emit`."""
        return await self._client("emit", client_id, swarm).emit(text)

    async def notify(self, text: str, client_id: str, swarm: str) -> Answer:
        """As `ClientSession.notify`."""
        return await self._client("notify", client_id, swarm).notify(text)

    def connect(self, connector: Connector, client_id: str, swarm: str) -> Send:
        """As `ClientSession.connect`."""
        return self._client("connect", client_id, swarm).connect(connector)

    async def commit_user_message(
        self, text: str, mode: Mode, client_id: str, swarm: str
    ) -> Message:
        """As `ClientSession.commit_user_message`."""
        client = self._client("commit_user_message", client_id, swarm)
        return await client.commit_user_message(text, mode)

    async def commit_assistant_message(self, text: str, client_id: str, swarm: str) -> Message:
        """As `ClientSession.commit_assistant_message`."""
        client = self._client("commit_assistant_message", client_id, swarm)
        return await client.commit_assistant_message(text)

    async def commit_system_message(self, text: str, client_id: str, swarm: str) -> Message:
        """As `ClientSession.commit_system_message`."""
        client = self._client("commit_system_message", client_id, swarm)
        return await client.commit_system_message(text)

    async def commit_tool_output(
        self, call_id: str, content: str, client_id: str, swarm: str
    ) -> Message:
        """As `ClientSession.commit_tool_output`."""
        client = self._client("commit_tool_output", client_id, swarm)
        return await client.commit_tool_output(call_id, content)

    async def commit_flush(self, client_id: str, swarm: str) -> None:
        """As `ClientSession.commit_flush`."""
        await self._client("commit_flush", client_id, swarm).commit_flush()

    async def cancel(self, client_id: str, swarm: str) -> bool:
        """As `ClientSession.cancel`."""
        return await self._live("cancel", client_id, swarm).cancel()

    async def dispose(self, client_id: str, swarm: str) -> None:
        """As `ClientSession.dispose`. Raises ClientDisposed where none lives."""
        await self._live("dispose", client_id, swarm).dispose()

    def _client(self, what: str, client_id: str, swarm: str) -> ClientSession:
        _log.info("%s: client %r, swarm %r", what, client_id, swarm)
        return self._service.get(client_id, swarm)

    def _live(self, what: str, client_id: str, swarm: str) -> ClientSession:
        _log.info("%s: client %r, swarm %r", what, client_id, swarm)
        found = self._service.find(client_id, swarm)
        if found is None:
            raise ClientDisposed(f"no session of client {client_id!r} lives in swarm {swarm!r}")
        return found
