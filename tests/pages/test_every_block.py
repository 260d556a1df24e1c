"""Every block of the pages that has to run is kept here, and a test runs it.

Page 000 lost its indentation; its blocks have that of page 001, line by line.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.pages.running import BLOCKS

PAGES_000_001 = {
    "1. Graph Construction": "graph_construction",
    "2. Event Hooks": "event_hooks",
    "Example: Complete Setup": "complete_setup",
}
PAGE_002 = {
    "Basic Usage": "basic_usage",
    "Custom Session ID": "custom_session_id",
    "System Prompt": "system_prompt",
    "Pre-populated History": "prepopulated_history",
    "run() - Synchronous": "run",
    "run_async() - Asynchronous": "run_async",
    "stream() - Streaming": "stream",
    "stream_async() - Async Streaming": "stream_async",
    "json() - Structured Output": "json",
    "Access History": "access_history",
    "Clear History": "clear_history",
    "Add Messages Manually": "add_messages",
    "Session Forking": "session_forking",
    "Save Session State": "save_session_state",
    "Restore Session State": "restore_session_state",
    "Memory Store (Default)": "memory_store",
    "SQLite Store": "sqlite_store",
    "Custom Store": "custom_store",
    "Sessions with Tools": "tools",
    "1. Use System Prompts": "use_system_prompts",
    "2. Manage History Length": "history_length",
    "3. Handle Errors Gracefully": "handle_errors",
    "4. Use Session IDs for Tracking": "session_ids_for_tracking",
}
PAGE_003 = {
    "Creating a Session": "creating_a_session",
    "Managing Messages: send": "send_messages",
    "Managing Messages: history": "get_history",
    "Scoped State Management": "scoped_state",
    "Integration with Agents": "integration_with_agents",
    "Multi-Agent Coordination": "multi_agent",
    "Agent Handoff Pattern": "handoff",
    "Session State vs Memory": "state_and_memory",
    "Session Export and Audit": "export_and_audit",
    "Long-Running Sessions with Pruning": "long_running_pruning",
    "Retention Policies: compliance": "retention_compliance",
    "Retention Policies: performance": "retention_performance",
    "1. Use Appropriate State Scopes": "scopes",
    "2. Design for Multi-Agent Coordination": "coordination",
    "3. Implement Retention Strategies": "retention_strategies",
}
WANTED = [
    *[f"000_{name}" for name in PAGES_000_001.values()],
    *[f"001_{name}" for name in PAGES_000_001.values()],
    *[f"002_{name}" for name in PAGE_002.values()],
    *[f"003_{name}" for name in PAGE_003.values()],
]
TESTS = "\n".join(path.read_text() for path in Path(__file__).parent.glob("test_page_*.py"))


def test_the_blocks_are_those_that_the_pages_have() -> None:
    assert sorted(path.stem for path in BLOCKS.iterdir()) == sorted(WANTED)


@pytest.mark.parametrize("name", WANTED)
def test_a_test_runs_the_block(name: str) -> None:
    assert re.search(rf'\brun(?:_now)?\(\s*"{name}"', TESTS)
