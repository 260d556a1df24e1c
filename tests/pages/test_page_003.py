"""The page on sessions with state and audit: every block, with only its import lines changed."""

from __future__ import annotations

import json
from typing import Literal

import pytest
from pydantic import BaseModel
from tests.pages.players import Player, Provider
from tests.pages.running import block, run

from tertulia import Message, Session, ToolCall, tool
from tertulia.errors import RetentionRefused

# -- what the page takes for granted


@tool(read_only=True)
def search_knowledge_base(query: str) -> str:
    """Search the articles on charges and payments."""
    return f"nothing on {query}"


@tool
def create_ticket(title: str) -> str:
    """Open a ticket."""
    return f"opened: {title}"


@tool(read_only=True)
def search_papers() -> list[str]:
    """Find recent papers."""
    return ["Surface codes at scale"]


@tool(read_only=True)
def search_github() -> list[str]:
    """Find implementations."""
    return ["qec/decoder"]


@tool(read_only=True)
def write_document(text: str) -> str:
    """Keep a document."""
    return text


@tool(read_only=True)
def classify(question: str) -> str:
    """Say what a question is about."""
    return "billing"


@tool(read_only=True)
def plans() -> list[str]:
    """List the plans that can be bought."""
    return ["basic", "pro"]


@tool(read_only=True)
def devices() -> list[str]:
    """List the devices of a customer."""
    return ["router"]


class Routing(BaseModel):
    """What the router answers with."""

    category: Literal["billing", "technical"]


def wrote(history: list[Message]) -> list[tuple[str | None, str]]:
    """Which agent wrote what, of what agents said."""
    return [(m.agent, m.text) for m in history if m.role == "assistant" and m.text]


# -- with agents


async def test_integration_with_agents_and_the_default_model(openai: Provider) -> None:
    openai.plays(
        ToolCall("c1", "search_knowledge_base", {"query": "charges"}), "Which charge is it?"
    )
    names = await run(
        "003_integration_with_agents",
        search_kb_tool=search_knowledge_base,
        create_ticket_tool=create_ticket,
    )
    assert [(message.role, message.text) for message in names["history"]] == [
        ("user", "I need help with my recent charge"),
        ("assistant", ""),
        ("tool", "nothing on charges"),
        ("assistant", "Which charge is it?"),
    ]
    assert names["result"].text == "Which charge is it?"
    assert names["history"][-1].agent == "support_agent"
    assert openai.requests()[0][0] == ("system", "You are a helpful customer support agent.")
    [offered, _] = [[t["function"]["name"] for t in r["tools"]] for r in openai.server.requests]
    assert offered == ["search_knowledge_base", "create_ticket"]


async def test_integration_with_agents_and_the_offline_model() -> None:
    names = await run(
        "003_integration_with_agents",
        search_kb_tool=search_knowledge_base,
        create_ticket_tool=create_ticket,
    )
    history = names["history"]
    assert (history[0].role, history[0].text) == ("user", "I need help with my recent charge")
    assert (history[-1].agent, history[-1].text) == ("support_agent", names["result"].text)
    assert names["session"].metadata == {"ticket_type": "billing"}


async def test_multi_agent_coordination(player: Player) -> None:
    player.plays(
        ToolCall("c1", "search_papers", {}),
        "One paper.",
        ToolCall("c2", "search_github", {}),
        "One decoder.",
        "A report.",
    )
    names = await run(
        "003_multi_agent",
        Agent=player.unnamed,
        paper_search=search_papers,
        github_search=search_github,
        document_tool=write_document,
    )
    history = names["full_history"]
    assert wrote(history) == [
        ("literature_reviewer", "One paper."),
        ("code_analyzer", "One decoder."),
        ("synthesizer", "A report."),
    ]
    assert [m.text for m in history if m.role == "user"] == [
        "Find recent papers",
        "Find implementations",
        "Synthesize findings",
    ]
    seen = [text for _, text in player.requests()[-1]]
    assert seen == [message.text for message in history[:-1]], "all of it, the tools' words too"
    assert names["report"].text == "A report."
    assert names["session"].get_state("research_topic") == "quantum error correction"
    assert names["session"].floor == "synthesizer"


ROUTER = "    tools=[classification_tool]\n"


@pytest.mark.parametrize(
    ("category", "specialist"), [("billing", "billing_specialist"), ("technical", "tech_support")]
)
async def test_agent_handoff_pattern(player: Player, category: str, specialist: str) -> None:
    player.plays(
        ToolCall("c1", "classify", {"question": "upgrade"}), {"category": category}, "Choose pro."
    )
    code = block("003_handoff")
    assert ROUTER in code
    names = await run(
        "003_handoff",
        code=code.replace(ROUTER, ROUTER.replace("]\n", "],\n    output_type=Routing\n")),
        Agent=player.unnamed,
        Routing=Routing,
        classification_tool=classify,
        billing_tools=[plans],
        tech_tools=[devices],
    )
    assert names["routing"].output == Routing.model_validate({"category": category})
    assert names["result"].text == "Choose pro."
    history = await names["session"].history()
    assert [message.agent for message in history if message.role == "assistant"] == [
        "router",
        "router",
        specialist,
    ]
    seen = player.requests()[-1]
    assert ("user", "How do I upgrade my subscription?") in seen
    assert ("tool", "billing") in seen, "the specialist sees what the router's tool said"


async def test_a_router_without_an_output_type_is_told_what_is_missing(player: Player) -> None:
    player.plays("billing")
    with pytest.raises(AttributeError, match="output_type="):
        await run("003_handoff", Agent=player.unnamed, classification_tool=classify)


async def test_session_export_and_audit(player: Player) -> None:
    player.plays("Nobody unusual.")
    names = await run("003_export_and_audit", Agent=player.unnamed)
    session = names["session"]
    lines = [json.loads(line) for line in names["jsonl_export"].splitlines()]
    for line in lines[:-1]:
        assert {"timestamp", "role", "message", "metadata", "tool_calls"} <= line.keys()
    assert [(line["role"], line["message"]) for line in lines[:-1] if line["role"]] == [
        ("user", "Analyze user access patterns"),
        ("assistant", "Nobody unusual."),
    ]
    assert len(names["recent_events"]) == len(lines) - 1
    assert session.metadata["auditor"] == "external-firm"
    assert await session.verify()


TEAM = [f"my color {number} is red" for number in range(160)]


async def test_long_running_sessions_with_pruning(openai: Provider) -> None:
    session = Session(id="long-conversation-456", user_id="user-123")
    await session.send_messages([{"role": "user", "content": text} for text in TEAM])
    important = str(list(range(1, 31)))  # of the 40 messages of each request, and of the last 30
    openai.plays(*[important] * 4, "They like red.")
    pruned = (await run("003_long_running_pruning"))["session"]
    history = await pruned.history()
    assert history[0].role == "system"
    assert "They like red." in history[0].text
    kept = [text for number, text in enumerate(TEAM) if number >= 120 or number % 40 < 30]
    assert [message.text for message in history[1:]] == kept[-50:]
    reports = await pruned.events(types="session.pruned")
    told = [(event.body["strategy"], event.body["hidden"]) for event in reports]
    assert told == [("keep_important", 30), ("sliding_window", 30), ("summarize_old", 50)]
    assert len([e for e in await pruned.events() if e.type == "message.added"]) == 160
    assert pruned.metadata == {"type": "ongoing_project"}


async def test_long_running_sessions_with_pruning_by_the_offline_model() -> None:
    session = Session(id="long-conversation-456", user_id="user-123")
    await session.send_messages([{"role": "user", "content": text} for text in TEAM])
    pruned = (await run("003_long_running_pruning"))["session"]
    history = await pruned.history()
    assert [message.text for message in history[1:]] == TEAM[-50:]
    assert "color" in history[0].text


# -- sessions alone


async def test_creating_a_session_and_managing_messages() -> None:
    names = await run("003_creating_a_session")
    session = names["session"]
    assert (session.id, session.app_name, session.user_id) == (
        "conv-2024-001",
        "research_assistant",
        "user-123",
    )
    await run("003_send_messages", session=session)
    names = await run("003_get_history", session=session)
    assert [m.role for m in names["all_messages"]] == ["user", "assistant"]
    assert names["messages"] == names["all_messages"]
    assert [m.text for m in names["user_messages"]] == [
        "What are the key challenges in AI alignment?"
    ]


async def test_scoped_state() -> None:
    session = Session(id="s", app_name="shop", user_id="user-123")
    await run("003_scoped_state", session=session)
    await session.flush()
    other = Session(id="t", app_name="shop", user_id="user-123")
    assert session.get_state("shopping_cart") == ["item1", "item2"]
    assert other.get_state("language", scope="user") == "English"
    assert other.get_state("feature_flags", scope="app") == {"new_ui": True}
    assert session.get_state("processing_step", scope="temp") == "validation"
    assert other.get_state("shopping_cart") is None


async def test_retention_for_compliance() -> None:
    session = (await run("003_retention_compliance"))["session"]
    await session.send_message({"role": "user", "content": "hello"})
    with pytest.raises(RetentionRefused):
        await session.delete()


async def test_retention_for_performance() -> None:
    session = (await run("003_retention_performance"))["session"]
    await session.send_messages([{"role": "user", "content": str(n)} for n in range(1_005)])
    assert len(await session.history()) == 1_000


async def test_appropriate_state_scopes() -> None:
    session = Session(id="s", user_id="user-123")
    await run("003_scopes", session=session, content="draft", flags={"new_ui": True})
    await session.flush()
    assert session.get_state("draft_document") == "draft"
    assert session.state.app["feature_flags"] == {"new_ui": True}
    assert session.state.user["theme"] == "dark"


async def test_design_for_coordination() -> None:
    session = Session(id="s")
    names = await run("003_coordination", session=session)
    assert names["current_stage"] == "research"
    assert names["researcher_output"]["status"] == "completed"


async def test_retention_strategies() -> None:
    session = (await run("003_retention_strategies"))["session"]
    assert session.id == "temp-chat"
    assert session.retention["auto_prune"] is True
