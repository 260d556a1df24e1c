"""What the README and the documents show is run as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks() -> list[tuple[str, str]]:
    """Each Python block with the page and the line it stands at."""
    found: list[tuple[str, str]] = []
    for page in PAGES:
        text = page.read_text()
        for match in _BLOCK.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append((f"{page.relative_to(ROOT)}:{line}", match[1]))
    return found


@pytest.mark.parametrize(("place", "code"), blocks(), ids=[place for place, _ in blocks()])
def test_a_block_of_the_documents_runs_as_it_stands(place: str, code: str, tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, f"{place}\n{ran.stderr}"


def test_the_readme_shows_its_two_commands_before_any_code() -> None:
    text = (ROOT / "README.md").read_text()
    assert text.index("make demo") < text.index("make test") < text.index("```python")


def test_the_readme_prints_what_it_says(tmp_path: Path) -> None:
    code = next(code for place, code in blocks() if place.startswith("README"))
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    streamed, trip, booked = ran.stdout.splitlines()
    assert "Osaka" in streamed
    assert "Japan" in trip
    assert "Osaka" not in trip
    assert booked == "book: booked a room in Kyoto"
