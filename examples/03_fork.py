"""A fork is another way to go on; nothing is copied. A rewind goes back and can be undone."""

import asyncio

from tertulia import Runtime, Session


async def show(what: str, session: Session) -> None:
    """Print what a session says."""
    print(f"{what}:", " / ".join(message.text for message in await session.history()))


async def main() -> None:
    """Plan a trip in two ways."""
    async with Runtime("memory:") as runtime:
        trip = runtime.session("trip")
        japan = await trip.send_message({"role": "user", "content": "We go to Japan."})
        tokyo = await trip.send_message({"role": "user", "content": "First to Tokyo."})

        other = trip.fork("other-trip", at=japan.seq)
        await other.send_message({"role": "user", "content": "No, to Osaka."})
        await show("trip", trip)
        await show("other trip", other)

        await trip.rewind(japan.seq or 0)
        await show("rewound", trip)
        await trip.rewind(tokyo.seq or 0)
        await show("undone", trip)
        print("the audit has it all:", [event.type for event in await trip.events(since=4)])
        print("both can be proved:", bool(await trip.verify() and await other.verify()))


asyncio.run(main())
