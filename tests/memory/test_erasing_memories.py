"""What is forgotten or erased is in no file any more, and does not come back."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tertulia import Memory, Runtime, SQLiteStore, VectorMemoryService
from tertulia.stores.vectors import packed
from tertulia.testing.models import ScriptedModel

WORDS = ("quetzalcoatl", "xylophonist", "brobdingnag")
SAID = {"role": "user", "content": f"I met a {WORDS[0]} and a {WORDS[1]}."}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kept.db"


def left(path: Path) -> set[str]:
    """The words that can still be read in the file or in its journal."""
    raw = b"".join(
        each.read_bytes() for each in path.parent.glob(f"{path.name}*") if each.is_file()
    )
    assert len(raw) > 10_000
    return {word for word in WORDS if word.encode() in raw.lower()}


async def test_the_words_are_in_the_file_while_they_are_remembered(path: Path) -> None:
    async with Runtime(SQLiteStore(path)) as runtime:
        await runtime.memory("ann").store(WORDS[0], f"a {WORDS[1]}", note=WORDS[2])
        assert left(path) == set(WORDS)


async def test_what_is_forgotten_is_not_in_the_file(path: Path) -> None:
    async with Runtime(SQLiteStore(path)) as runtime:
        memory = runtime.memory("ann")
        await memory.store(WORDS[0], f"a {WORDS[1]}", note=WORDS[2])
        await memory.store("other", "stays")
        assert await memory.forget(WORDS[0])
        assert left(path) == set()
        assert len(await memory.search("stays")) == 1


async def test_what_is_replaced_is_not_in_the_file_once_something_is_erased(path: Path) -> None:
    async with Runtime(SQLiteStore(path)) as runtime:
        memory = runtime.memory("ann")
        await memory.store("k", " ".join(WORDS))
        await memory.store("k", "something else")
        await runtime.erase_user("bob")
        assert left(path) == set()


async def test_an_erased_user_leaves_no_word_and_no_vector(path: Path, model_folder: Path) -> None:
    service = VectorMemoryService(f"local:{model_folder}")
    async with Runtime(SQLiteStore(path)) as runtime:
        for app in (None, "shop"):
            memory = Memory(service, "ann-from-kyoto", app, runtime=runtime)
            await memory.store(WORDS[0], f"a {WORDS[1]} with a migraine", note=WORDS[2])
        session = runtime.session("s", user_id="ann-from-kyoto")
        await session.send_message(SAID)
        await runtime.memory().ingest_from_session(session, "messages")
        [vector] = await _embedded(service, f"{WORDS[0]}: a {WORDS[1]} with a migraine")
        assert vector in path.read_bytes() + Path(f"{path}-wal").read_bytes()

        erased = await runtime.erase_user("ann-from-kyoto")
        assert (erased.sessions, erased.values) == (1, 2)
        assert left(path) == set()
        raw = path.read_bytes() + Path(f"{path}-wal").read_bytes()
        assert vector not in raw
        assert b"ann-from-kyoto" not in raw
        assert await Memory(service, "ann-from-kyoto", runtime=runtime).entries() == []
        assert await runtime.memory().search("met") == []


async def _embedded(service: VectorMemoryService, text: str) -> list[bytes]:
    embedder = await service.embedder()
    assert embedder is not None
    return [packed(vector) for vector in await embedder.embed([text])]


async def test_no_word_of_a_user_with_many_memories_stays_in_the_index(path: Path) -> None:
    randomness = random.Random(7)
    syllables = [a + b for a in "bcdfglmnprstvz" for b in "aeiou"]
    mine = {"zz" + "".join(randomness.choices(syllables, k=4)) for _ in range(4_000)}
    async with Runtime(SQLiteStore(path)) as runtime:
        session = runtime.session("s", user_id="ann")
        other = runtime.session("t", user_id="bob")
        for kept, words in ((session, sorted(mine)), (other, [word[2:] for word in mine])):
            texts = [" ".join(words[n : n + 10]) for n in range(0, len(words), 10)]
            await kept.send_messages([{"role": "user", "content": text} for text in texts])
            await kept.memory.ingest_from_session(kept, "messages")
        one = next(iter(mine))
        assert one.encode() in path.read_bytes() + Path(f"{path}-wal").read_bytes()
        await runtime.erase_user("ann")
        raw = path.read_bytes() + Path(f"{path}-wal").read_bytes()
        assert [word for word in mine if word.encode() in raw] == []
        assert len(await other.memory.search(one[2:])) == 1


async def test_a_deleted_session_takes_what_was_taken_from_it_out_of_the_file(path: Path) -> None:
    async with Runtime(SQLiteStore(path)) as runtime:
        session = runtime.session("s", user_id="ann")
        sent = await session.send_message(SAID)
        model = ScriptedModel(f'[{{"fact": "Knows a {WORDS[2]}", "sources": [{sent.seq}]}}]')
        await session.memory.ingest_from_session(session, model=model)
        assert left(path) == set(WORDS)
        await session.delete()
        assert left(path) == set()


async def test_a_memory_does_not_come_back_with_a_backup(path: Path, tmp_path: Path) -> None:
    backup = tmp_path / "backup" / "old.db"
    backup.parent.mkdir()
    async with Runtime(SQLiteStore(path)) as runtime:
        await runtime.memory("ann").store("k", WORDS[0])
        await runtime.memory("bob").store("k", "stays")
        session = runtime.session("s", user_id="bob")
        await session.send_message({"role": "user", "content": WORDS[1]})
        await session.memory.ingest_from_session(session, "messages")
        runtime.backup(str(backup))
        await runtime.erase_user("ann")
        await session.delete()
    Runtime.restore(str(backup), str(path))
    async with Runtime(SQLiteStore(path)) as runtime:
        assert await runtime.memory("ann").entries() == []
        assert [entry.content for entry in await runtime.memory("bob").entries()] == ["stays"]
        assert [entry.content for entry in await runtime.memory("bob").search("stays")] == ["stays"]
        assert runtime.doctor().faults == []


async def test_a_held_session_keeps_the_memories_of_its_user(runtime: Runtime) -> None:
    held, free = (runtime.session(name, user_id="ann") for name in ("held", "free"))
    for session in (held, free):
        await session.send_message({"role": "user", "content": f"said in {session.id}"})
        await session.memory.ingest_from_session(session, "messages")
    await held.hold("case 7")
    erased = await runtime.erase_user("ann")
    assert (erased.held, erased.values) == (["held"], 0)
    kept = await runtime.memory("ann").entries()
    assert [entry.content for entry in kept] == ["said in held"]


async def test_what_is_kept_about_a_user_is_exported(runtime: Runtime) -> None:
    await runtime.memory("ann").store("a", "one", tag="x")
    await runtime.memory("ann", "shop").store("b", "two")
    await runtime.memory("bob").store("c", "three")
    await runtime.memory().store("d", "four")
    memories = (await runtime.export_user("ann"))["memories"]
    assert {app: [each["key"] for each in kept] for app, kept in memories.items()} == {
        "": ["a"],
        "shop": ["b"],
    }
    assert memories[""][0]["content"] == "one"
    assert memories[""][0]["metadata"] == {"tag": "x"}


async def test_doctor_finds_nothing_wrong_with_memories(path: Path) -> None:
    async with Runtime(SQLiteStore(path)) as runtime:
        memory = runtime.memory("ann")
        for number in range(50):
            await memory.store(f"k{number}", f"content number {number}")
        for number in range(0, 50, 2):
            await memory.forget(f"k{number}")
        assert runtime.doctor().faults == []
