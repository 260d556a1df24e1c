"""A swarm as the brain of a live session: policies, navigation, and what goes out unasked."""

from __future__ import annotations

from tests.live.talking import history, live

from tertulia import Agent, Policy, Swarm, SwarmNode
from tertulia.policies import PolicyContext
from tertulia.testing import ScriptedModel
from tertulia.wire.events import ResponseEnd


class NoAcme(Policy):
    """Nobody talks about Acme."""

    ban_message = "Let us talk about us."

    async def validate_input(self, message: str, context: PolicyContext) -> bool:
        return "acme" not in message.lower()


async def test_what_is_refused_is_answered_with_the_ban_message_and_no_model_sees_it() -> None:
    model = ScriptedModel("Hello.", "Blue.")
    shop = Swarm("shop", [Agent("clerk", model=model)], policies=[NoAcme()])
    async with live(SwarmNode(shop)) as (session, client):
        await client.says("hi")
        await client.until(ResponseEnd)
        await client.says("is Acme better?")
        await client.until(ResponseEnd, 2)
        assert client.text() == "Let us talk about us."
        assert len(model.requests) == 1
        await client.says("which color?")
        await client.until(ResponseEnd, 3)
        said = [(each.role, each.text) for each in model.requests[1].messages]
        assert said == [
            ("user", "hi"),
            ("assistant", "Hello."),
            ("assistant", "Let us talk about us."),
            ("user", "which color?"),
        ]
        assert await history(session) == [*said, ("assistant", "Blue.")]
        assert await session.conversation.verify()
