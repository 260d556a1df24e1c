"""The agents of ``tertulia chat``: a few tools that need nothing from outside.

``demo`` answers, and hands orders over to ``order_desk``, whose orders a person has to approve.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from tertulia.agents.agent import Agent
from tertulia.agents.arithmetic import evaluate
from tertulia.agents.context import RunContext
from tertulia.agents.models import ModelLike
from tertulia.agents.offline import OFFLINE, OfflineModel
from tertulia.agents.tools import tool
from tertulia.errors import ConfigurationError

DEMO = "demo"
NOTES = "notes"
ORDERS = "orders"
MAX_DICE = 100
PAUSE = 0.04
"""Seconds between two words of the offline model; ``TERTULIA_OFFLINE_PAUSE`` changes it."""

INSTRUCTIONS = (
    "You are the agent of Tertulia's demo, in a terminal. Answer briefly, in plain text. Use your "
    "tools for the time, arithmetic, dice and notes; do not make up what a tool can tell. Orders "
    "are for the order desk: give the conversation to it."
)
DESK = (
    "You are the order desk of Tertulia's demo, in a terminal. Place what is ordered with your "
    "tools, and answer briefly, in plain text. Give the conversation back to demo when asked to."
)


@tool(read_only=True)
def current_time(zone: str = "UTC") -> str:
    """Tell the current date and time.

    Args:
        zone: An IANA time zone such as Europe/Madrid.
    """
    try:
        now = datetime.now(UTC if zone == "UTC" else ZoneInfo(zone))
    except (ZoneInfoNotFoundError, ValueError):
        raise ValueError(f"there is no time zone {zone!r}") from None
    return now.strftime("%A, %d %B %Y, %H:%M:%S %Z")


@tool(read_only=True)
def calculator(expression: str) -> str:
    """Calculate an arithmetic expression exactly.

    Args:
        expression: Numbers with + - * / // % ** and parentheses, such as (3 + 4) * 12.
    """
    return f"{expression} = {evaluate(expression)}"


@tool(read_only=True)
def roll_dice(count: int = 1, sides: int = 6) -> str:
    """Roll dice and tell what they show.

    Args:
        count: How many dice, at most 100.
        sides: How many sides each has, 2 to 1000.
    """
    if not 1 <= count <= MAX_DICE or not 2 <= sides <= 1000:
        raise ValueError(f"roll 1 to {MAX_DICE} dice with 2 to 1000 sides")
    shown = [random.SystemRandom().randint(1, sides) for _ in range(count)]
    total = f", together {sum(shown)}" if count > 1 else ""
    return f"{' '.join(str(each) for each in shown)}{total}"


@tool(effect="none")
async def remember_note(context: RunContext, text: str) -> str:
    """Remember a note for later, in the state of this session.

    Args:
        text: What to remember.
    """
    notes = await context.session.update_state(NOTES, lambda notes: [*notes, text], default=[])
    return f"kept as note {len(notes)}: {text}"


@tool(read_only=True)
def recall_notes(context: RunContext) -> str:
    """Recall all notes that were kept in this session."""
    notes: list[str] = context.state.get(NOTES, [])
    if not notes:
        return "no notes have been kept yet"
    return "; ".join(f"{number}. {note}" for number, note in enumerate(notes, 1))


@tool(requires_approval=True)
async def place_order(context: RunContext, what: str) -> str:
    """Place an order. A person approves it first.

    Args:
        what: What to order, such as two coffees.
    """
    return await _placed(context, what)


@tool(name="place_order")
async def place_order_at_once(context: RunContext, what: str) -> str:
    """Place an order.

    Args:
        what: What to order, such as two coffees.
    """
    return await _placed(context, what)


async def _placed(context: RunContext, what: str) -> str:
    orders = await context.session.update_state(ORDERS, lambda have: [*have, what], default=[])
    return f"order {len(orders)} is placed: {what}"


@tool(read_only=True)
def list_orders(context: RunContext) -> str:
    """List the orders that were placed in this session."""
    orders: list[str] = context.state.get(ORDERS, [])
    return "; ".join(orders) or "nothing was ordered yet"


TOOLS = (current_time, calculator, roll_dice, remember_note, recall_notes)


@dataclass
class Summary:
    """A conversation in short."""

    about: str
    points: list[str]


def demo_agent(model: ModelLike = None, *, approvals: bool = True) -> Agent:
    """The demo's agent with a model, by default the configured one, else `offline`.

    Without `approvals` orders are placed at once, where there is nobody to ask.
    Raises ConfigurationError for a model name that cannot be.
    """
    chosen = OfflineModel(_pause()) if model == OFFLINE else model
    desk = Agent(
        name="order_desk",
        model=chosen,
        instructions=DESK,
        tools=[*TOOLS, place_order if approvals else place_order_at_once, list_orders],
        handoffs=[DEMO],
        description="Takes orders, such as coffee, tea and cake.",
    )
    return Agent(
        name=DEMO,
        model=chosen,
        instructions=INSTRUCTIONS,
        tools=TOOLS,
        handoffs=[desk],
        description="Answers in general.",
    )


def _pause() -> float:
    given = os.environ.get("TERTULIA_OFFLINE_PAUSE")
    try:
        pause = PAUSE if not given else float(given)
    except ValueError:
        pause = -1.0
    if not 0 <= pause <= 10:
        raise ConfigurationError(
            f"TERTULIA_OFFLINE_PAUSE={given!r}: give the seconds between two words, 0 to 10"
        )
    return pause
