"""`tertulia usage`: what the models of a session consumed."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import click

from tertulia import events
from tertulia.cli import places, texts
from tertulia.events import Event
from tertulia.runtime import Runtime
from tertulia.usage import Usage

By = list[tuple[tuple[str | None, str | None], Usage]]
"""What each agent consumed of each model."""


@click.command()
@click.argument("session")
@places.app_option
@places.json_option
@places.store_option
def usage(session: str, app: str | None, as_json: bool, store: str) -> None:
    """Tell what the model requests of a SESSION consumed: in all, by agent and by model.

    Failed turns count too; what a fork inherited does not.
    """

    async def work(runtime: Runtime) -> tuple[Usage, By]:
        row = await places.row_of(runtime, session, app)
        found = runtime.session(session, app_name=row.app)
        noted = await found.events(since=row.base + 1, types=events.USAGE)
        return found.usage, _by(noted)

    total, by = places.run(store, work)
    if as_json:
        parts = [{"agent": agent, "model": model, **_told(used)} for (agent, model), used in by]
        texts.print_json({**_told(total), "by": parts})
        return
    lines = [*by, (("all", None), total)]
    texts.print_columns(
        ("agent", "model", "requests", "input", "output", "total"),
        [(agent or "-", model or "-", *_cells(used)) for (agent, model), used in lines],
    )


def _by(noted: list[Event]) -> By:
    """By agent and model, in the order of their first requests."""
    found: dict[tuple[str | None, str | None], Usage] = defaultdict(Usage)
    for event in noted:
        body = event.body or {}
        place = body.get("agent"), body.get("model")
        found[place] = found[place].noted(body)
    return list(found.items())


def _told(used: Usage) -> dict[str, Any]:
    return {**texts.fields(used), "total_tokens": used.total_tokens}


def _cells(used: Usage) -> tuple[str, ...]:
    numbers = (used.requests, used.input_tokens, used.output_tokens, used.total_tokens)
    return tuple(f"{number:,}" for number in numbers)
