"""Tools whose hints are text, looked up when they are needed, for the tests of tools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional

import pydantic

from tertulia.agents import context as contexts
from tertulia.agents.context import RunContext as Running

if TYPE_CHECKING:
    from tertulia.agents.context import RunContext

    Unknown = int


def plain(a: int, context: Running) -> None:
    """Have the context under a name of one's own."""


def optional(a: int, context: Optional[contexts.RunContext] = None) -> None:  # noqa: UP045
    """Have the context, perhaps."""


def for_type_checkers(context: RunContext, a: int) -> None:
    """Have a context that is imported for type checkers only."""


def unknown(a: Unknown) -> None:
    """Have what only type checkers know."""


class Thing:
    """Something with a method, which can be called itself."""

    def method(self, context: Running, a: int) -> None:
        """Have the context in a method."""

    def __call__(self, a: int, context: Running) -> None:
        """Have the context in a call."""


def nested(items: list[Later]) -> None:
    """Have what is defined later."""


class Later(pydantic.BaseModel):
    """What is defined later."""

    a: int
