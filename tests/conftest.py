"""Fixtures that every test may use, and what a run says at its end."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ELSEWHERE = {"system": "make test-system", "soak": "make soak"}


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests run on asyncio."""
    return "asyncio"


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Name the files whose tests were left out by their marker, and the command that runs them."""
    chosen = str(config.getoption("markexpr"))
    for marker, command in ELSEWHERE.items():
        if f"not {marker}" in chosen:
            named = ", ".join(files_with(marker, config.rootpath))
            terminalreporter.write_line(f"left to `{command}`: {named}")


def files_with(marker: str, root: Path) -> list[str]:
    """The test files that use a marker, as paths from the root of the repository."""
    used = re.compile(rf"pytest\.mark\.{marker}\b")
    files = sorted((root / "tests").rglob("test_*.py"))
    return [str(file.relative_to(root)) for file in files if used.search(file.read_text())]
