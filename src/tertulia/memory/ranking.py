"""Making one ranking of several: pure."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TypeVar

H = TypeVar("H", bound=Hashable)
K = 60
"""The constant of the formula; the paper found that little depends on it."""


def fuse(rankings: Sequence[Sequence[H]], limit: int) -> list[tuple[H, float]]:
    """The best of several rankings, with a score above 0 and at most 1.

    Reciprocal rank fusion: the sum over the rankings of 1 / (60 + rank), where the first has
    rank 1 (Cormack, Clarke and Büttcher, "Reciprocal rank fusion outperforms Condorcet and
    individual rank learning methods", SIGIR 2009). It is divided by the greatest possible sum,
    so 1 means first in every ranking. Those with the same score stay in the order they came in.
    """
    scores: dict[H, float] = {}
    for ranking in rankings:
        for place, item in enumerate(ranking, 1):
            scores[item] = scores.get(item, 0.0) + 1 / (K + place)
    greatest = len(rankings) / (K + 1)
    best = sorted(scores.items(), key=lambda scored: -scored[1])[:limit]
    return [(item, min(score / greatest, 1.0)) for item, score in best]
