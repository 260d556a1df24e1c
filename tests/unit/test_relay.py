"""A phone call's frames, to and from events: what is published, what is broken, and anything."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tertulia.errors import InvalidFrame
from tertulia.wire.carrier import LanguageFrame, SetupFrame, decode_app, encode
from tertulia.wire.events import (
    OWN,
    AgentErrorEvent,
    AgentLog,
    AgentReady,
    AgentSpeak,
    EndCall,
    HandoffOption,
    LiveEvent,
    LLMRequest,
    MuteUser,
    PlayAudio,
    ResponseChunk,
    ResponseEnd,
    ResponseStart,
    SendDigits,
    SetLanguage,
    SystemInit,
    TranscriptUpdate,
    TransferCall,
    TransferOptions,
    UserInterrupt,
    UserJoined,
    UserPressedKey,
    UserStartedSpeaking,
    UserStoppedSpeaking,
)
from tertulia.wire.relay import BY_CARRIER, Relay

TWILIO = {
    "type": "setup",
    "sessionId": "VX00000000000000000000000000000000",
    "accountSid": "AC00000000000000000000000000000000",
    "parentCallSid": "",
    "callSid": "CA00000000000000000000000000000001",
    "from": "+15550100",
    "to": "+15550101",
    "forwardedFrom": "+15550102",
    "callType": "PSTN",
    "callerName": "",
    "direction": "inbound",
    "callStatus": "RINGING",
    "customParameters": {"shop": "Lisbon"},
}
TELNYX = {
    "type": "setup",
    "sessionId": "7a7e6a4f-1d44-4f0c-b5d4-9f9bf3a5c1f2",
    "callSid": "v2:T02llQxIyaRkhfRKxgAP8nY511EhFLizdvdUKJiSw8d6A9BborherQ",
    "callControlId": "v2:T02llQxIyaRkhfRKxgAP8nY511EhFLizdvdUKJiSw8d6A9BborherQ",
    "from": "+15550100",
    "to": "+15550101",
    "direction": "outbound",
    "callStatus": "active",
}


def open_relay(**changes: Any) -> Relay:
    relay = Relay()
    relay.receive(json.dumps({**TWILIO, **changes}))
    return relay


def received(relay: Relay, **frame: Any) -> list[LiveEvent]:
    return relay.receive(json.dumps(frame))


def kinds(events: Iterable[LiveEvent]) -> list[type]:
    return [type(event) for event in events]


def sent(relay: Relay, event: LiveEvent) -> Any:
    frame = relay.send(event)
    return None if frame is None else json.loads(frame)


# -- a call begins


def test_a_setup_opens_a_session_of_the_calls_own_and_the_user_joins() -> None:
    init, joined = Relay().receive(json.dumps(TWILIO))
    assert isinstance(init, SystemInit)
    assert isinstance(joined, UserJoined)
    assert init.session_id == "call-CA00000000000000000000000000000001"
    assert init.session_context is not None
    assert init.session_context.conversation_type == "telephonyInbound"
    assert init.session_context.initial_variables == {"shop": "Lisbon"}
    assert init.session_context.caller == {
        "user_number": "+15550100",
        "agent_number": "+15550101",
        "direction": "inbound",
        "call_id": "CA00000000000000000000000000000001",
        "sessionId": "VX00000000000000000000000000000000",
        "accountSid": "AC00000000000000000000000000000000",
        "parentCallSid": "",
        "forwardedFrom": "+15550102",
        "callType": "PSTN",
        "callerName": "",
        "callStatus": "RINGING",
    }


@pytest.mark.parametrize("direction", ["outbound", "outbound-api", "outbound-dial"])
def test_in_a_call_that_we_made_the_user_is_who_was_called(direction: str) -> None:
    init = Relay().receive(json.dumps({**TELNYX, "direction": direction}))[0]
    assert isinstance(init, SystemInit)
    assert init.session_context is not None
    assert init.session_context.conversation_type == "telephonyOutbound"
    assert init.session_context.initial_variables == {}
    caller = init.session_context.caller
    assert caller is not None
    assert (caller["user_number"], caller["agent_number"]) == ("+15550101", "+15550100")
    assert caller["direction"] == "outbound"
    assert caller["callControlId"] == TELNYX["callControlId"]


def test_a_setup_may_come_as_bytes_and_have_nulls() -> None:
    relay = Relay()
    relay.receive(b'{"type": "setup", "callSid": "CA1", "from": null, "customParameters": null}')
    assert relay.call == SetupFrame(call_id="CA1")


@pytest.mark.parametrize(
    "changes",
    [
        {"callSid": ""},
        {"callSid": None},
        {"callSid": 7},
        {"callSid": "a\nb"},
        {"callSid": "a" * 600},
        {"customParameters": []},
        {"from": {}},
        {"customParameters": json.loads("[" * 500 + "]" * 500)},
    ],
)
def test_a_setup_that_does_not_validate_opens_nothing_and_a_good_one_then_does(
    changes: dict[str, Any],
) -> None:
    relay = Relay()
    with pytest.raises(InvalidFrame) as raised:
        relay.receive(json.dumps({**TWILIO, **changes}))
    assert raised.value.code == "invalid_field"
    assert relay.call is None
    assert kinds(relay.receive(json.dumps(TWILIO))) == [SystemInit, UserJoined]


def test_a_setup_that_is_nested_without_end_is_refused() -> None:
    deep = '{"type": "setup", "callSid": "CA1", "new": ' + "[" * 50_000 + "]" * 50_000 + "}"
    with pytest.raises(InvalidFrame):
        Relay().receive(deep)


def test_a_frame_before_the_setup_and_a_second_setup_are_refused() -> None:
    relay = Relay()
    with pytest.raises(InvalidFrame, match="first frame") as raised:
        received(relay, type="prompt", voicePrompt="Hello?", last=True)
    assert raised.value.code == "no_setup"
    relay.receive(json.dumps(TWILIO))
    with pytest.raises(InvalidFrame, match="second setup") as raised:
        relay.receive(json.dumps({**TWILIO, "callSid": "CA2"}))
    assert raised.value.code == "second_setup"
    assert relay.call is not None
    assert relay.call.call_id == TWILIO["callSid"]


# -- the caller speaks, presses keys, interrupts


def test_what_was_said_is_a_transcript_and_then_a_request() -> None:
    said, request = received(
        open_relay(), type="prompt", voicePrompt="Olá!", lang="pt-PT", last=True
    )
    assert isinstance(said, TranscriptUpdate)
    assert (said.role, said.content, said.metadata) == ("user", "Olá!", {"lang": "pt-PT"})
    assert isinstance(request, LLMRequest)


def test_a_prompt_without_last_is_whole() -> None:
    assert kinds(received(open_relay(), type="prompt", voicePrompt="Hi")) == [
        TranscriptUpdate,
        LLMRequest,
    ]


def test_parts_of_what_is_said_are_one_start_of_speaking_an_utterance() -> None:
    relay = open_relay()
    for _ in range(2):
        assert kinds(received(relay, type="prompt", voicePrompt="I", last=False)) == [
            UserStartedSpeaking
        ]
        assert received(relay, type="prompt", voicePrompt="I wo", last=False) == []
        assert kinds(received(relay, type="prompt", voicePrompt="I won", last=True)) == [
            UserStoppedSpeaking,
            TranscriptUpdate,
            LLMRequest,
        ]


def test_when_nothing_was_understood_nobody_is_asked_to_answer() -> None:
    relay = open_relay()
    assert received(relay, type="prompt", voicePrompt=" ", last=True) == []
    received(relay, type="prompt", voicePrompt="m", last=False)
    assert kinds(received(relay, type="prompt", voicePrompt="", last=True)) == [UserStoppedSpeaking]


def test_a_key_is_a_key() -> None:
    [pressed] = received(open_relay(), type="dtmf", digit="#")
    assert isinstance(pressed, UserPressedKey)
    assert pressed.digit == "#"


@pytest.mark.parametrize("took", [460, 460.0, "460"])
def test_an_interruption_says_what_was_heard_and_how_long_it_took(took: object) -> None:
    relay = open_relay()
    relay.send(ResponseChunk(text="Life is a complex set of"))
    [interrupt] = received(
        relay,
        type="interrupt",
        utteranceUntilInterrupt="Life is a",
        durationUntilInterruptMs=took,
    )
    assert isinstance(interrupt, UserInterrupt)
    assert interrupt.heard == "Life is a"
    assert interrupt.metadata == {"duration_ms": 460}


def interrupted(relay: Relay, heard: str | None = None) -> str | None:
    frame = {} if heard is None else {"utteranceUntilInterrupt": heard}
    [interrupt] = received(relay, type="interrupt", durationUntilInterruptMs="", **frame)
    assert isinstance(interrupt, UserInterrupt)
    assert interrupt.metadata is None
    return interrupt.heard


def test_an_interruption_that_does_not_say_what_was_heard_is_one_too() -> None:
    relay = open_relay()
    relay.send(AgentSpeak(text="Hello"))
    assert interrupted(relay) is None


def test_an_interruption_before_the_first_word_heard_nothing_of_it() -> None:
    relay = open_relay()
    relay.send(AgentSpeak(text="Hello"))
    assert interrupted(relay, "") == ""


def test_what_was_heard_is_not_said_of_an_answer_that_was_not_being_spoken() -> None:
    relay = open_relay()
    assert interrupted(relay, "a greeting of the carrier's") is None
    relay.send(ResponseChunk(text="Hello"))
    relay.send(ResponseEnd())
    assert interrupted(relay, "He") == "He"
    assert interrupted(relay, "") is None
    relay.send(AgentSpeak(text="Music:"))
    relay.send(PlayAudio(source="https://a/b.mp3"))
    assert interrupted(relay, "") is None


def test_a_greeting_that_the_carrier_speaks_is_not_sent_but_can_be_interrupted() -> None:
    relay = open_relay()
    assert sent(relay, AgentSpeak(text="Welcome!", metadata=BY_CARRIER)) is None
    assert interrupted(relay, "Welc") == "Welc"


def test_an_error_of_the_carrier_is_a_warning() -> None:
    [error] = received(open_relay(), type="error", description="Invalid message: foo")
    assert isinstance(error, AgentErrorEvent)
    assert (error.severity, error.payload["code"]) == ("warning", "carrier_error")
    assert "Invalid message: foo" in error.message


# -- frames that are broken


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ("{", "bad_json"),
        ("", "bad_json"),
        (b"\xff\xfe", "bad_json"),
        ("\ud800", "bad_json"),
        ("[" * 5_000, "bad_json"),
        ("[]", "bad_json"),
        ("null", "bad_json"),
        ("{}", "no_type"),
        ('{"type": 7}', "no_type"),
        ('{"type": "media"}', "unknown_type"),
        ('{"type": "text", "token": "ours", "last": true}', "unknown_type"),
        ('{"type": "prompt"}', "invalid_field"),
        ('{"type": "prompt", "voicePrompt": 5}', "invalid_field"),
        ('{"type": "prompt", "voicePrompt": "a", "last": "true"}', "invalid_field"),
        ('{"type": "dtmf", "digit": "x"}', "invalid_field"),
        ('{"type": "dtmf", "digit": ""}', "invalid_field"),
        ('{"type": "interrupt", "utteranceUntilInterrupt": 3}', "invalid_field"),
        ('{"type": "interrupt", "durationUntilInterruptMs": "soon"}', "invalid_field"),
        ('{"type": "interrupt", "durationUntilInterruptMs": "nan"}', "invalid_field"),
        ('{"type": "interrupt", "durationUntilInterruptMs": -1}', "invalid_field"),
        ('{"type": "error", "description": []}', "invalid_field"),
        (json.dumps({"type": "dtmf", "digit": "1", "more": "x" * 300_000}), "too_large"),
    ],
)
def test_a_broken_frame_says_what_is_wrong_and_changes_nothing(
    data: bytes | str, code: str
) -> None:
    relay = open_relay()
    received(relay, type="prompt", voicePrompt="I", last=False)
    relay.send(ResponseChunk(text="Hm"))
    before = dict(vars(relay))
    with pytest.raises(InvalidFrame) as raised:
        relay.receive(data)
    assert raised.value.code == code
    assert vars(relay) == before


def test_a_long_type_that_is_not_known_is_not_repeated_whole() -> None:
    with pytest.raises(InvalidFrame) as raised:
        received(open_relay(), type="x" * 10_000)
    assert len(str(raised.value)) < 200


def test_fields_that_we_do_not_know_are_passed_over() -> None:
    [pressed] = received(open_relay(), type="dtmf", digit="1", duration=200, new={"a": [1]})
    assert isinstance(pressed, UserPressedKey)


# -- what the agent says


def test_an_answer_is_tokens_and_an_end() -> None:
    relay = open_relay()
    assert sent(relay, ResponseStart(request_id="r")) is None
    assert sent(relay, ResponseChunk(text="Good ", request_id="r")) == {
        "type": "text",
        "token": "Good ",
        "last": False,
    }
    assert sent(relay, ResponseChunk(text="", request_id="r")) is None
    assert sent(relay, ResponseEnd(request_id="r")) == {"type": "text", "token": "", "last": True}


def test_an_answer_that_the_caller_interrupted_has_no_end() -> None:
    relay = open_relay()
    sent(relay, ResponseChunk(text="Good ", request_id="r"))
    received(relay, type="interrupt", utteranceUntilInterrupt="Good")
    assert sent(relay, ResponseEnd(request_id="r", interrupted=True)) is None


def test_an_answer_that_the_agent_broke_off_has_one_for_the_carrier_waits_for_it() -> None:
    relay = open_relay()
    sent(relay, ResponseChunk(text="Good ", request_id="r"))
    assert sent(relay, ResponseEnd(request_id="r", interrupted=True))["last"] is True


def test_an_answer_without_a_text_has_no_end() -> None:
    relay = open_relay()
    sent(relay, ResponseStart(request_id="r"))
    assert sent(relay, ResponseEnd(request_id="r")) is None


@pytest.mark.parametrize(
    ("event", "frame"),
    [
        (AgentSpeak(text="Hi."), {"type": "text", "token": "Hi.", "last": True}),
        (AgentSpeak(text=""), None),
        (PlayAudio(source="https://a/b.mp3"), {"type": "play", "source": "https://a/b.mp3"}),
        (
            PlayAudio(source="https://a/b.mp3", loop=0, interruptible=False),
            {"type": "play", "source": "https://a/b.mp3", "loop": 0, "interruptible": False},
        ),
        (SendDigits(digits="9w12#"), {"type": "sendDigits", "digits": "9w12#"}),
        (
            SetLanguage(tts_language="es-ES", transcription_language="es"),
            {"type": "language", "ttsLanguage": "es-ES", "transcriptionLanguage": "es"},
        ),
        (SetLanguage(tts_language="es-ES"), {"type": "language", "ttsLanguage": "es-ES"}),
        (SetLanguage(), None),
        (EndCall(), {"type": "end"}),
        (MuteUser(), None),
        (AgentReady(), None),
        (AgentLog(name="n"), None),
        (AgentErrorEvent(message="m"), None),
        (TranscriptUpdate(role="user", content="an echo"), None),
    ],
)
def test_an_event_is_the_published_frame_or_none(event: LiveEvent, frame: object) -> None:
    assert sent(open_relay(), event) == frame


def test_a_transfer_ends_the_relay_and_says_where_the_call_goes() -> None:
    options = TransferOptions(
        kind="warm_transfer", private_handoff_option=HandoffOption(kind="prompt", prompt="«Ana»")
    )
    frame = sent(
        open_relay(), TransferCall(transfer_call_number="+15550199", transfer_options=options)
    )
    assert frame["type"] == "end"
    assert json.loads(frame["handoffData"]) == {
        "reason": "transfer",
        "transfer_call_number": "+15550199",
        "transfer_options": {
            "type": "warm_transfer",
            "private_handoff_option": {"type": "prompt", "prompt": "«Ana»"},
            "public_handoff_option": None,
        },
        "on_hold_music": None,
    }


def test_after_the_end_nothing_is_sent() -> None:
    relay = open_relay()
    sent(relay, EndCall())
    assert relay.ended
    for event in (AgentSpeak(text="Hi"), EndCall(), ResponseChunk(text="a"), ResponseEnd()):
        assert sent(relay, event) is None


@pytest.mark.parametrize(
    "event",
    [
        SendDigits(digits="call me"),
        SendDigits(digits=""),
        PlayAudio(source=""),
        ResponseChunk(text="half a \ud83d"),
    ],
)
def test_what_the_carrier_would_refuse_is_not_sent(event: LiveEvent) -> None:
    relay = open_relay()
    before = dict(vars(relay))
    with pytest.raises(InvalidFrame):
        relay.send(event)
    assert vars(relay) == before


def test_a_frame_for_the_carrier_is_refused_as_one_of_the_carrier() -> None:
    with pytest.raises(InvalidFrame, match="prompt"):
        decode_app('{"type": "prompt", "voicePrompt": "Hi"}')
    assert decode_app(encode(LanguageFrame(tts_language="es"))) == LanguageFrame(tts_language="es")


# -- anything

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
FIELDS = (
    "voicePrompt lang last digit description callSid from direction customParameters"
    " utteranceUntilInterrupt durationUntilInterruptMs"
).split()
PLAUSIBLE = {
    "voicePrompt": st.text(),
    "lang": st.sampled_from(["en-US", "es"]),
    "last": st.booleans(),
    "digit": st.sampled_from("0123456789*#"),
    "description": st.text(),
    "callSid": st.sampled_from(["CA1", "CA2"]),
    "direction": st.sampled_from(["inbound", "outbound-api"]),
    "durationUntilInterruptMs": st.integers(0, 9_000) | st.integers(0, 9_000).map(str),
}


def frame_of(kind: Any, fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": kind, **fields}


FRAMES = st.builds(
    frame_of,
    st.sampled_from("setup prompt dtmf interrupt error media text".split()) | JSON,
    st.fixed_dictionaries({}, optional={name: PLAUSIBLE.get(name, JSON) | JSON for name in FIELDS})
    | st.fixed_dictionaries({name: PLAUSIBLE[name] for name in PLAUSIBLE}),
)
EVENTS = st.one_of(
    st.builds(ResponseStart),
    st.builds(ResponseChunk, text=st.text()),
    st.builds(ResponseEnd, interrupted=st.booleans()),
    st.builds(AgentSpeak, text=st.text()),
    st.builds(SendDigits, digits=st.text("0123456789w#x", max_size=5)),
    st.builds(SetLanguage, tts_language=st.none() | st.text()),
    st.builds(MuteUser),
)


@given(st.binary() | st.text(st.characters()) | JSON.map(json.dumps) | FRAMES.map(json.dumps))
@settings(max_examples=400, deadline=None)
def test_whatever_comes_gives_events_or_the_one_error(data: bytes | str) -> None:
    for relay in (Relay(), open_relay()):
        before = dict(vars(relay))
        try:
            events = relay.receive(data)
        except InvalidFrame:
            assert vars(relay) == before
        else:
            assert all(type(event) in OWN for event in events)
            assert all(msgspec.json.encode(event) for event in events)


class AnyCall(RuleBasedStateMachine):
    """A call in which both sides do whatever they like, good frames and bad ones."""

    def __init__(self) -> None:
        super().__init__()
        self.relay = Relay()
        self.speaking = self.told_last = False
        self.hearing = False

    @rule(frame=FRAMES)
    def the_carrier_sends(self, frame: dict[str, Any]) -> None:
        try:
            events = self.relay.receive(json.dumps(frame))
        except InvalidFrame:
            return
        for event in events:
            if isinstance(event, UserStartedSpeaking):
                assert not self.hearing, "a start of speaking without a stop before it"
                self.hearing = True
            elif isinstance(event, UserStoppedSpeaking):
                assert self.hearing, "a stop of speaking without a start"
                self.hearing = False
            elif isinstance(event, UserInterrupt):
                self.speaking = False

    @rule(event=EVENTS)
    def the_agent_sends(self, event: LiveEvent) -> None:
        try:
            frame = sent(self.relay, event)
        except InvalidFrame:
            return
        if frame is not None:
            decode_app(json.dumps(frame))
        if frame is not None and frame["type"] == "text":
            assert frame["token"] or (frame["last"] and self.speaking)
            self.speaking = not frame["last"]

    @rule()
    def the_carrier_begins(self) -> None:
        if self.relay.call is None:
            assert kinds(self.relay.receive(json.dumps(TWILIO))) == [SystemInit, UserJoined]

    @invariant()
    def the_call_is_open_and_not_ended(self) -> None:
        assert not self.relay.ended


TestAnyCall = AnyCall.TestCase
