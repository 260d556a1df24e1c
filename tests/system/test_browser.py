"""The JavaScript client and the demo page in a real browser, against a real server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import BrowserContext, Page
from tests.system.live_server import LiveServer

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

OPEN = """async (options) => {
  const { connect } = await import("/static/tertulia.js");
  Object.assign(window, { events: [], states: [], answers: {} });
  window.live = connect("/ws", {
    ...options,
    onEvent: (event) => window.events.push(event),
    onState: (state, detail) => window.states.push({ state, ...detail }),
    onAnswer: (answer) => { window.answers[answer.requestId] = answer; },
  });
}"""


async def opened(context: BrowserContext, server: LiveServer, **options: Any) -> Page:
    """A page with a client in it, once its session is open."""
    page = await context.new_page()
    await page.goto(f"{server.url}/health")
    await page.evaluate(OPEN, options)
    return page


async def ready(page: Page, times: int = 1) -> None:
    """Wait until the server has said `agent.ready` so many times."""
    await page.wait_for_function(
        "(times) => events.filter((event) => event.type === 'agent.ready').length >= times",
        arg=times,
    )


async def said(page: Page, text: str) -> None:
    """Wait until some answer has a text in it."""
    await page.wait_for_function(
        "(text) => Object.values(answers).some((answer) => answer.text.includes(text))", arg=text
    )


async def answered(page: Page, text: str) -> None:
    """Wait until an answer is done, with exactly this text."""
    await page.wait_for_function(
        """(text) => Object.values(answers)
          .some((answer) => answer.state === "done" && answer.text === text)""",
        arg=text,
    )


async def events(page: Page, family: str) -> list[dict[str, Any]]:
    """What `onEvent` was given of a family of types."""
    return await page.evaluate(
        "(family) => events.filter((event) => event.type.startsWith(family))", family
    )


async def answers(page: Page) -> list[dict[str, Any]]:
    """The answers as they are now, in the order they began."""
    return await page.evaluate("() => Object.values(answers)")


async def log(
    context: BrowserContext, server: LiveServer, session_id: str
) -> list[tuple[str, str]]:
    """Who said what, as a client is told that knows nothing yet.

    Says something itself at last, so that it is known when all has come.
    """
    page = await opened(context, server, sessionId=session_id, after=0)
    await page.evaluate("() => live.say('count 1')")
    await answered(page, counted(1))
    told: list[tuple[str, str]] = []
    for event in await events(page, "agent."):
        if event["type"] == "agent.transcript.update":
            told.append((event["role"], event["content"]))
        if event["type"] == "agent.llm.response.chunk":
            told.append(("assistant", event["text"]))
    await page.close()
    assert told.pop() == ("assistant", counted(1))
    return told


def counted(number: int) -> str:
    """What the server answers to "count <number>"."""
    return "".join(f"w{each}😀 " for each in range(number))


async def test_what_is_said_is_answered_piece_by_piece_and_every_event_comes_once(
    context: BrowserContext, server: LiveServer
) -> None:
    page = await opened(context, server)
    await page.evaluate("() => live.say('count 30')")
    await answered(page, counted(30))
    told = await events(page, "agent.llm.response.")
    chunks = [event for event in told if event["type"].endswith("chunk")]
    assert "".join(chunk["text"] for chunk in chunks) == counted(30)
    assert [event["type"].rsplit(".", 1)[1] for event in told if event not in chunks] == [
        "start",
        "end",
    ]
    assert [answer["text"] for answer in await answers(page)] == [counted(30)]


async def test_a_lost_network_in_the_middle_of_an_answer_loses_nothing_and_repeats_nothing(
    context: BrowserContext, server: LiveServer
) -> None:
    page = await opened(context, server)
    await page.evaluate("() => live.say('count 200')")
    await said(page, "w5😀")
    await context.set_offline(True)
    await page.wait_for_function("() => live.state === 'waiting'")
    await context.set_offline(False)
    await ready(page, 2)
    await answered(page, counted(200))
    chunks = await events(page, "agent.llm.response.chunk")
    assert "".join(chunk["text"] for chunk in chunks) == counted(200)
    assert len(await events(page, "agent.llm.response.start")) == 1
    assert len(await events(page, "agent.llm.response.end")) == 1


async def test_a_request_that_had_no_first_token_yet_is_answered_once_over_a_lost_network(
    context: BrowserContext, server: LiveServer
) -> None:
    page = await opened(context, server)
    await ready(page)
    await page.evaluate("() => live.say('later 5')")
    await page.wait_for_function("() => events.some((event) => event.name === 'thinking')")
    await context.set_offline(True)
    await page.wait_for_function("() => live.state === 'waiting'")
    await context.set_offline(False)
    await ready(page, 2)
    await answered(page, counted(5))
    session_id = await page.evaluate("() => live.sessionId")
    await page.evaluate("() => live.say('count 2')")
    await answered(page, counted(2))
    assert [answer["text"] for answer in await answers(page)] == [counted(5), counted(2)]
    assert await log(context, server, session_id) == [
        ("user", "later 5"),
        ("assistant", counted(5)),
        ("user", "count 2"),
        ("assistant", counted(2)),
    ]


async def test_after_kill_9_in_the_middle_of_an_answer_it_is_given_anew_and_nothing_comes_twice(
    context: BrowserContext, server: LiveServer
) -> None:
    page = await opened(context, server)
    await page.evaluate("() => live.say('count 3')")
    await answered(page, counted(3))
    await page.evaluate("() => live.say('count 100')")
    await said(page, "w5😀")
    server.kill()
    await page.wait_for_function("() => live.state === 'waiting'")
    server.start()
    await answered(page, counted(100))
    told = await events(page, "")
    places = [event["seq"] for event in told if event["seq"] and event["type"] != "agent.ready"]
    assert places == sorted(set(places))
    session_id = await page.evaluate("() => live.sessionId")
    await page.close()
    assert await log(context, server, session_id) == [
        ("user", "count 3"),
        ("assistant", counted(3)),
        ("user", "count 100"),
        ("assistant", counted(100)),
    ]


async def test_an_agent_that_is_killed_in_the_middle_of_its_answer_gives_it_once_for_the_client(
    context: BrowserContext, server: LiveServer
) -> None:
    page = await opened(context, server, variables={"agent": True})
    await page.evaluate("() => live.say('count 3')")
    await answered(page, counted(3))
    await page.evaluate("() => live.say('count 100')")
    await said(page, "w5😀")
    server.kill()
    await page.wait_for_function("() => live.state === 'waiting'")
    server.start()
    await answered(page, counted(100))
    session_id = await page.evaluate("() => live.sessionId")
    await page.evaluate("() => live.say('count 4')")
    await answered(page, counted(4))
    shown = [answer["text"] for answer in await answers(page) if answer["state"] == "done"]
    assert shown == [counted(3), counted(100), counted(4)]
    chunks = await events(page, "agent.llm.response.chunk")
    assert "".join(chunk["text"] for chunk in chunks) == "".join(shown)
    assert len(await events(page, "agent.llm.response.start")) == 3
    await page.close()
    assert await log(context, server, session_id) == [
        ("user", "count 3"),
        ("assistant", counted(3)),
        ("user", "count 100"),
        ("assistant", counted(100)),
        ("user", "count 4"),
        ("assistant", counted(4)),
    ]


async def test_a_question_asked_while_earlier_answers_are_told_again_has_its_own_answer(
    context: BrowserContext, server: LiveServer
) -> None:
    page = await opened(context, server, variables={"agent": True})
    for number in (3, 4):
        await page.evaluate("(text) => live.say(text)", f"count {number}")
        await answered(page, counted(number))
    session_id = await page.evaluate("() => live.sessionId")
    await page.close()
    again = await opened(context, server, sessionId=session_id, after=0, variables={"agent": True})
    request = await again.evaluate("() => live.say('count 5').request")
    await answered(again, counted(5))
    told = await answers(again)
    assert [answer["text"] for answer in told] == [counted(3), counted(4), counted(5)]
    assert [answer["request"] == request for answer in told] == [False, False, True]


async def test_what_is_said_while_the_server_is_gone_arrives_once_and_in_order(
    context: BrowserContext, server: LiveServer
) -> None:
    page = await opened(context, server)
    await ready(page)
    server.kill()
    await page.wait_for_function("() => live.state === 'waiting'")
    await page.evaluate("() => { live.say('count 2'); live.say('count 3'); }")
    server.start()
    await page.wait_for_function(
        "() => Object.values(answers).filter(({ state }) => state === 'done').length === 2"
    )
    session_id = await page.evaluate("() => live.sessionId")
    await page.close()
    told = await log(context, server, session_id)
    assert [text for role, text in told if role == "user"] == ["count 2", "count 3"]
    assert len([text for role, text in told if role == "assistant"]) == 2


async def test_what_a_server_did_not_read_before_it_was_killed_is_sent_again(
    context: BrowserContext, server: LiveServer
) -> None:
    page = await opened(context, server)
    await page.evaluate("() => live.say('count 2')")
    await answered(page, counted(2))
    server.freeze()
    await page.evaluate("() => live.say('count 3')")
    server.kill()
    server.start()
    await answered(page, counted(3))
    session_id = await page.evaluate("() => live.sessionId")
    await page.close()
    assert await log(context, server, session_id) == [
        ("user", "count 2"),
        ("assistant", counted(2)),
        ("user", "count 3"),
        ("assistant", counted(3)),
    ]


async def test_a_server_that_is_stopped_politely_is_come_back_to(
    context: BrowserContext, server: LiveServer
) -> None:
    page = await opened(context, server)
    await page.evaluate("() => live.say('count 3')")
    await answered(page, counted(3))
    server.terminate()
    await page.wait_for_function("() => states.some(({ state }) => state === 'waiting')")
    assert (await page.evaluate("() => states.find(({ state }) => state === 'waiting')"))[
        "code"
    ] == 1012
    server.start()
    await ready(page, 2)
    await page.evaluate("() => live.say('count 4')")
    await answered(page, counted(4))
    assert len(await events(page, "agent.llm.response.start")) == 2


async def test_an_interrupt_stops_the_answer_where_it_is(
    context: BrowserContext, server: LiveServer
) -> None:
    page = await opened(context, server)
    await page.evaluate("() => live.say('count 100000')")
    await said(page, "w5😀")
    await page.evaluate("() => live.interrupt()")
    await page.wait_for_function(
        "() => Object.values(answers).some(({ state }) => state === 'interrupted')"
    )
    [answer] = await answers(page)
    assert counted(100_000).startswith(answer["text"])
    await page.evaluate("() => live.say('count 2')")
    await answered(page, counted(2))
    assert (await answers(page))[0]["text"] == answer["text"]


async def test_of_two_tabs_with_one_session_the_older_is_told_and_stays_away(
    context: BrowserContext, server: LiveServer
) -> None:
    older = await opened(context, server)
    await older.evaluate("() => live.say('count 2')")
    await answered(older, counted(2))
    session_id = await older.evaluate("() => live.sessionId")
    newer = await opened(context, server, sessionId=session_id, after=0)
    await answered(newer, counted(2))
    await older.wait_for_function("() => live.state === 'closed'")
    assert (await older.evaluate("() => states.at(-1)"))["code"] == 4409
    await newer.evaluate("() => live.say('count 4')")
    await answered(newer, counted(4))
    assert await older.evaluate("() => live.state") == "closed"
    with pytest.raises(Exception, match="closed"):
        await older.evaluate("() => live.say('hello?')")


async def test_without_its_token_a_client_is_refused_for_good_and_the_token_is_in_no_address(
    context: BrowserContext, tmp_path: Path
) -> None:
    server = LiveServer(tmp_path, TERTULIA_TOKEN="a-secret-that-is-long-enough-for-a-test")
    try:
        refused = await opened(context, server, token="wrong")
        await refused.wait_for_function("() => live.state === 'closed'")
        assert (await refused.evaluate("() => states.at(-1)"))["code"] == 4401
        page = await context.new_page()
        addresses: list[str] = []
        page.on("websocket", lambda socket: addresses.append(socket.url))
        await page.goto(f"{server.url}/health")
        await page.evaluate(OPEN, {"token": "a-secret-that-is-long-enough-for-a-test"})
        await page.evaluate("() => live.say('count 2')")
        await answered(page, counted(2))
        assert addresses == [f"ws://127.0.0.1:{server.port}/ws"]
    finally:
        server.kill()


async def test_the_end_of_the_call_closes_for_good_and_ends_the_iteration(
    context: BrowserContext, server: LiveServer
) -> None:
    page = await opened(context, server)
    await page.evaluate("""() => {
      window.read = [];
      window.reading = (async () => { for await (const e of live) read.push(e.type); })();
      live.say("goodbye");
    }""")
    await page.evaluate("() => reading")
    read = await page.evaluate("() => read")
    assert read[0] == "agent.ready"
    assert "agent.end_call" in read
    assert await page.evaluate("() => live.state") == "closed"
    assert (await page.evaluate("() => states.at(-1)"))["code"] == 1000


async def test_a_listener_may_close_the_session_while_it_is_told_that_it_is_open(
    context: BrowserContext, server: LiveServer
) -> None:
    page = await context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(error.message))
    await page.goto(f"{server.url}/health")
    await page.evaluate("""async () => {
      const { connect } = await import("/static/tertulia.js");
      window.live = connect("/ws", { storage: sessionStorage });
      live.on("agent.ready", () => live.close());
    }""")
    await page.wait_for_function("() => live.state === 'closed'")
    assert await page.evaluate("() => sessionStorage.length") == 0
    assert faults == []


async def test_listeners_hear_a_type_a_family_or_all_and_one_that_fails_harms_nobody(
    context: BrowserContext, server: LiveServer
) -> None:
    page = await opened(context, server)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(error.message))
    await page.evaluate("""() => {
      window.heard = { one: [], family: [], all: [], off: [] };
      live.on("agent.llm.response.end", (event) => heard.one.push(event.type));
      live.on("agent.*", () => { throw new Error("a listener failed"); });
      live.on("agent.*", (event) => heard.family.push(event.type));
      live.on("*", (event) => heard.all.push(event.type));
      live.on("*", (event) => heard.off.push(event.type))();
      live.say("count 2");
    }""")
    await answered(page, counted(2))
    heard = await page.evaluate("() => heard")
    assert heard["one"] == ["agent.llm.response.end"]
    assert heard["family"] == [kind for kind in heard["all"] if kind.startswith("agent.")]
    assert len(heard["all"]) > 3
    assert heard["off"] == []
    assert set(faults) == {"a listener failed"}


async def test_what_is_too_large_or_too_much_is_refused_where_it_is_said(
    context: BrowserContext, server: LiveServer
) -> None:
    page = await opened(context, server)
    await ready(page)
    with pytest.raises(Exception, match="at most 262144 bytes"):
        await page.evaluate("() => live.say('x'.repeat(300000))")
    server.kill()
    await page.wait_for_function("() => live.state === 'waiting'")
    with pytest.raises(Exception, match="wait for a connection already"):
        await page.evaluate("() => { while (true) live.say('once more'); }")


async def test_a_page_that_is_loaded_again_goes_on_with_its_session(
    context: BrowserContext, server: LiveServer
) -> None:
    page = await context.new_page()
    await page.goto(f"{server.url}/health")
    stored = OPEN.replace("...options,", "storage: sessionStorage,")
    await page.evaluate(stored, {})
    await page.evaluate("() => live.say('count 2')")
    await answered(page, counted(2))
    session_id = await page.evaluate("() => live.sessionId")
    await page.reload()
    await page.evaluate(stored, {})
    await ready(page)
    assert await page.evaluate("() => live.sessionId") == session_id
    await page.evaluate("() => live.say('count 3')")
    await answered(page, counted(3))
    assert [answer["text"] for answer in await answers(page)] == [counted(3)]
