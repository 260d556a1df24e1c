"""The events of a live session under the names of the other SDK, and what is in them.

The classes are our own, so that `isinstance` holds for what comes from the wire. A custom event
is a subclass with a type: ``class Card(SDKEvent, type="shop.card")``.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from tertulia.wire import events

SDKEvent = events.LiveEvent
SDKSystemEvent = events.SystemEvent
SDKAgentEvent = events.AgentEvent
SDKSystemInitEvent = events.SystemInit
SDKSystemUserJoinedEvent = events.UserJoined
SDKSystemUserStartedSpeakingEvent = events.UserStartedSpeaking
SDKSystemUserStoppedSpeakingEvent = events.UserStoppedSpeaking
SDKSystemLLMRequestEvent = events.LLMRequest
SDKSystemControlInterruptEvent = events.UserInterrupt
SDKSystemUpdateOutputAgentSettingsEvent = events.UpdateSettings
SDKAgentReadyEvent = events.AgentReady
SDKAgentErrorEvent = events.AgentErrorEvent
SDKAgentLLMResponseStartEvent = events.ResponseStart
SDKAgentLLMResponseChunkEvent = events.ResponseChunk
SDKAgentLLMResponseEndEvent = events.ResponseEnd
SDKAgentControlInterruptEvent = events.AgentInterrupt
SDKAgentControlMuteUserEvent = events.MuteUser
SDKAgentControlUnmuteUserEvent = events.UnmuteUser
SDKAgentTranscriptUpdateEvent = events.TranscriptUpdate
SDKAgentSpeakEvent = events.AgentSpeak
SDKAgentEndCallEvent = events.EndCall
SDKAgentTransferConversationEvent = events.TransferCall
SDKAgentLogEvent = events.AgentLog


class EventType(StrEnum):
    """The types of the SDK's own events."""

    BASE = "base"
    SYSTEM_BASE = "system.base"
    SYSTEM_INIT = "system.init"
    SYSTEM_LLM_REQUEST = "system.llm.request"
    SYSTEM_USER_STARTED_SPEAKING = "system.user.started_speaking"
    SYSTEM_USER_STOPPED_SPEAKING = "system.user.stopped_speaking"
    SYSTEM_CONTROL_INTERRUPT = "system.control.interrupt"
    SYSTEM_UPDATE_OUTPUT_AGENT_SETTINGS = "system.output_agent.update_settings"
    SYSTEM_USER_JOINED = "system.user.joined"
    AGENT_BASE = "agent.base"
    AGENT_READY = "agent.ready"
    AGENT_ERROR = "agent.error"
    AGENT_LLM_RESPONSE_START = "agent.llm.response.start"
    AGENT_LLM_RESPONSE_CHUNK = "agent.llm.response.chunk"
    AGENT_LLM_RESPONSE_END = "agent.llm.response.end"
    AGENT_CONTROL_INTERRUPT = "agent.control.interrupt"
    AGENT_CONTROL_MUTE_USER = "agent.control.mute_user"
    AGENT_CONTROL_UNMUTE_USER = "agent.control.unmute_user"
    AGENT_TRANSCRIPT_UPDATE = "agent.transcript.update"
    AGENT_SPEAK = "agent.speak"
    AGENT_END_CALL = "agent.end_call"
    AGENT_TRANSFER_CONVERSATION = "agent.transfer_call"
    AGENT_LOG = "agent.log"


class EventDirection(StrEnum):
    """Which way an event goes; nothing depends on it."""

    DOWNSTREAM = "downstream"
    UPSTREAM = "upstream"


class ConversationType(StrEnum):
    """How the user is connected."""

    TELEPHONY_INBOUND = "telephonyInbound"
    TELEPHONY_OUTBOUND = "telephonyOutbound"
    CHAT = "chat"
    WEBCALL = "webcall"
    SUPERVISOR_AGENT = "supervisor_agent"


class CallerContext:
    """Who calls: numbers, direction, id of the call, and whatever else the client says of it."""

    user_number: str | None = None
    agent_number: str | None = None
    direction: str | None = None
    call_id: str | None = None

    def __init__(self, **told: Any) -> None:
        self.__dict__.update(told)

    def __repr__(self) -> str:
        return f"CallerContext({', '.join(f'{k}={v!r}' for k, v in self.__dict__.items())})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CallerContext) and self.__dict__ == other.__dict__

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"the client told nothing of the caller's {name!r}")

    def model_dump(self) -> dict[str, Any]:
        """All that is known of the caller; what is not known of the four usual things is None."""
        usual = dict.fromkeys(("user_number", "agent_number", "direction", "call_id"))
        return {**usual, **self.__dict__}


class SessionContext(msgspec.Struct):
    """With what the client began: variables, the kind of conversation, and who calls.

    Raises ValueError for a kind of conversation that there is not.
    """

    initial_variables: dict[str, Any] = {}
    conversation_type: ConversationType | str = ConversationType.CHAT
    caller: CallerContext | None = None

    def __post_init__(self) -> None:
        self.conversation_type = ConversationType(self.conversation_type)


def context_of(told: events.SessionContext | SessionContext | None) -> SessionContext | None:
    """The context of an init event, with the SDK's classes in it."""
    if told is None or isinstance(told, SessionContext):
        return told
    caller = None if told.caller is None else CallerContext(**told.caller)
    return SessionContext(dict(told.initial_variables), told.conversation_type, caller)


class OutputAgentSettings:
    """The settings of a node that answers: `interruptible`, and whatever else is set."""

    def __init__(self, interruptible: bool = True, **others: Any) -> None:
        self.interruptible = interruptible
        self.__dict__.update(others)

    def __repr__(self) -> str:
        return f"OutputAgentSettings({', '.join(f'{k}={v!r}' for k, v in vars(self).items())})"


class TransferOptionType(StrEnum):
    """Whether the agent talks to who takes the call before it is handed over."""

    COLD_TRANSFER = "cold_transfer"
    WARM_TRANSFER = "warm_transfer"


class WarmTransferHandoffOptionType(StrEnum):
    """Whether a model makes up the words of a handoff, or they are said as they are."""

    PROMPT = "prompt"
    STATIC = "static"


class _HandoffOption(msgspec.Struct, frozen=True):
    type: WarmTransferHandoffOptionType | str
    prompt: str

    @property
    def kind(self) -> str:
        """The same as `type`."""
        return self.type


class WarmTransferPrivateHandoffOption(_HandoffOption, frozen=True):
    """What only who takes the call hears."""


class WarmTransferPublicHandoffOption(_HandoffOption, frozen=True):
    """What both sides hear."""


class TransferOption(msgspec.Struct, frozen=True):
    """How a call is transferred."""

    type: TransferOptionType | str = TransferOptionType.COLD_TRANSFER
    private_handoff_option: WarmTransferPrivateHandoffOption | None = None
    public_handoff_option: WarmTransferPublicHandoffOption | None = None

    @property
    def kind(self) -> str:
        """The same as `type`."""
        return self.type
