"""A browser, and a live server for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, BrowserContext, async_playwright
from scripts import setup_chromium
from tests.system.live_server import LiveServer

SWITCHES = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
WAIT = 30_000  # ms, for what happens far sooner on a quiet machine


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    """The browser that `make test-system` installs; without one these tests fail."""
    found = setup_chromium.find()
    assert found is not None, "there is no Chromium; run: make test-system"
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=found, args=SWITCHES)
        yield launched
        await launched.close()


@pytest.fixture
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    """A profile of its own, with no storage in it."""
    made = await browser.new_context()
    made.set_default_timeout(WAIT)
    yield made
    await made.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LiveServer]:
    """A server that takes everybody."""
    started = LiveServer(tmp_path)
    yield started
    started.kill()
