"""The block of the page on sessions that shows what outlives them."""

from __future__ import annotations

from tests.pages.running import run

from tertulia.memory import Memory, VectorMemoryService


async def test_session_state_vs_memory() -> None:
    names = await run("003_state_and_memory", VectorMemoryService=VectorMemoryService)
    session, memory = names["session"], names["memory"]
    [history] = await memory.recall("patient_history")
    assert history.content == "Chronic migraines, diagnosed 2020"
    assert session.get_state("symptoms_discussed") == ["headache", "fatigue"]
    await session.end("the consultation is over")
    assert session.get_state("symptoms_discussed") is None, "the state ends with the session"
    later = Memory(service=VectorMemoryService())
    [allergies] = await later.recall("medication_allergies")
    assert allergies.content == "Penicillin, Sulfa drugs"
    found = await later.search("penicillin", limit=1)
    assert [entry.key for entry in found] == ["medication_allergies"]
