"""Memory outlives the conversations it came from, belongs to one user, and can be forgotten."""

import asyncio

from tertulia import Runtime


async def main() -> None:
    """Remember something of Ann on Monday, and use it on Friday."""
    async with Runtime("sqlite:///memory.db") as runtime:
        monday = runtime.session("monday", user_id="ann")
        monday.set_state("topic", "headaches")
        await monday.memory.store("allergies", "Penicillin and sulfa drugs", severity="high")
        await monday.send_message({"role": "user", "content": "I have had migraines since 2020."})
        await monday.memory.ingest_from_session(monday, strategy="messages")
        await monday.end()

    async with Runtime("sqlite:///memory.db") as runtime:
        friday = runtime.session("friday", user_id="ann")
        print("the topic on Friday:", friday.get_state("topic"))
        for entry in await friday.memory.search("Which drugs may I take for a migraine?"):
            print("remembered:", entry.content)

        other = runtime.session("other", user_id="bob")
        print("Bob finds:", await other.memory.search("migraine drugs"))

        await runtime.session("monday").delete()
        left = await friday.memory.entries()
        print("with Monday deleted:", [entry.content for entry in left])
        print("forgotten:", await friday.memory.forget("allergies"))


asyncio.run(main())
