"""Keeps what was measured: one dated section of `RESULTS.md` for each run that asks for it."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.figures import HEAD, Figure, row

RESULTS = Path(__file__).parent / "RESULTS.md"
TITLE = """# Results

Each section is one run of `make bench ARGS=--write-results`. Trust the ratios within a section,
not the absolute numbers between sections: computers differ, and a shared one differs by the hour.
"""


def section(figures: Sequence[Figure], *, quick: bool) -> str:
    """The run as markdown: date, versions, table."""
    versions: dict[str, set[str]] = {}
    for figure in figures:
        for name, version in figure.versions.items():
            versions.setdefault(name, set()).add(version)
    named = ", ".join(f"{name} {' / '.join(sorted(each))}" for name, each in versions.items())
    day = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    size = " (quick: small and once)" if quick else ""
    computer = f"{os.cpu_count()} cores, {platform.system()} on {platform.machine()}"
    cells = [HEAD, ["---"] * len(HEAD), *(row(figure) for figure in figures)]
    lines = ["| " + " | ".join(escaped(cell) for cell in each) + " |" for each in cells]
    body = "\n".join(lines)
    return f"\n## {day}{size}\n\n{computer}; {named}\n\n{body}\n"


def escaped(cell: str) -> str:
    """A cell that cannot break the table."""
    return cell.replace("|", "\\|").replace("\n", " ")


def write(figures: Sequence[Figure], *, quick: bool) -> None:
    """Append the section, under the title if the file is new."""
    before = RESULTS.read_text() if RESULTS.exists() else TITLE
    RESULTS.write_text(before + section(figures, quick=quick))
