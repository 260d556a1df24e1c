"""What a writer has done, counted by its thread and read by any."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol


class Decided(Protocol):
    """A job of a writer, after it was done or refused."""

    error: BaseException | None


class Statistics:
    """Counts batches, so that whoever asks does not make the writer wait."""

    def __init__(self) -> None:
        self.commits = 0
        self.changes = 0
        self.refused = 0
        self.batch_size_max = 0
        self._seconds: deque[float] = deque(maxlen=1_000)

    def count(self, jobs: Sequence[Decided], seconds: float) -> None:
        size = len(jobs)
        refused = 0
        for job in jobs:
            if job.error is not None:
                refused += 1
        self.commits += 1
        self.changes += size - refused
        self.refused += refused
        self.batch_size_max = max(self.batch_size_max, size)
        self._seconds.append(seconds)

    def percentile(self, share: float) -> float:
        """Of the newest batches, how long that share of them took at most, in seconds."""
        ordered = sorted(self._seconds.copy())
        return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0
