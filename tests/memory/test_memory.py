"""What is remembered outlives sessions, and belongs to one user or app."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import tertulia
from tertulia import (
    Agent,
    Memory,
    RunContext,
    Runtime,
    Session,
    SQLiteStore,
    ToolCall,
    VectorMemoryService,
    tool,
)
from tertulia.errors import ConfigurationError, InvalidInput, ScopeError
from tertulia.memory import TextMemoryService
from tertulia.memory.entries import MAX_CONTENT
from tertulia.testing.models import ScriptedModel


def keys(entries: list[Any]) -> list[str]:
    return [entry.key for entry in entries]


async def test_the_page_on_state_and_memory_runs(runtime: Runtime) -> None:
    session = Session(id="consultation-123", user_id="user-456")
    memory = Memory(service=VectorMemoryService())
    session.set_state("current_diagnosis", "initial assessment")
    session.set_state("symptoms_discussed", ["headache", "fatigue"])
    await memory.store("patient_history", "Chronic migraines, diagnosed 2020")
    await memory.store("medication_allergies", "Penicillin, Sulfa drugs")
    await session.end()
    await session.reopen()
    assert session.state_keys() == []
    assert keys(await memory.recall(["medication_allergies", "patient_history"])) == [
        "medication_allergies",
        "patient_history",
    ]
    assert runtime.memory().user_id is None


async def test_an_entry_comes_back_as_it_was_stored(runtime: Runtime) -> None:
    memory = runtime.memory("ann", "shop")
    stored = await memory.store("diet", "Vegetarian since May", type="fact", confidence=0.9)
    [found] = await memory.recall("diet")
    assert found == stored
    assert (found.key, found.content, found.score) == ("diet", "Vegetarian since May", None)
    assert found.metadata == {"type": "fact", "confidence": 0.9}
    assert found.created == found.updated
    assert abs((datetime.now(UTC) - found.created).total_seconds()) < 60
    assert (memory.user_id, memory.app_name) == ("ann", "shop")
    assert repr(memory) == "Memory(user_id='ann', app_name='shop')"


async def test_storing_again_replaces_and_keeps_when_it_began(runtime: Runtime) -> None:
    memory = runtime.memory("ann")
    first = await memory.store("city", "Lives in Madrid", source="chat")
    second = await memory.store("city", "Lives in Oslo")
    assert (second.content, second.metadata) == ("Lives in Oslo", {})
    assert second.created == first.created < second.updated
    assert await memory.search("Madrid") == []
    assert keys(await memory.search("oslo")) == ["city"]


async def test_recall_leaves_out_what_is_not_there_and_keeps_the_order(runtime: Runtime) -> None:
    memory = runtime.memory("ann")
    for key in ("a", "b", "c"):
        await memory.store(key, f"content of {key}")
    assert keys(await memory.recall(["c", "missing", "a", "c"])) == ["c", "a"]
    assert await memory.recall([]) == []
    assert await memory.recall("missing") == []


async def test_what_is_forgotten_is_found_no_more(runtime: Runtime) -> None:
    memory = runtime.memory("ann")
    await memory.store("patient_history", "Chronic migraines")
    assert await memory.forget("patient_history")
    assert not await memory.forget("patient_history")
    assert await memory.recall("patient_history") == []
    assert await memory.search("migraines") == []
    assert await memory.entries() == []


async def test_two_users_two_apps_and_the_app_itself_see_nothing_of_each_other(
    runtime: Runtime,
) -> None:
    memories = [
        runtime.memory("ann"),
        runtime.memory("bob"),
        runtime.memory("ann", "shop"),
        runtime.memory(None, "shop"),
        runtime.memory(),
    ]
    for number, memory in enumerate(memories):
        await memory.store("secret", f"the password is number{number}")
    for number, memory in enumerate(memories):
        mine = [f"the password is number{number}"]
        assert [entry.content for entry in await memory.search("password")] == mine
        assert [entry.content for entry in await memory.recall("secret")] == mine
        assert [entry.content for entry in await memory.entries()] == mine
        assert await memory.search(f"number{(number + 1) % 5}") == []
    await memories[0].forget("secret")
    assert [len(await memory.entries()) for memory in memories] == [0, 1, 1, 1, 1]


async def test_a_word_is_as_rare_as_it_is_in_ones_own_memory(
    runtime: Runtime,
) -> None:
    ann, bob = runtime.memory("ann"), runtime.memory("bob")
    await ann.store("one", "pasta and rice")
    await ann.store("two", "pasta and bread")
    before = await ann.search("rice bread pasta")
    for number in range(20):
        await bob.store(f"{number}", "rice rice rice")
    assert await ann.search("rice bread pasta") == before


async def test_the_memory_of_a_session_is_that_of_its_user_in_its_app(runtime: Runtime) -> None:
    monday = runtime.session("monday", user_id="ann", app_name="shop")
    await monday.memory.store("size", "Wears size 40")
    friday = runtime.session("friday", user_id="ann", app_name="shop")
    assert keys(await friday.memory.search("size")) == ["size"]
    assert keys(await runtime.memory("ann", "shop").recall("size")) == ["size"]
    assert await runtime.memory("ann").recall("size") == []
    elsewhere = Memory(user_id="ann", app_name="shop", runtime=runtime)
    assert keys(await elsewhere.recall("size")) == ["size"]


async def test_a_tool_remembers_and_recalls_for_the_user_of_its_session(runtime: Runtime) -> None:
    @tool
    async def remember(context: RunContext, fact: str) -> str:
        """Remember a fact.

        Args:
            fact: What to remember.
        """
        await context.session.memory.store("fact", fact)
        return str([entry.content for entry in await context.session.memory.search(fact)])

    model = ScriptedModel(ToolCall("c1", "remember", {"fact": "likes skiing"}), "Done.")
    agent = Agent(name="a", model=model, tools=[remember], runtime=runtime)
    session = agent.session("s", user_id="ann")
    await session.run_async("I like skiing.")
    assert model.requests[1].messages[-1].text == "['likes skiing']"
    assert keys(await runtime.memory("ann").entries()) == ["fact"]


async def test_a_session_without_a_user_has_no_memory_to_share(runtime: Runtime) -> None:
    with pytest.raises(ScopeError, match="Memory\\(app_name"):
        _ = runtime.session("anonymous").memory


async def test_the_owner_that_is_stored_says_whose_memory_a_session_has(runtime: Runtime) -> None:
    await runtime.session("s", user_id="ann").send_message({"role": "user", "content": "hi"})
    assert runtime.session("s").memory.user_id == "ann"


async def test_nothing_handed_out_or_given_is_an_alias(runtime: Runtime) -> None:
    memory = runtime.memory("ann")
    given = {"tags": ["a"]}
    stored = await memory.store("k", "text", **given)
    given["tags"].append("b")
    stored.metadata["tags"].append("c")
    [found] = await memory.recall("k")
    assert found.metadata == {"tags": ["a"]}
    with pytest.raises(AttributeError):
        found.content = "changed"  # pyright: ignore[reportAttributeAccessIssue]


async def test_entries_come_a_page_at_a_time(runtime: Runtime) -> None:
    memory = runtime.memory("ann")
    for number in range(5):
        await memory.store(f"k{number}", "text")
    assert keys(await memory.entries(limit=2)) == ["k0", "k1"]
    assert keys(await memory.entries(limit=2, after="k1")) == ["k2", "k3"]
    assert keys(await memory.entries(after="k3")) == ["k4"]
    with pytest.raises(InvalidInput, match="begin again"):
        await memory.entries(after="gone")


@pytest.mark.parametrize(
    ("method", "arguments", "words"),
    [
        ("store", ("", "text"), "must not be empty"),
        ("store", ("k\n", "text"), "control characters"),
        ("store", ("k", ""), "content must not be empty"),
        ("store", ("k", " \n"), "content must not be empty"),
        ("store", ("k", 7), "must be text"),
        ("store", ("k", "x" * (MAX_CONTENT + 1)), "at most 65536"),
        ("store", ("k", "é" * (MAX_CONTENT // 2 + 1)), "at most 65536"),
        ("recall", ([7],), "must be text"),
        ("recall", ([f"{n}" for n in range(1_001)],), "at most 1000"),
        ("search", ("",), "must not be empty"),
        ("search", ("x" * 10_001,), "at most 10000"),
        ("search", ("x", 0), "from 1 to 1000"),
        ("search", ("x", 1_001), "from 1 to 1000"),
        ("search", ("x", True), "from 1 to 1000"),
        ("search", ("x", None), "from 1 to 1000"),
        ("entries", (-1,), "from 1 to 1000"),
        ("forget", ("",), "must not be empty"),
    ],
)
async def test_what_cannot_be_is_refused(
    runtime: Runtime, method: str, arguments: tuple[Any, ...], words: str
) -> None:
    memory = runtime.memory("ann")
    with pytest.raises(InvalidInput, match=words):
        await getattr(memory, method)(*arguments)
    assert await memory.entries() == []


async def test_metadata_is_json_of_a_bounded_size(runtime: Runtime) -> None:
    memory = runtime.memory("ann")
    with pytest.raises(InvalidInput, match="bytes of JSON"):
        await memory.store("k", "text", note="x" * 20_000)
    with pytest.raises(InvalidInput, match="no JSON value"):
        await memory.store("k", "text", when=datetime.now(UTC))
    assert await memory.entries() == []


async def test_a_content_of_the_greatest_size_is_kept_whole(runtime: Runtime) -> None:
    memory = runtime.memory("ann")
    text = ("needle " + "hay " * (MAX_CONTENT // 4))[:MAX_CONTENT]
    await memory.store("long", text)
    [found] = await memory.search("needle")
    assert found.content == text


async def test_the_file_is_reopened_with_everything_in_it(
    tmp_path: Path, model_folder: Path
) -> None:
    service = VectorMemoryService(f"local:{model_folder}")
    async with Runtime(SQLiteStore(tmp_path / "kept.db")) as runtime:
        memory = Memory(service, "ann", runtime=runtime)
        await memory.store("health", "Has a migraine now and then", severity=2)
    async with Runtime(SQLiteStore(tmp_path / "kept.db")) as runtime:
        memory = Memory(service, "ann", runtime=runtime)
        for query in ("migraine", "pill"):
            [found] = await memory.search(query)
            assert (found.key, found.metadata) == ("health", {"severity": 2})


def test_what_is_no_service_is_refused() -> None:
    wrong: Any = VectorMemoryService
    with pytest.raises(InvalidInput, match="is no service"):
        Memory(service=wrong)
    with pytest.raises(InvalidInput, match="is no service"):
        Memory(service="vector")  # pyright: ignore[reportArgumentType]


async def test_a_store_that_keeps_no_memories_says_so() -> None:
    class Bare:
        """A store of somebody else's."""

        url = "bare:"

        async def commit(self, change: Any) -> Any:
            raise NotImplementedError

        async def close(self) -> None:
            return

    runtime = Runtime(Bare())  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigurationError, match="bare: keeps no memories"):
        await runtime.memory("ann").store("k", "text")
    await runtime.close()


async def test_words_alone_are_enough(runtime: Runtime) -> None:
    memory = Memory(TextMemoryService(), "ann", runtime=runtime)
    await memory.store("a", "likes pasta")
    await memory.store("b", "likes pasta with tomatoes")
    found = await memory.search("tomatoes, pasta?")
    assert keys(found) == ["b", "a"]
    assert found[0].score == 1
    assert 0 < (found[1].score or 0) < 1
    assert keys(await memory.search("likes", limit=1)) == ["a"]
    assert await memory.search("???") == []


def test_the_package_gives_memory_when_it_is_asked_for() -> None:
    assert tertulia.Memory is Memory
    assert tertulia.VectorMemoryService is VectorMemoryService


async def test_many_writers_on_one_file_lose_nothing(tmp_path: Path) -> None:
    runtimes = [Runtime(SQLiteStore(tmp_path / "kept.db")) for _ in range(2)]
    memories = [runtime.memory("ann") for runtime in runtimes]
    await asyncio.gather(
        *(memories[n % 2].store(f"k{n}", f"content number{n}") for n in range(100)),
        *(memories[n % 2].store("same", f"version{n}") for n in range(20)),
    )
    for memory in memories:
        assert len(await memory.entries(limit=1_000)) == 101
        assert keys(await memory.search("number57")) == ["k57"]
        assert len(await memory.search(" ".join(f"version{n}" for n in range(20)))) == 1
    for runtime in runtimes:
        await runtime.close()


def test_a_memory_serves_two_loops_one_after_the_other(tmp_path: Path) -> None:
    runtime = Runtime(SQLiteStore(tmp_path / "kept.db"))
    memory = runtime.memory("ann")

    async def visit(number: int) -> list[str]:
        await memory.store(f"k{number}", "content")
        return keys(await memory.search("content"))

    assert asyncio.run(visit(1)) == ["k1"]
    assert asyncio.run(visit(2)) == ["k2", "k1"]
    asyncio.run(runtime.close())


def test_another_process_finds_what_was_stored(tmp_path: Path) -> None:
    code = (
        "import asyncio, sys; from tertulia import Runtime\n"
        "async def main():\n"
        "    async with Runtime('sqlite:///kept.db') as runtime:\n"
        "        memory = runtime.memory('ann')\n"
        "        found = [entry.content for entry in await memory.search('pasta')]\n"
        "        await memory.store(sys.argv[1], 'likes pasta ' + sys.argv[1])\n"
        "        print(found)\n"
        "asyncio.run(main())\n"
    )
    told = [
        subprocess.run(
            [sys.executable, "-c", code, name],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for name in ("one", "two")
    ]
    assert told == ["[]\n", "['likes pasta one']\n"]
