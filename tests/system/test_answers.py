"""Answers that are told again in any pieces: what the JavaScript client makes of them."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from playwright.async_api import BrowserContext
from tests.system.live_server import LiveServer

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

LETTERS = "ab 😀é"
TAKE = """async (told) => {
  const { Answers } = await import("/static/answers.js");
  return told.map((events) => {
    const answers = new Answers();
    const delivered = [];
    let last = null;
    for (const event of events) {
      if (event === null) { answers.suspect(); continue; }
      const taken = answers.take(event);
      if (taken.gap) return { gap: true };
      delivered.push(...taken.events);
      last = taken.answer;
    }
    return { delivered, last, suspects: answers.suspects() };
  });
}"""

Frame = dict[str, Any]


def start(*, resumed: bool = False) -> Frame:
    return {"type": "agent.llm.response.start", "request_id": "r", "resumed": resumed}


def chunk(text: str, offset: int | None) -> Frame:
    kind = "agent.llm.response.chunk"
    return {"type": kind, "request_id": "r", "text": text, "offset": offset}


def end(*, interrupted: bool = False) -> Frame:
    kind = "agent.llm.response.end"
    return {"type": kind, "request_id": "r", "interrupted": interrupted, "seq": 7}


def pieces(random: Random, text: str, begin: int, until: int) -> list[Frame]:
    """A stretch of a text in chunks of any length."""
    found: list[Frame] = []
    while begin < until:
        size = random.randint(1, until - begin)
        found.append(chunk(text[begin : begin + size], begin))
        begin += size
    return found


def told(random: Random, text: str) -> list[Frame | None]:
    """An answer over several connections: each one tells it again from its start."""
    frames: list[Frame | None] = [start()]
    for _ in range(random.randint(0, 3)):
        frames += pieces(random, text, 0, random.randint(0, len(text)))
        frames += [None, start(resumed=True)]
    return [*frames, *pieces(random, text, 0, len(text)), end()]


def text_of(events: list[Frame]) -> str:
    return "".join(event["text"] for event in events if event["type"].endswith("chunk"))


async def taken(context: BrowserContext, server: LiveServer, cases: list[Any]) -> list[Any]:
    """What the client makes of each case."""
    page = await context.new_page()
    await page.goto(f"{server.url}/health")
    return await page.evaluate(TAKE, cases)


async def test_an_answer_that_is_told_again_in_any_pieces_is_delivered_once(
    context: BrowserContext, server: LiveServer
) -> None:
    random = Random(4)
    texts = ["".join(random.choices(LETTERS, k=random.randint(0, 12))) for _ in range(500)]
    results = await taken(context, server, [told(random, text) for text in texts])
    for text, result in zip(texts, results, strict=True):
        kinds = [event["type"].rsplit(".", 1)[1] for event in result["delivered"]]
        assert (kinds[0], kinds[-1]) == ("start", "end")
        assert set(kinds[1:-1]) <= {"chunk"}
        assert text_of(result["delivered"]) == text
        last = {"requestId": "r", "request": None, "text": text, "state": "done", "seq": 7}
        last |= {"kind": None, "policy": None}
        assert result["last"] == last
        assert result["suspects"] is False


async def test_every_piece_says_how_many_characters_come_before_it(
    context: BrowserContext, server: LiveServer
) -> None:
    random = Random(5)
    cases = [told(random, "😀😀ab😀é") for _ in range(100)]
    for result in await taken(context, server, cases):
        before = 0
        for event in result["delivered"][1:-1]:
            assert event["offset"] == before
            before += len(event["text"])


async def test_an_answer_that_begins_anew_in_other_words_is_given_from_its_start(
    context: BrowserContext, server: LiveServer
) -> None:
    frames = [start(), chunk("I think", 0), None, start(resumed=True), chunk("I ", 0)]
    [result] = await taken(context, server, [[*frames, chunk("know", 2), end()]])
    kinds = [event["type"].rsplit(".", 1)[1] for event in result["delivered"]]
    assert kinds == ["start", "chunk", "start", "chunk", "end"]
    assert [event.get("text") for event in result["delivered"]][1::2] == ["I think", "I know"]
    assert result["last"]["text"] == "I know"


async def test_an_answer_of_which_less_is_kept_than_was_shown_is_cut_back(
    context: BrowserContext, server: LiveServer
) -> None:
    frames = [start(), chunk("one two three", 0), None, start(resumed=True), chunk("one two", 0)]
    [result] = await taken(context, server, [[*frames, end(interrupted=True)]])
    assert result["last"]["text"] == "one two"
    assert result["last"]["state"] == "interrupted"
    assert [event.get("text") for event in result["delivered"]][-2] == "one two"


async def test_a_missing_piece_is_noticed_and_a_piece_without_a_place_goes_to_the_end(
    context: BrowserContext, server: LiveServer
) -> None:
    missing = [start(), chunk("one", 0), chunk("three", 7)]
    placeless = [start(), chunk("one", None), chunk(" two", None), end()]
    gap, result = await taken(context, server, [missing, placeless])
    assert gap == {"gap": True}
    assert result["last"]["text"] == "one two"


async def test_an_open_answer_is_in_doubt_on_a_new_connection_until_it_goes_on(
    context: BrowserContext, server: LiveServer
) -> None:
    cut = [start(), chunk("one", 0), None]
    left, went_on = await taken(context, server, [cut, [*cut, start(resumed=True)]])
    assert left["suspects"] is True
    assert went_on["suspects"] is False


async def test_an_answer_that_another_request_lets_go_on_begins_again(
    context: BrowserContext, server: LiveServer
) -> None:
    def named(request: str, *events: Frame) -> list[Frame | None]:
        return [{**event, "metadata": {"request": request}} for event in events]

    events = named("r1", start(), chunk("One moment. ", 0), end())
    again = named("r1", start(resumed=True), chunk("One moment. ", 0))
    more = named("r2", start(), chunk("Pai", 0), chunk("d.", 3), end())
    [repeated, went_on] = await taken(context, server, [[*events, *again], [*events, *more]])
    assert text_of(repeated["delivered"]) == "One moment. "
    assert (went_on["last"]["request"], went_on["last"]["text"]) == ("r2", "Paid.")
    kinds = [event["type"].rsplit(".", 1)[1] for event in went_on["delivered"]]
    assert kinds == ["start", "chunk", "end", "start", "chunk", "chunk", "end"]
