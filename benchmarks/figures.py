"""One figure: a measured value, what it is compared with, and whether that is good enough."""

from __future__ import annotations

import json
import operator
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

COMPARISONS = {
    ">=": operator.ge,
    ">": operator.gt,
    "<=": operator.le,
    "<": operator.lt,
    "==": operator.eq,
}


@dataclass(frozen=True)
class Target:
    """What a figure must reach: its value, or its ratio to something measured beside it."""

    of: Literal["value", "ratio"]
    comparison: Literal[">=", ">", "<=", "<", "=="]
    bound: float

    def __str__(self) -> str:
        return f"{self.of} {self.comparison} {self.bound:g}"

    def met(self, value: float | None, ratio: float | None) -> bool:
        found = value if self.of == "value" else ratio
        return found is not None and bool(COMPARISONS[self.comparison](found, self.bound))


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A line of the report. `ok` is null where there is no target, and false for an error."""

    figure: str
    system: str
    medium: str
    value: float | None = None
    unit: str = ""
    ratio_to: str | None = None
    ratio: float | None = None
    target: Target | None = None
    repetitions: int = 0
    versions: dict[str, str] = field(default_factory=dict[str, str])
    detail: dict[str, Any] = field(default_factory=dict[str, Any])
    note: str = ""
    error: str | None = None

    @property
    def ok(self) -> bool | None:
        if self.error is not None:
            return False
        return None if self.target is None else self.target.met(self.value, self.ratio)

    def line(self) -> str:
        """This figure as one line of JSON."""
        kept = asdict(self) | {"target": None, "ok": self.ok}
        kept["value"], kept["ratio"] = short(self.value), short(self.ratio)
        if self.target is not None:
            kept["target"] = str(self.target)
        optional = ("detail", "note", "error")
        return json.dumps({k: v for k, v in kept.items() if v or k not in optional})


def short(number: float | None) -> float | None:
    """Four significant digits, and whole numbers whole."""
    if number is None:
        return None
    return round(number) if abs(number) >= 1000 else float(f"{number:.4g}")


def plain(number: float | None) -> str:
    """A number for people."""
    return "" if number is None else f"{short(number):,}"


def verdict(figure: Figure) -> str:
    """One word on this figure."""
    if figure.error is not None:
        return "ERROR"
    return {None: "", True: "ok", False: "MISSED"}[figure.ok]


def row(figure: Figure) -> list[str]:
    """This figure as cells."""
    against = f"{plain(figure.ratio)} of {figure.ratio_to}" if figure.ratio is not None else ""
    return [
        figure.figure,
        figure.system,
        figure.medium,
        figure.error or figure.note if figure.value is None else plain(figure.value),
        figure.unit,
        against,
        str(figure.target or ""),
        verdict(figure),
    ]


HEAD = ["figure", "system", "medium", "value", "unit", "ratio", "target", ""]


def table(figures: Iterable[Figure]) -> str:
    """All of them in columns."""
    rows = [HEAD, *(row(figure) for figure in figures)]
    widths = [min(60, max(len(cells[i]) for cells in rows)) for i in range(len(HEAD))]
    return "\n".join(
        "  ".join(
            cell[:width].ljust(width) for cell, width in zip(cells, widths, strict=True)
        ).rstrip()
        for cells in rows
    )
