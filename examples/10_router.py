"""One conversation, any of several providers: when one fails the next goes on with the same turn.

Here scripts stand in for the models; in earnest they are "openai:…" and "anthropic:…".
"""

import asyncio

from tertulia import Agent, AgentRouter
from tertulia.errors import ModelError, RoutingError
from tertulia.testing import ScriptedModel

DOWN = ModelError("the provider is down", status=503)


async def main() -> None:
    """Fail over, take turns, and choose by what is asked."""
    first = Agent("first", model=ScriptedModel("Hello, Ann.", DOWN, DOWN))
    second = Agent("second", model=ScriptedModel("Your name is Ann.", DOWN))
    session = AgentRouter([first, second]).session("chat")
    for text in ("I am Ann", "What is my name?"):
        response = await session.run_async(text)
        print(f"{response.agent}: {response.text}")
    try:
        await session.run_async("Are you there?")
    except RoutingError as error:
        print(f"{len(error.errors)} failed, and nothing was lost:", len(await session.history()))
    print("in the audit:", [event.body for event in await session.events(types="failover")][:1])

    poet = Agent("poet", model=ScriptedModel("Roses are red."))
    clerk = Agent("clerk", model=ScriptedModel("Four."))
    router = AgentRouter([poet, clerk], lambda text, _: "poet" if "poem" in text else "clerk")
    for text in ("A poem, please", "Two and two?"):
        print((await router.run(text)).agent)


asyncio.run(main())
