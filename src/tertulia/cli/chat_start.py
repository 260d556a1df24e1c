"""How a chat begins: with which model, in which session, and where that was."""

from __future__ import annotations

import os
from typing import Any

import click
import msgspec

from tertulia import events, settings
from tertulia.cli import chat_screen, places, texts
from tertulia.cli.chat_talk import Talk, new_id
from tertulia.codec import body_of
from tertulia.errors import AccessDenied, InvalidInput, SessionEnded
from tertulia.runtime import Runtime
from tertulia.stores.base import Segment, SessionRow

OFFLINE = "offline"
BY_KEY = (("OPENAI_API_KEY", "openai:gpt-5"), ("ANTHROPIC_API_KEY", "anthropic:claude-sonnet-4-5"))
"""The model that is used where only a key is set."""

STAND_IN = (
    "rule-based stand-in, no language model; set OPENAI_API_KEY or ANTHROPIC_API_KEY, "
    "or say --model …"
)


TRY = (
    "\nTry: what is 12 * 12?  or  order two coffees  or  /summary. End this process with kill -9 "
    "at\nany time, and start it again: it goes on where it was. Policies, bans and the way between "
    "agents:\ntertulia chat --swarm tertulia.cli.demo_swarm (or make demo-swarm)."
)


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for on the command line."""

    session: str | None
    app: str
    user: str | None
    system: str | None
    new: bool


def model_of(named: str | None) -> str:
    """The name of the model: as said, as configured, by the key that is set, else `offline`."""
    configured = named or settings.model()
    if configured:
        return configured
    return next((model for key, model in BY_KEY if os.environ.get(key)), OFFLINE)


def model_line(model: str) -> str:
    """Which model answers, and whether it is one."""
    return f"model    {model}{f' ({STAND_IN})' if model == OFFLINE else ''}"


def check_key(model: str) -> None:
    """Raise ConfigurationError where the key of a known provider is not set."""
    from tertulia.agents.failures import missing_key

    provider = model.partition(":")[0]
    for key, known in BY_KEY:
        base_url = key.replace("API_KEY", "BASE_URL")
        named = provider == known.partition(":")[0]
        if named and not os.environ.get(key) and not os.environ.get(base_url):
            raise missing_key(provider, model)


async def begin(runtime: Runtime, wanted: Wanted, model: str) -> Talk:
    """Open the session, say what is at hand and where the conversation was."""
    from tertulia.agents.demo import demo_agent

    check_key(model)
    agent: Any = demo_agent(model)
    row = await _row(runtime, wanted)
    session_id = row.id if row is not None else wanted.session or new_id()
    session = agent.session(
        session_id=session_id,
        app_name=wanted.app,
        user_id=wanted.user,
        system=wanted.system,
        runtime=runtime,
    )
    click.echo(f"session  {session_id} ({'new' if row is None else _summary(row)})")
    click.echo(model_line(model))
    talk = Talk(runtime, session, agent.name)
    if row is not None:
        await where_it_was(talk, row)
    click.echo("\nSay something, or /help." + (TRY if row is None else ""))
    return talk


async def _row(runtime: Runtime, wanted: Wanted) -> SessionRow | None:
    """The session to go on with. Raises AccessDenied, SessionEnded and InvalidInput."""
    if wanted.session is None:
        return None if wanted.new else await _last(runtime, wanted)
    row = await runtime.store.find(wanted.app, wanted.session)
    if row is None:
        return None
    if wanted.new:
        raise InvalidInput(f"session {row.id!r} exists; leave out --new to go on with it")
    if wanted.user is not None and row.user not in (None, wanted.user):
        raise AccessDenied(f"session {row.id!r} belongs to another user", session_id=row.id)
    if row.status == "ended":
        raise SessionEnded(
            f"session {row.id!r} was ended; `tertulia reopen {row.id}` goes on with it",
            session_id=row.id,
        )
    return row


async def _last(runtime: Runtime, wanted: Wanted) -> SessionRow | None:
    """The session of the app that was used last and is open; with a user, of that user."""
    last: SessionRow | None = None
    async for row in places.every_row(runtime, wanted.app):
        fits = row.status == "open" and wanted.user in (None, row.user)
        if fits and (last is None or row.active >= last.active):
            last = row
    return last


def _summary(row: SessionRow) -> str:
    shown = "" if row.visible < 0 else f"{texts.count(row.visible, 'message')}, "
    return f"goes on: {shown}last active {texts.moment(row.active)}"


async def where_it_was(talk: Talk, row: SessionRow) -> None:
    """Show where the conversation was, and what becomes of a turn that is open in it."""
    chat_screen.where_it_was(await talk.session.history(limit=8))
    if row.open_turn is None:
        return
    if row.holder is not None and await talk.runtime.store.worker_is_alive(row.holder):
        click.echo("\nAnother process is answering in this session; what you say waits for it.")
        return
    talk.waiting = talk.session.pending
    talk.left_open = not talk.waiting
    if talk.waiting:
        click.echo(f"\nTurn {row.open_turn} waits for you:")
    elif row.suspended:
        click.echo(f"\nWhat turn {row.open_turn} waited for is decided; it goes on now:")
    else:
        click.echo(
            f"\nThe process that was answering here died in turn {row.open_turn}. "
            "It goes on now; no tool that is done runs again:"
        )
    for question in await _questions(talk.runtime, row, row.open_turn):
        click.echo(f"  user: {texts.short(question, 400)}")


async def _questions(runtime: Runtime, row: SessionRow, turn: int) -> list[str]:
    records = await runtime.store.records(
        [Segment(row.key, turn - 1, row.seq)], types=[events.MESSAGE_ADDED]
    )
    bodies = [body_of(record) for record in records]
    return [str(body.get("content", "")) for body in bodies if body.get("role") == "user"]
