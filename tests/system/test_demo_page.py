"""The demo page in a real browser: what people see first of a live session."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import BrowserContext, Page, expect
from tests.system.live_server import LiveServer
from tests.system.test_browser import counted

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

MARKUP = '<img src=x onerror="window.broken = true"><b>bold</b>'
TOKEN = "a-secret-that-is-long-enough-for-a-test"
WAIT = 30_000  # ms


@pytest.fixture
async def page(context: BrowserContext, server: LiveServer) -> AsyncIterator[Page]:
    """The page, connected; it may complain of nothing, and ask nobody else for anything."""
    made = await context.new_page()
    faults: list[str] = []
    hosts: set[str] = set()
    made.on("pageerror", lambda error: faults.append(error.message))
    made.on("console", lambda told: faults.append(told.text) if "Security" in told.text else None)
    made.on("request", lambda request: hosts.add("/".join(request.url.split("/")[:3])))
    await made.goto(f"{server.url}/static/demo.html")
    await connected(made)
    yield made
    assert faults == []
    assert hosts == {server.url}


async def connected(page: Page) -> None:
    await expect(page.get_by_role("status")).to_have_text("Connected", timeout=WAIT)


async def say(page: Page, text: str) -> None:
    """Type a line and send it, with the keyboard only."""
    await page.get_by_label("Your message").fill(text)
    await page.get_by_label("Your message").press("Enter")


async def test_a_conversation_is_shown_beside_its_graph_and_its_events(page: Page) -> None:
    await say(page, "count 3")
    messages = page.get_by_role("region", name="Messages").get_by_role("listitem")
    await expect(messages).to_have_text(["count 3", counted(3)], timeout=WAIT)
    graph = page.get_by_role("img", name="with the nodes thinking, answers")
    nodes = await graph.locator("[data-node]").evaluate_all("all => all.map(n => n.dataset.node)")
    assert nodes == ["root", "thinking", "answers", "sink"]
    events = page.get_by_role("list", name="Events, the newest first")
    await expect(events).to_contain_text("agent.llm.response.end")
    await expect(events).to_contain_text("3, 15 characters")


async def test_markup_that_is_said_stays_text_on_both_sides(page: Page) -> None:
    await say(page, f"say {MARKUP}")
    messages = page.get_by_role("region", name="Messages").get_by_role("listitem")
    await expect(messages).to_have_text([f"say {MARKUP}", MARKUP], timeout=WAIT)
    assert await page.locator("#messages img, #messages b, #events img, #events b").count() == 0
    assert await page.evaluate("() => window.broken") is None
    await page.reload()
    await expect(messages).to_have_text([f"say {MARKUP}", MARKUP], timeout=WAIT)
    assert await page.evaluate("() => window.broken") is None


async def test_an_offer_of_the_empty_page_is_said_with_a_click(page: Page) -> None:
    await page.get_by_role("button", name="Order two coffees.").click()
    messages = page.get_by_role("region", name="Messages").get_by_role("listitem")
    await expect(messages.first).to_have_text("Order two coffees.", timeout=WAIT)
    await expect(page.get_by_role("heading", name="A conversation")).to_be_hidden()


async def test_the_button_stops_an_answer_and_goes_away(page: Page) -> None:
    stop = page.get_by_role("button", name="Stop")
    await expect(stop).to_be_hidden()
    await say(page, "count 100000")
    messages = page.get_by_role("region", name="Messages").get_by_role("listitem")
    await expect(messages.last).to_contain_text("w5😀", timeout=WAIT)
    await stop.click()
    await expect(messages.last).to_have_attribute("data-note", "stopped here", timeout=WAIT)
    await expect(stop).to_be_hidden()


async def test_a_server_that_is_killed_and_started_again_finds_the_conversation_as_it_was(
    page: Page, server: LiveServer
) -> None:
    messages = page.get_by_role("region", name="Messages").get_by_role("listitem")
    await say(page, "count 2")
    await expect(page.get_by_role("list", name="Events")).to_contain_text("response.end")
    server.kill()
    await expect(page.get_by_role("status")).to_contain_text("again in", timeout=WAIT)
    await say(page, "count 4")
    await expect(messages.last).to_have_class("message user pending")
    server.start()
    await connected(page)
    expected = ["count 2", counted(2), "count 4", counted(4)]
    await expect(messages).to_have_text(expected, timeout=WAIT)
    await page.reload()
    await connected(page)
    await expect(messages).to_have_text(expected, timeout=WAIT)


async def test_a_new_session_begins_with_an_empty_page(page: Page) -> None:
    await say(page, "count 2")
    messages = page.get_by_role("region", name="Messages").get_by_role("listitem")
    await expect(messages).to_have_text(["count 2", counted(2)], timeout=WAIT)
    await page.get_by_role("button", name="New session").click()
    await expect(messages).to_have_count(0, timeout=WAIT)
    await connected(page)
    await expect(page.get_by_role("heading", name="A conversation")).to_be_visible()


async def test_a_server_that_wants_a_token_is_given_one(
    context: BrowserContext, tmp_path: Path
) -> None:
    server = LiveServer(tmp_path, TERTULIA_TOKEN=TOKEN)
    try:
        page = await context.new_page()
        await page.goto(f"{server.url}/static/demo.html")
        await page.get_by_label("Token").fill(TOKEN)
        await page.get_by_role("button", name="Connect").click()
        await connected(page)
        await expect(page.get_by_role("img", name="The graph of the session")).to_be_visible()
        assert TOKEN not in server.said()
    finally:
        server.kill()
