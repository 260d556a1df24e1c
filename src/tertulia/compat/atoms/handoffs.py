"""What a tool handed over: the end or the transfer of a call, told in the note on the tool."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from tertulia.wire.events import EndCall, HandoffOption, LiveEvent, TransferCall

Handoff = dict[str, Any]

noted: ContextVar[list[Handoff] | None] = ContextVar("noted", default=None)
"""Where the handoffs of the tool that is running are collected; None outside of tools."""


def is_handoff(event: LiveEvent) -> bool:
    """Whether there is nothing more to say after an event."""
    return isinstance(event, EndCall | TransferCall)


def note(event: LiveEvent) -> None:
    """Collect an event that a tool sends, if it hands the call over."""
    collected = noted.get()
    if collected is None:
        return
    if isinstance(event, EndCall):
        collected.append({"status": "success", "action": "end_call"})
    elif isinstance(event, TransferCall):
        collected.append(_transfer(event))


def _transfer(event: TransferCall) -> Handoff:
    options = event.transfer_options
    told: Handoff = {
        "status": "success",
        "action": "transfer_call",
        "transfer_number": event.transfer_call_number,
        "transfer_type": str(options.kind),
        "on_hold_music": event.on_hold_music,
    }
    for name in ("private_handoff", "public_handoff"):
        option: HandoffOption | None = getattr(options, f"{name}_option")
        if option is not None:
            told[name] = {"type": str(option.kind), "prompt": option.prompt}
    return told
