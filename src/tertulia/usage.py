"""Usage: what model requests consumed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec


class Usage(msgspec.Struct, frozen=True):
    """What model requests consumed; 0 where a provider does not say."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens

    def plus(self, input_tokens: int, output_tokens: int) -> Usage:
        """This and one more request."""
        return Usage(
            self.requests + 1,
            self.input_tokens + input_tokens,
            self.output_tokens + output_tokens,
        )

    def noted(self, body: Mapping[str, Any]) -> Usage:
        """This and the request that a ``usage`` event tells of."""
        return self.plus(_count(body.get("input_tokens")), _count(body.get("output_tokens")))


NOTHING_SPENT = Usage()


def sum_of(usages: Iterable[Usage]) -> Usage:
    """All of them together."""
    total = Usage()
    for each in usages:
        total = Usage(
            total.requests + each.requests,
            total.input_tokens + each.input_tokens,
            total.output_tokens + each.output_tokens,
        )
    return total


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0
