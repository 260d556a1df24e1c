"""The ConversationRelay frames of Twilio and Telnyx, to and from events.

The carrier turns speech into text and text into speech, and opens one WebSocket a call. Its
frames are JSON objects. It has no frame for errors of its own: an ``error`` goes from the carrier
to the application only, and what is sent the other way counts as an invalid frame there. So a
frame that cannot be understood is an `InvalidFrame` here, for the session's log and hooks, and is
not answered on the wire.
"""

from __future__ import annotations

import json
import math
from typing import Any, Final

import msgspec

from tertulia.errors import InvalidFrame, InvalidInput
from tertulia.values import identifier
from tertulia.wire.carrier import (
    AppFrame,
    CarrierFrame,
    DtmfFrame,
    EndFrame,
    ErrorFrame,
    InterruptFrame,
    LanguageFrame,
    PlayFrame,
    PromptFrame,
    SendDigitsFrame,
    SetupFrame,
    TextFrame,
    decode_carrier,
    encode,
)
from tertulia.wire.events import (
    AgentErrorEvent,
    AgentSpeak,
    ConversationType,
    EndCall,
    LiveEvent,
    LLMRequest,
    PlayAudio,
    ResponseChunk,
    ResponseEnd,
    SendDigits,
    SessionContext,
    SetLanguage,
    SystemInit,
    TranscriptUpdate,
    TransferCall,
    UserInterrupt,
    UserJoined,
    UserPressedKey,
    UserStartedSpeaking,
    UserStoppedSpeaking,
)
from tertulia.wire.frames import MAX_FRAME

PREFIX: Final = "call-"
"""With what the session id of a call begins; the carrier's id of the call follows."""
BY_CARRIER: Final = {"spoken_by": "carrier"}
"""The metadata of an `AgentSpeak` that the carrier speaks by itself: its greeting."""


class Relay:
    """One call. `receive` makes events of the carrier's frames, `send` frames of events.

    After an error everything is as it was before. `call` is the frame that opened the call, None
    until then; `ended` says that the carrier was told to go on without us.
    """

    def __init__(self, limit: int = MAX_FRAME) -> None:
        self.limit = limit
        self.call: SetupFrame | None = None
        self.ended = False
        self._hearing = False
        self._speaking = False
        self._told = False

    def receive(self, data: bytes | str) -> list[LiveEvent]:
        """The events in a frame of the carrier.

        A setup gives `SystemInit` and `UserJoined`; what the caller said gives `TranscriptUpdate`
        and `LLMRequest`, with `UserStartedSpeaking` and `UserStoppedSpeaking` around where the
        carrier sends parts of it; a key gives `UserPressedKey`, an interruption `UserInterrupt`,
        which says what was heard where that was something that the agent said, not a recording.
        An error of the carrier gives `AgentErrorEvent`, a warning with the code
        ``carrier_error``. Raises InvalidFrame.
        """
        frame = self._decoded(data)
        match frame:
            case SetupFrame():
                return self._begun(frame, data)
            case PromptFrame():
                return self._said(frame)
            case DtmfFrame():
                return [UserPressedKey(digit=frame.digit)]
            case InterruptFrame():
                interrupt = _interrupted(frame, self._told)
                self._speaking = self._told = False
                return [interrupt]
            case ErrorFrame():
                return [_failed(frame)]

    def send(self, event: LiveEvent) -> str | None:
        """The frame that tells the carrier of an event; None where there is none.

        The end of an answer is told where the carrier waits for it: not of an answer without a
        text, and not after an interruption. Raises InvalidFrame for what cannot be sent.
        """
        if self.ended:
            return None
        if isinstance(event, AgentSpeak) and event.metadata == BY_CARRIER:
            self._told = True
            return None
        frame = self._frame(event)
        if frame is None:
            return None
        text = encode(frame)
        if isinstance(frame, TextFrame):
            self._speaking = not frame.last
            self._told = True
        elif isinstance(frame, PlayFrame):
            self._told = False
        self.ended = isinstance(frame, EndFrame)
        return text

    def _decoded(self, data: bytes | str) -> CarrierFrame:
        frame = decode_carrier(data, self.limit)
        if self.call is None and not isinstance(frame, SetupFrame):
            raise InvalidFrame(
                "the first frame of a call is setup; this one was ignored", code="no_setup"
            )
        if self.call is not None and isinstance(frame, SetupFrame):
            raise InvalidFrame(
                "the call is open already; a second setup was ignored", code="second_setup"
            )
        return frame

    def _begun(self, frame: SetupFrame, data: bytes | str) -> list[LiveEvent]:
        try:
            session_id = identifier(f"{PREFIX}{frame.call_id}", "the session id of the call")
            given = msgspec.json.decode(data)
        except (InvalidInput, msgspec.MsgspecError, RecursionError) as error:
            raise InvalidFrame(
                f"the frame setup does not validate: {error}", code="invalid_field"
            ) from None
        context = SessionContext(
            initial_variables=frame.custom_parameters or {},
            conversation_type=_conversation_type(frame),
            caller=_caller(frame, given),
        )
        self.call = frame
        return [SystemInit(session_id=session_id, session_context=context), UserJoined()]

    def _said(self, frame: PromptFrame) -> list[LiveEvent]:
        events: list[LiveEvent] = []
        if frame.last:
            if self._hearing:
                events.append(UserStoppedSpeaking())
            if frame.voice_prompt.strip():
                language = None if frame.lang is None else {"lang": frame.lang}
                said = TranscriptUpdate(role="user", content=frame.voice_prompt, metadata=language)
                events += [said, LLMRequest()]
        elif not self._hearing:
            events.append(UserStartedSpeaking())
        self._hearing = not frame.last
        return events

    def _frame(self, event: LiveEvent) -> AppFrame | None:
        match event:
            case ResponseChunk():
                return TextFrame(token=event.text, last=False) if event.text else None
            case ResponseEnd():
                return TextFrame(token="", last=True) if self._speaking else None
            case _:
                return _whole(event)


def _whole(event: LiveEvent) -> AppFrame | None:
    """The frame of an event that is not a part of an answer."""
    frame: AppFrame | None = None
    match event:
        case AgentSpeak() if event.text:
            frame = TextFrame(token=event.text, last=True)
        case PlayAudio():
            own = None if event.interruptible else False
            frame = PlayFrame(source=event.source, loop=event.loop, interruptible=own)
        case SendDigits():
            frame = SendDigitsFrame(digits=event.digits)
        case SetLanguage(tts_language=spoken, transcription_language=heard) if spoken or heard:
            frame = LanguageFrame(tts_language=spoken, transcription_language=heard)
        case EndCall():
            frame = EndFrame()
        case TransferCall():
            frame = EndFrame(handoff_data=_handoff(event))
        case _:
            pass
    return frame


def _conversation_type(frame: SetupFrame) -> ConversationType:
    outbound = (frame.direction or "").startswith("outbound")
    return "telephonyOutbound" if outbound else "telephonyInbound"


def _caller(frame: SetupFrame, given: dict[str, Any]) -> dict[str, Any]:
    """Who calls: the fields that every kind of session has, and the carrier's own."""
    taken = {"type", "from", "to", "direction", "callSid", "customParameters"}
    outbound = _conversation_type(frame) == "telephonyOutbound"
    user, agent = frame.from_number, frame.to_number
    return {
        **{name: value for name, value in given.items() if name not in taken},
        "user_number": agent if outbound else user,
        "agent_number": user if outbound else agent,
        "direction": "outbound" if outbound else "inbound",
        "call_id": frame.call_id,
    }


def _interrupted(frame: InterruptFrame, told: bool) -> UserInterrupt:
    took = frame.duration_until_interrupt_ms
    metadata = None if took is None or took == "" else {"duration_ms": _milliseconds(took)}
    return UserInterrupt(heard=frame.utterance_until_interrupt if told else None, metadata=metadata)


def _milliseconds(given: float | str) -> float:
    try:
        took = float(given)
    except ValueError:
        took = math.nan
    if not 0 <= took < math.inf:
        raise InvalidFrame(
            "the frame interrupt does not validate: durationUntilInterruptMs is no number of "
            "milliseconds",
            code="invalid_field",
        )
    return took


def _failed(frame: ErrorFrame) -> AgentErrorEvent:
    said = frame.description or "no description"
    return AgentErrorEvent(
        message=f"the carrier reports an error: {said}",
        severity="warning",
        payload={"code": "carrier_error", "description": frame.description},
    )


def _handoff(event: TransferCall) -> str:
    """What whoever takes over the call is told, as JSON."""
    options = msgspec.to_builtins(event.transfer_options)
    told = {
        "reason": "transfer",
        "transfer_call_number": event.transfer_call_number,
        "transfer_options": options,
        "on_hold_music": event.on_hold_music,
    }
    return json.dumps(told, ensure_ascii=True)
