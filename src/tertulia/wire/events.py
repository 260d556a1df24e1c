"""The events of a live session: what client, nodes, hooks and server say to each other.

On the wire an event is one JSON object with its ``type`` and all its fields. Classes are frozen,
so that branches of a graph cannot disturb each other, and equal only to themselves: the same
event is the same object. Applications subclass `LiveEvent`, with a type of their own::

    class Card(LiveEvent, type="shop.card", kept=True):
        title: str
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, dataclass_transform

import msgspec
from msgspec.structs import force_setattr

from tertulia.errors import InvalidInput

Severity = Literal["warning", "fatal"]
Role = Literal["user", "assistant"]
ConversationType = Literal[
    "telephonyInbound", "telephonyOutbound", "chat", "webcall", "supervisor_agent"
]

_registry: dict[str, type[LiveEvent]] = {}
_decoder: list[msgspec.json.Decoder[LiveEvent]] = []
"""The decoder of all known types, until there is another one."""


@dataclass_transform(
    frozen_default=True, kw_only_default=True, eq_default=False, field_specifiers=(msgspec.field,)
)
class _EventMeta(msgspec.StructMeta):
    """Takes ``type=`` and ``kept=`` where a class of events is defined."""

    def __new__(
        mcs,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        type: str,  # noqa: A002 the name it has on the wire
        kept: bool = False,
        **config: Any,
    ) -> Any:
        _check_type(type, f"{namespace.get('__module__')}.{namespace.get('__qualname__')}")
        namespace = {**namespace, "type": type, "kept": kept}
        config.setdefault("kw_only", True)
        made: Any = super().__new__(
            mcs, name, bases, namespace, tag_field="type", tag=type, **config
        )
        _registry[type] = made
        _decoder.clear()
        return made


def _check_type(kind: Any, place: str) -> None:
    """Raise InvalidInput for a name that cannot be, or that another class has."""
    if not isinstance(kind, str) or not kind.isprintable() or not 0 < len(kind) <= 64:
        raise InvalidInput(f"the type of {place} is {kind!r}; it is printable text, 64 at most")
    known = _registry.get(kind)
    if known is not None and f"{known.__module__}.{known.__qualname__}" != place:
        raise InvalidInput(
            f"{place} has the type {kind!r}, which {known.__module__}.{known.__qualname__} has "
            "already; give it another one"
        )


class LiveEvent(
    msgspec.Struct,
    metaclass=_EventMeta,
    type="base",
    frozen=True,
    eq=False,
    weakref=True,
    kw_only=True,
):
    """The base of all events.

    ``id``, ``timestamp`` (ISO 8601, UTC), ``session_id`` and ``direction`` ("in": the client sent
    it; "out": it goes to the client) are filled in where the event enters a session. ``seq`` is
    its position in the durable log, None where the event is not ``kept`` there.
    """

    type: ClassVar[str]
    kept: ClassVar[bool]

    id: str | None = None
    timestamp: str | None = None
    session_id: str | None = None
    seq: int | None = None
    direction: str | None = None
    metadata: dict[str, Any] | None = None


class SystemEvent(LiveEvent, type="system.base"):
    """What the client's side says."""


class AgentEvent(LiveEvent, type="agent.base"):
    """What the agent's side says."""


# -- from the client


class SessionContext(msgspec.Struct, frozen=True):
    """With what a client begins: variables, the kind of conversation, and who calls."""

    initial_variables: dict[str, Any] = {}
    conversation_type: ConversationType = "chat"
    caller: dict[str, Any] | None = None


class SystemInit(SystemEvent, type="system.init"):
    """The first frame of a client.

    With ``session_id`` it comes back to a session, and with ``after`` it says up to which ``seq``
    it has seen the events.
    """

    version: str = "1"
    session_context: SessionContext | None = None
    output_agent_settings: dict[str, Any] | None = None
    session_id: str | None = None
    after: int | None = None
    token: str | None = None


class UserJoined(SystemEvent, type="system.user.joined"):
    """The user is there: the moment to greet."""


class UserStartedSpeaking(SystemEvent, type="system.user.started_speaking"):
    """The user began to speak."""


class UserStoppedSpeaking(SystemEvent, type="system.user.stopped_speaking"):
    """The user ended to speak."""


class UserPressedKey(SystemEvent, type="system.user.dtmf", kept=True):
    """The user pressed a key of a phone."""

    digit: str


class LLMRequest(SystemEvent, type="system.llm.request"):
    """The agent shall answer now."""

    messages: list[dict[str, Any]] | None = None
    extra_params: dict[str, Any] = {}


class UserInterrupt(SystemEvent, type="system.control.interrupt"):
    """The user interrupts: what is being generated stops.

    ``heard`` is what the user really heard of the answer, where the client knows.
    """

    heard: str | None = None


class UpdateSettings(SystemEvent, type="system.output_agent.update_settings"):
    """Settings of the node that answers change."""

    settings: dict[str, Any]


# -- from the agent


class AgentReady(AgentEvent, type="agent.ready"):
    """The session is open. ``received`` is the id of the client's newest event in the log.

    ``resume_for`` is for how many seconds the session waits for its client when it is lost.
    """

    resume_for: float = 0.0
    resumed: bool = False
    received: str | None = None


class AgentErrorEvent(AgentEvent, type="agent.error", kept=True):
    """Something went wrong. A fatal error ends the session, unless it says it has `recovered`."""

    message: str
    severity: Severity = "warning"
    payload: dict[str, Any] = {}


class ResponseStart(AgentEvent, type="agent.llm.response.start"):
    """An answer begins; ``resumed``: it began earlier, and its text so far follows."""

    request_id: str | None = None
    resumed: bool = False


class ResponseChunk(AgentEvent, type="agent.llm.response.chunk"):
    """A piece of an answer; ``offset`` is how many characters of the answer come before it."""

    text: str
    request_id: str | None = None
    offset: int | None = None


class ResponseEnd(AgentEvent, type="agent.llm.response.end"):
    """The answer is complete, or was interrupted; ``discarded``: it is no part of the history.

    ``seq`` is where it ended in the log.
    """

    request_id: str | None = None
    interrupted: bool = False
    discarded: bool = False


class AgentInterrupt(AgentEvent, type="agent.control.interrupt"):
    """The agent interrupts: the client stops playing what it got."""


class MuteUser(AgentEvent, type="agent.control.mute_user"):
    """The client stops to listen to the user."""


class UnmuteUser(AgentEvent, type="agent.control.unmute_user"):
    """The client listens to the user again."""


class TranscriptUpdate(AgentEvent, type="agent.transcript.update", kept=True):
    """What was said: by the user, or by the assistant as the user heard it."""

    role: Role
    content: str


class AgentSpeak(AgentEvent, type="agent.speak", kept=True):
    """A text that the agent says, whole."""

    text: str


class EndCall(AgentEvent, type="agent.end_call", kept=True):
    """The conversation ends."""


class HandoffOption(msgspec.Struct, frozen=True, rename={"kind": "type"}):
    """What is said to one side of a call that is transferred."""

    kind: Literal["prompt", "static"] = "static"
    prompt: str = ""


class TransferOptions(msgspec.Struct, frozen=True, rename={"kind": "type"}):
    """How a call is transferred."""

    kind: Literal["cold_transfer", "warm_transfer"] = "cold_transfer"
    private_handoff_option: HandoffOption | None = None
    public_handoff_option: HandoffOption | None = None


class TransferCall(AgentEvent, type="agent.transfer_call", kept=True):
    """The call is handed over to a phone number."""

    transfer_call_number: str
    transfer_options: TransferOptions = TransferOptions()
    on_hold_music: Literal["ringtone", "relaxing_sound", "uplifting_beats", "none"] | None = None


class AgentLog(AgentEvent, type="agent.log", kept=True):
    """A named note of the application, for the log and for the client."""

    name: str
    payload: dict[str, Any] = {}


class PlayAudio(AgentEvent, type="agent.play", kept=True):
    """The client plays a recording; ``loop`` is how many times, 0 without end."""

    source: str
    loop: int | None = None
    interruptible: bool = True


class SendDigits(AgentEvent, type="agent.send_digits", kept=True):
    """Keys of a phone are sent into the call."""

    digits: str


class SetLanguage(AgentEvent, type="agent.set_language", kept=True):
    """The languages in which the client speaks and listens, as BCP 47 tags."""

    tts_language: str | None = None
    transcription_language: str | None = None


OWN = tuple(_registry.values())
"""The classes of this module; what applications add is not among them."""


def event_types() -> dict[str, type[LiveEvent]]:
    """Every type of event that this process knows, with its class."""
    return dict(_registry)


def decoder() -> msgspec.json.Decoder[LiveEvent]:
    """What decodes an event of any known type."""
    if not _decoder:
        first, *others = _registry.values()
        union: Any = first
        for other in others:
            union = union | other
        _decoder.append(msgspec.json.Decoder(union))
    return _decoder[0]


def canonical(name: str) -> str:
    """The type that is meant by a name, which may have ``_`` for ``.`` as older pages print it."""
    if name in _registry:
        return name
    plain = name.replace("_", ".")
    return next((kind for kind in _registry if kind.replace("_", ".") == plain), name)


def fill(event: LiveEvent, name: str, value: Any) -> None:
    """Fill in a field of an event that nobody else has seen yet."""
    force_setattr(event, name, value)
