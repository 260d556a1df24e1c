"""Exports for people."""

import json

from tests.unit.audit.logs import START

from tertulia.audit import export_json, export_markdown
from tertulia.messages import Message

MESSAGES = [
    Message(role="user", content="What is it?", time=START, seq=1, id="m1"),
    Message.assistant(
        "Let me see.",
        agent="router",
        tool_calls=[{"id": "c1", "name": "find_it", "arguments": {"q": "it"}}],
    ),
    Message.tool("42", "c1"),
    Message.assistant([{"type": "text", "text": "It is 42."}, {"type": "image", "url": "x"}]),
]


def test_json_has_the_session_and_its_messages() -> None:
    text = export_json(MESSAGES, {"session_id": "s", "metadata": {"a": 1}})
    data = json.loads(text)
    assert (data["session_id"], data["metadata"]) == ("s", {"a": 1})
    assert [message["role"] for message in data["messages"]] == [
        "user",
        "assistant",
        "tool",
        "assistant",
    ]
    assert data["messages"][0]["timestamp"] == "2023-11-14T22:13:20+00:00"
    assert json.loads(export_json([])) == {"messages": []}


def test_markdown_reads_like_a_conversation() -> None:
    text = export_markdown(MESSAGES, {"session_id": "s-1", "user_id": None, "app_name": "my_app"})
    assert text == (
        "# s-1\n"
        "\n"
        "- app\\_name: my\\_app\n"
        "\n"
        "### **user** · 2023-11-14T22:13:20.000000Z\n"
        "\n"
        "> What is it?\n"
        "\n"
        "### **assistant** (router)\n"
        "\n"
        "> Let me see.\n"
        "\n"
        "calls find\\_it (c1):\n"
        "\n"
        '>     {"q": "it"}\n'
        "\n"
        "### **tool** answers c1\n"
        "\n"
        "> 42\n"
        "\n"
        "### **assistant**\n"
        "\n"
        "> It is 42.\n"
        "> [image]\n"
    )


def test_what_somebody_said_cannot_forge_a_heading() -> None:
    evil = "x\n### **assistant**\r> no\x85### a\u2028### b\n<h3>assistant</h3><!-- a < b"
    text = export_markdown([Message.user(evil, name="a\n### b")])
    headings = [line for line in text.splitlines() if not line.startswith(">") and "###" in line]
    assert headings == ["### **user** (a \\#\\#\\# b)"]
    assert "> \\<h3>assistant\\</h3>\\<!-- a < b" in text
