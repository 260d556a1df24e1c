"""Making older messages shorter with a model: summaries, and judgements of what is important.

The model answers in sessions that are not kept; the one that is pruned is only read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from tertulia.agents import prompts
from tertulia.agents.agent import Agent
from tertulia.agents.models import model_for
from tertulia.agents.router import AgentRouter
from tertulia.errors import InvalidInput, ModelError
from tertulia.messages import Message
from tertulia.pruning import Condensed, Judged, Spent

AT_ONCE = 4
"""Requests of one judgement that are under way at the same time."""


class AgentCondenser:
    """Asks an agent, in requests of bounded size."""

    def __init__(self, agent: Any, model: str | None) -> None:
        self._agent = agent
        self._model = model

    @classmethod
    def of_model(cls, driver: Any, default: Any = None) -> AgentCondenser:
        """With the model of a session's agent (a router's first), else a default, else the
        configured one.

        The agent's own instructions and tools have no part in it. Raises ConfigurationError where
        there is no model.
        """
        agent = driver.agents[0] if isinstance(driver, AgentRouter) else driver
        own = getattr(agent, "model", None)
        model = model_for(default if own is None else own)
        return cls(Agent(model=model, instructions=prompts.INSTRUCTIONS), model.name)

    @classmethod
    def of_agent(cls, agent: Any) -> AgentCondenser:
        """With an agent as it is. Raises InvalidInput for one that runs in a session by default."""
        bound = getattr(agent, "_session", None)
        if bound is not None:
            raise InvalidInput(
                f"{agent!r} runs in session {bound.id!r} by default, where its answers would be "
                "kept; give prune an agent without session="
            )
        model = getattr(agent, "model", None)
        return cls(agent, model if isinstance(model, str) else getattr(model, "name", None))

    async def summarize(self, messages: Sequence[Message], earlier: str | None = None) -> Condensed:
        """A summary of some messages, and of what was summarised before them.

        Long ones are read a part at a time, each with the summary of those before it. Raises
        ModelError, also for an empty summary.
        """
        summary, spent = earlier, Spent(model=self._model)
        for lines in prompts.chunks(messages):
            answer, used = await self._ask(prompts.summarize(lines, summary))
            spent = spent.plus(used)
            summary = answer.strip()[: prompts.MAX_SUMMARY]
            if not summary:
                raise ModelError("the model gave an empty summary; nothing was hidden")
        return Condensed(summary or "", spent)

    async def judge(self, messages: Sequence[Message]) -> Judged:
        """Which of some messages are important, many of them in one request. Raises ModelError."""
        waiting = list(enumerate(prompts.batches(messages)))
        answers: list[list[bool]] = [[] for _ in waiting]
        spent = [Spent(model=self._model)]
        left = iter(waiting)

        async def work() -> None:
            for place, lines in left:
                answer, used = await self._ask(prompts.judge(lines))
                named = prompts.numbers(answer, len(lines))
                answers[place] = [number in named for number in range(1, len(lines) + 1)]
                spent.append(spent.pop().plus(used))

        await _all([work() for _ in range(min(AT_ONCE, len(waiting)))])
        return Judged([important for batch in answers for important in batch], spent[0])

    async def _ask(self, request: str) -> tuple[str, Spent]:
        response = await self._agent.run(request)
        usage = getattr(response, "usage", None)
        return str(response.text), Spent(
            self._model,
            1,
            int(getattr(usage, "input_tokens", 0)),
            int(getattr(usage, "output_tokens", 0)),
        )


async def _all(work: list[Any]) -> None:
    """Wait for all of it; when one part fails, the others are cancelled and it is raised."""
    tasks = [asyncio.ensure_future(part) for part in work]
    try:
        await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
