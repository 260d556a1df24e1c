"""What the README and the documents show is run as it stands."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from tests.docs.serving import ADDRESS, served
from tests.nursery import finished

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
ELSEWHERE = {"many-machines.md", "cluster.md"}
"""Pages whose programs need servers that are not here: their own tests run them."""
_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
_APP = re.compile(r"^app = \w*App\(", re.MULTILINE)


def blocks() -> list[tuple[str, str, str | None]]:
    """Each Python block with the page and the line it stands at, and the app that it talks with.

    A block that connects to the address where apps are served is for the app that stands before it.
    """
    found: list[tuple[str, str, str | None]] = []
    for page in PAGES:
        if page.name in ELSEWHERE:
            continue
        text = page.read_text()
        app: str | None = None
        for match in _BLOCK.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            place, code = f"{page.relative_to(ROOT)}:{line}", match[1]
            found.append((place, code, app if ADDRESS in code else None))
            app = code if _APP.search(code) else app
    return found


def ran(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A program of the documents, run to its end; it may not warn of anything."""
    return finished(
        ["-W", "error", "-c", code], "", cwd=folder, env=os.environ, timeout=120, reader=True
    )


@pytest.mark.parametrize(("place", "code", "app"), blocks(), ids=[place for place, *_ in blocks()])
def test_a_block_of_the_documents_runs_as_it_stands(
    place: str, code: str, app: str | None, tmp_path: Path
) -> None:
    if app is None:
        done = ran(code, tmp_path)
    else:
        with served(app, tmp_path) as address:
            done = ran(code.replace(ADDRESS, address), tmp_path)
    assert done.returncode == 0, f"{place}\n{done.stderr}"


def test_the_readme_shows_its_commands_before_any_code() -> None:
    text = (ROOT / "README.md").read_text()
    places = [
        text.index(shown) for shown in ("make demo ", "make demo-live", "make test", "```python")
    ]
    assert places == sorted(places)


def test_the_readme_prints_what_it_says(tmp_path: Path) -> None:
    code = next(code for place, code, _ in blocks() if place.startswith("README"))
    streamed, trip, booked = ran(code, tmp_path).stdout.splitlines()
    assert "Osaka" in streamed
    assert "Japan" in trip
    assert "Osaka" not in trip
    assert booked == "book: booked a room in Kyoto"
