"""A router of sub-agents under the names of the other SDK."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from tests.compat.talking import talk

from tertulia.compat.atoms import (
    ChatChunk,
    ChatResponse,
    DeterministicRouter,
    SubAgent,
    ToolCall,
    function_tool,
)
from tertulia.compat.atoms.events import SDKAgentLogEvent, SDKEvent, SDKSystemLLMRequestEvent


class Script:
    """A model that says what it was told to say."""

    def __init__(self, *answers: str | ToolCall) -> None:
        self._answers = list(answers)
        self.asked: list[tuple[list[str], list[str]]] = []

    async def chat(self, messages: Any, stream: bool = False, tools: Any = None) -> Any:
        told = [f"{each['role']}: {each['content']}" for each in messages]
        self.asked.append((told, [each["function"]["name"] for each in tools or ()]))
        answer = self._answers.pop(0)
        if isinstance(answer, ToolCall):
            return ChatResponse("", [answer])
        return self._stream(answer) if stream else ChatResponse(answer)

    async def _stream(self, answer: str) -> Any:
        yield ChatChunk(answer)
        yield ChatChunk(None, None, "stop")


def moves(events: list[SDKEvent]) -> list[tuple[Any, Any]]:
    logs = [e.payload for e in events if isinstance(e, SDKAgentLogEvent)]
    return [(each["from"], each["to"]) for each in logs if "from" in each]


def router(llm: Any, *tools: Any) -> DeterministicRouter:
    made = DeterministicRouter("desk", llm, "intake")
    made.add_sub_agent(SubAgent("intake", "Ask for the number.", list(tools)))
    made.add_sub_agent(SubAgent("verify", "Verify."))
    made.add_sub_agent(SubAgent("resolve", "Resolve."))
    return made


async def ask(client: Any, text: str) -> tuple[str, list[tuple[Any, Any]]]:
    await client.send(SDKSystemLLMRequestEvent(messages=[{"role": "user", "content": text}]))
    events = await client.until("system.llm.request")
    return "".join(getattr(each, "text", "") for each in events), moves(events)


async def test_a_turn_has_the_prompt_and_the_tools_of_one_sub_agent_and_then_moves() -> None:
    @function_tool
    def look_up(number: str) -> None:
        desk.set_state(known=number == "7")

    llm = Script(
        "Which number?", ToolCall("c1", "look_up", '{"number": "7"}'), "Found it.", "All done."
    )
    desk = router(llm, look_up)
    desk.add_transition("intake", "resolve", when=lambda state: state["known"])
    desk.add_transition("intake", "intake")
    desk.validate()
    async with talk(lambda session: session.add_node(desk)) as client:
        assert desk.active is None
        assert await ask(client, "Hi") == ("Which number?", [(None, "intake")])
        assert await ask(client, "It is 7") == ("Found it.", [("intake", "resolve")])
        assert await ask(client, "And?") == ("All done.", [])
    assert desk.active == "resolve"
    assert llm.asked == [
        (["system: Ask for the number.", "user: Hi"], ["look_up"]),
        (["system: Ask for the number.", "user: It is 7"], ["look_up"]),
        (["system: Ask for the number.", "user: It is 7", "assistant: ", "tool: null"], []),
        (["system: Resolve.", "user: And?"], []),
    ]


async def test_ways_are_tried_in_order_and_one_without_a_condition_last(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(state: dict[str, Any]) -> bool:
        return state["nothing"]

    desk = router(Script("One.", "Two."))
    desk.add_transition("intake", "verify")
    desk.add_transition("intake", "intake", when=broken)
    desk.add_transition("intake", "resolve", when=lambda state: state.get("known"))
    async with talk(lambda session: session.add_node(desk)) as client:
        with caplog.at_level(logging.WARNING):
            assert (await ask(client, "Hi"))[1] == [(None, "intake"), ("intake", "verify")]
        assert "the way from intake to intake: KeyError('nothing')" in caplog.text
        assert (await ask(client, "Hi"))[1] == []


async def test_the_state_is_told_as_it_was_at_the_move() -> None:
    desk = router(Script("One."))
    desk.set_state(thing=object)
    async with talk(lambda session: session.add_node(desk)) as client:
        await client.send(SDKSystemLLMRequestEvent(messages=[{"role": "user", "content": "Hi"}]))
        events = await client.until("system.llm.request")
    [log] = [each for each in events if isinstance(each, SDKAgentLogEvent)]
    assert log.name == "agent.transition"
    assert log.payload["state"] == {"thing": str(object)}


def test_a_name_that_is_nobodys_is_refused() -> None:
    with pytest.raises(ValueError, match="start 'x' is not a registered sub-agent"):
        DeterministicRouter("desk", Script(), "x").validate()
    with pytest.raises(ValueError, match="transition target 'x'"):
        router(Script()).add_transition("intake", "x").validate()
    with pytest.raises(ValueError, match="transition source 'x'"):
        router(Script()).add_transition("x", "intake").validate()
    with pytest.raises(ValueError, match="duplicate sub-agent id: 'verify'"):
        router(Script()).add_sub_agent(SubAgent("verify", ""))
