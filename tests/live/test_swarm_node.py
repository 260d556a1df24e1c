"""A swarm as the brain of a live session: policies, navigation, and what goes out unasked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.live.serving import serving
from tests.live.talking import Client, eventually, history, live, settled
from tests.server.web import Client as Http

from tertulia import Agent, AgentApp, ClientSession, Policy, Runtime, Swarm, SwarmNode, Token
from tertulia.bus import BusEvent
from tertulia.client import LiveClient
from tertulia.errors import ConfigurationError, InvalidInput, UsageError
from tertulia.live import AgentSession
from tertulia.policies import PolicyContext
from tertulia.testing import Pause, ScriptedModel, call
from tertulia.wire.events import (
    AgentErrorEvent,
    AgentLog,
    AgentReady,
    AgentSpeak,
    LLMRequest,
    ResponseChunk,
    ResponseEnd,
    TranscriptUpdate,
    UserInterrupt,
)

BAN = "Let us talk about us."
I_AM_NOT = Policy.ban_message


class NoAcme(Policy):
    """Nobody talks about Acme."""

    ban_message = BAN

    async def validate_input(self, message: str, context: PolicyContext, /) -> bool:
        return "acme" not in message.lower()

    async def validate_output(self, text: str, context: PolicyContext, /) -> bool:
        return "acme" not in text.lower()


def shop_of(model: ScriptedModel, *policies: Policy, **options: Any) -> Swarm:
    """A swarm with a clerk, and a policy."""
    return Swarm("shop", [Agent("clerk", model=model)], policies=policies or [NoAcme()], **options)


async def said(client: Client, text: str, count: int) -> str:
    """The text of the so-manieth answer, to this."""
    await client.says(text)
    end = await client.until(ResponseEnd, count)
    return client.text(end.request_id)


def asked(model: ScriptedModel, number: int = -1) -> list[str]:
    """The texts that the model was asked with."""
    return [each.text for each in model.requests[number].messages]


@asynccontextmanager
async def on_air(swarm: Swarm) -> AsyncGenerator[tuple[Runtime, AgentSession, Client]]:
    """A live session with a swarm, and its runtime."""
    async with (
        Runtime("memory:") as runtime,
        live(SwarmNode(swarm), runtime=runtime) as (session, client),
    ):
        yield runtime, session, client


# -- what comes in


async def test_what_is_refused_is_answered_with_the_ban_message_and_no_model_sees_it() -> None:
    model = ScriptedModel("Hello.", "Blue.")
    async with live(SwarmNode(shop_of(model))) as (session, client):
        assert await said(client, "hi", 1) == "Hello."
        assert await said(client, "is Acme better?", 2) == BAN
        assert len(model.requests) == 1
        assert await said(client, "which color?", 3) == "Blue."
        assert asked(model) == ["hi", "Hello.", BAN, "which color?"]
        assert await history(session) == [
            ("user", "hi"),
            ("assistant", "Hello."),
            ("assistant", BAN),
            ("user", "which color?"),
            ("assistant", "Blue."),
        ]
        ban = (await session.conversation.history())[2]
        assert ban.metadata is not None
        assert (ban.metadata["kind"], ban.metadata["policy"]) == ("ban", "NoAcme")
        checked = await session.conversation.events(types=["policy.checked"])
        refused = [each.body for each in checked if each.body and not each.body["allowed"]]
        assert [each["text"] for each in refused] == ["is Acme better?"]
        assert await session.conversation.verify()


async def test_what_is_said_right_behind_a_request_is_not_overlooked() -> None:
    model = ScriptedModel("One.", "Two.", "Three.")
    async with live(SwarmNode(shop_of(model))) as (_, client):
        await client.says("hi")
        await client.says("what of Acme")
        await client.until(ResponseEnd, 2)
        assert await said(client, "and now", 3) in ("One.", "Two.")
        assert all("what of Acme" not in asked(model, n) for n in range(len(model.requests)))


async def test_what_is_said_in_a_turn_is_looked_at_before_the_next_one() -> None:
    pause = Pause()
    model = ScriptedModel(["One", pause], "Two.", "Three.")
    async with live(SwarmNode(shop_of(model))) as (session, client):
        await client.says("hi")
        await pause.reached()
        await session.receive(TranscriptUpdate(role="user", content="I mean ACME", id="x"))
        await eventually(lambda: session.inlet.newest == "x")
        pause.release()
        await client.until(ResponseEnd)
        await session.receive(LLMRequest())
        await client.until(ResponseEnd, 2)
        assert await said(client, "and now", 3) == "Two."
        for request in model.requests:
            assert "acme" not in str([each.text for each in request.messages]).lower()
        assert "acme" not in str(await history(session)).lower()
        assert await session.conversation.verify()


async def test_what_comes_with_the_request_only_is_looked_at_too() -> None:
    model = ScriptedModel("Hello.")
    async with live(SwarmNode(shop_of(model))) as (session, client):
        for text in ("what of Acme", "hi"):
            request = LLMRequest(messages=[{"role": "user", "content": text}])
            await session.receive(request)
        await client.until(ResponseEnd, 2)
        assert asked(model) == [BAN, "hi"]


async def test_a_policy_that_fails_lets_nothing_through_and_is_asked_again() -> None:
    class Moody(Policy):
        fails = True

        def validate_input(self, message: str, context: PolicyContext, /) -> bool:
            if self.fails:
                raise OSError("no")
            return "acme" not in message.lower()

    moody, model = Moody(), ScriptedModel("Hello.")
    async with live(SwarmNode(shop_of(model, moody))) as (session, client):
        await client.says("what of Acme")
        assert (await client.until(ResponseEnd)).discarded
        assert "PolicyError" in (await client.until(AgentErrorEvent)).message
        moody.fails = False
        assert await said(client, "hi", 2) == moody.ban_message
        assert await said(client, "hi", 3) == "Hello."
        assert "what of Acme" not in asked(model)
        assert "what of Acme" not in str(await history(session))


async def test_a_ban_holds_until_it_is_lifted() -> None:
    model = ScriptedModel("Hello.", "Again.")
    shop = shop_of(model, NoAcme(auto_ban=True))
    async with on_air(shop) as (_, _, client):
        assert await said(client, "what of Acme", 1) == BAN
        assert await said(client, "hi", 2) == BAN
        assert [ban.policy for ban in await shop.bans("s")] == ["NoAcme"]
        await shop.unban("s")
        assert await said(client, "hi", 3) == "Hello."


async def test_callbacks_and_the_bus_hear_of_a_live_client() -> None:
    called: list[tuple[str, str]] = []

    def note(client: ClientSession, event: BusEvent) -> None:
        called.append((event.topic, str(event.input.get("message", ""))))

    model = ScriptedModel("Hello.")
    options: dict[str, Any] = dict.fromkeys(
        ("on_init", "on_connect", "on_execute", "on_dispose"), note
    )
    heard: list[tuple[str, str]] = []
    async with Runtime("memory:") as runtime:
        runtime.bus.listen(
            "s", "session.execute", lambda e: heard.append((e.input["message"], e.output["kind"]))
        )
        async with live(SwarmNode(shop_of(model, **options)), runtime=runtime) as (_, client):
            await said(client, "hi", 1)
            await said(client, "what of Acme", 2)
        await runtime.bus.drain()
    assert called == [
        ("session.init", ""),
        ("session.connect", ""),
        ("session.execute", "hi"),
        ("session.dispose", ""),
    ]
    assert [kind for _, kind in heard] == ["answer", "ban"]


# -- what goes out


async def test_text_that_output_policies_have_not_accepted_does_not_leave() -> None:
    model = ScriptedModel(["We are ", "fine. ", "Ask ", "Acme."], ["All ", "is ", "well."])
    shop = shop_of(model)
    async with live(SwarmNode(shop)) as (session, client):
        assert await said(client, "hi", 1) == BAN
        assert await said(client, "really?", 2) == "All is well."
        assert asked(model) == ["hi", BAN, "really?"]
        assert "Acme" not in str(client.got).replace("NoAcme", "")
        assert "Acme." not in str(await history(session))


async def test_a_policy_with_a_window_lets_text_out_while_it_comes() -> None:
    pause = Pause()
    model = ScriptedModel(["We are all of us fine. ", pause, "Ask Ac", "me."])
    async with live(SwarmNode(shop_of(model, NoAcme(chunk_window=4)))) as (session, client):
        await client.says("hi")
        await pause.reached()
        await eventually(lambda: client.of(ResponseChunk))
        assert client.text() == "We are all of us fi"
        pause.release()
        await client.until(ResponseEnd)
        assert "Ac" not in client.text()
        assert client.text().endswith(BAN)
        assert await history(session) == [("user", "hi"), ("assistant", BAN)]


async def test_the_end_of_an_answer_says_that_it_was_refused_also_when_it_is_told_again() -> None:
    pause = Pause()
    model = ScriptedModel(["We are all of us fine. ", pause, "Ask Acme."], "Hello.", "", "")
    shop = shop_of(model, NoAcme(chunk_window=4), rescue="placeholder")
    async with live(SwarmNode(shop)) as (session, client):
        await client.says("hi")
        await pause.reached()
        pause.release()
        await client.until(ResponseEnd)
        await said(client, "is Acme better?", 2)
        assert await said(client, "hello", 3) == "Hello."
        assert await said(client, "and", 4)
        refused = {"kind": "ban", "policy": "NoAcme"}
        wanted = [refused, refused, {}, {"kind": "placeholder"}]
        client.lose()
        back = (await Client(session).attach(0, again=True)).read()
        await back.until(ResponseEnd, 4)
        for each in (client, back):
            natures = [
                {key: value for key, value in (end.metadata or {}).items() if key != "request"}
                for end in each.of(ResponseEnd)
            ]
            assert natures == wanted
            assert all("request" in (end.metadata or {}) for end in each.of(ResponseEnd))


async def test_a_client_in_python_learns_that_its_answer_was_refused() -> None:
    app = AgentApp(swarms=[shop_of(ScriptedModel("Hello."))], store="memory:")
    async with serving(app) as served, LiveClient(f"ws://127.0.0.1:{served.port}/ws") as client:
        refused = await client.say("what of Acme")
        assert (refused.metadata["kind"], refused.metadata["policy"]) == ("ban", "NoAcme")
        assert "kind" not in (await client.say("hi")).metadata


async def test_an_interruption_keeps_what_was_heard_and_nothing_that_was_held_back() -> None:
    pause = Pause()
    model = ScriptedModel(["We are all of us fine. ", pause, "Really."], "Sure.")
    async with live(SwarmNode(shop_of(model, NoAcme(chunk_window=4)))) as (session, client):
        await client.says("hi")
        await pause.reached()
        await eventually(client.text)
        await session.receive(UserInterrupt(heard="We are all"))
        assert (await client.until(ResponseEnd)).interrupted
        assert (await history(session))[-1] == ("assistant", "We are all")
        assert await said(client, "you are what?", 2) == "Sure."
        assert asked(model) == ["hi", "We are all", "you are what?"]


# -- what goes out unasked


async def test_what_is_emitted_is_spoken_once_and_is_in_the_history_once() -> None:
    model = ScriptedModel("Hello.")
    async with on_air(shop_of(model)) as (runtime, session, client):
        await said(client, "hi", 1)
        emitted: list[BusEvent] = []
        runtime.bus.listen("s", "session.emit", emitted.append)
        shop = runtime.client_session("s", "shop")
        await shop.emit("We close in five minutes.")
        assert (await shop.emit("Go to Acme.")).kind == "ban"
        await eventually(lambda: len(client.of(AgentSpeak)) == 2)
        spoken = [each.text for each in client.of(AgentSpeak)]
        assert spoken == ["We close in five minutes.", BAN]
        assert (await history(session))[2:] == [("assistant", each) for each in spoken]
        await runtime.bus.drain()
        assert [each.input["message"] for each in emitted] == spoken
        client.lose()
        back = (await Client(session).attach(0, again=True)).read()
        await back.until(AgentSpeak, 2)
        assert [each.text for each in back.of(AgentSpeak)] == spoken
        assert await session.conversation.verify()


@pytest.mark.parametrize("first", ["One ", ""])
async def test_what_is_emitted_while_an_answer_is_given_is_that_answer(first: str) -> None:
    pause = Pause()
    model = ScriptedModel([first, pause, "two."], "Yes.")
    async with on_air(Swarm("shop", [Agent("clerk", model=model)])) as (runtime, session, client):
        await client.says("count")
        await pause.reached()
        await runtime.client_session("s", "shop").emit("We close.")
        end = await client.until(ResponseEnd)
        assert (end.interrupted, (end.metadata or {})["kind"]) == (False, "emit")
        pause.release()
        assert client.text() == f"{first}We close."
        assert client.of(AgentSpeak) == []
        assert await history(session) == [("user", "count"), ("assistant", "We close.")]
        assert await said(client, "open?", 2) == "Yes."
        assert asked(model) == ["count", "We close.", "open?"]
        assert await session.conversation.verify()


async def test_a_tool_that_emits_gives_the_answer() -> None:
    node: list[SwarmNode] = []

    async def close() -> str:
        """Say that we close."""
        await node[0].client.emit("We close.")
        return "said"

    model = ScriptedModel(call("close"), "Never asked.")
    shop = Swarm("shop", [Agent("clerk", model=model, tools=[close])])
    node.append(SwarmNode(shop))
    async with live(node[0]) as (session, client):
        assert await said(client, "open?", 1) == "We close."
        assert client.of(AgentSpeak) == []
        assert (await history(session))[-1] == ("assistant", "We close.")
        assert len(model.requests) == 1


async def test_a_notice_reaches_the_client_and_is_no_part_of_the_history() -> None:
    async with on_air(shop_of(ScriptedModel())) as (runtime, session, client):
        await runtime.client_session("s", "shop").notify("A parcel is there.")
        told = await client.until(AgentLog)
        assert (told.name, told.payload["text"]) == ("swarm.notice", "A parcel is there.")
        assert await history(session) == []


async def test_another_thread_may_emit_to_a_live_client() -> None:
    async with on_air(shop_of(ScriptedModel())) as (runtime, session, client):
        shop = runtime.client_session("s", "shop")
        await asyncio.to_thread(lambda: asyncio.run(_emit(shop)))
        await client.until(AgentSpeak)
        assert await history(session) == [("assistant", "We close.")]


async def _emit(client: Any) -> None:
    await client.emit("We close.")


# -- navigation


def crew(*sales: Any) -> tuple[Swarm, ScriptedModel, ScriptedModel]:
    """A swarm of two, and their models."""
    first, second = ScriptedModel(call("transfer_to_sales")), ScriptedModel(*sales)
    triage = Agent("triage", model=first, handoffs=["sales"])
    return Swarm("shop", [triage, Agent("sales", model=second)]), first, second


async def test_who_was_handed_on_stays_there_when_the_client_comes_back() -> None:
    shop, _, sales = crew("Seven.", "Eight.")
    node = SwarmNode(shop)
    async with live(node) as (session, client):
        assert await said(client, "what is it?", 1) == "Seven."
        assert node.client.agent == "sales"
        after = max(event.seq or 0 for event in client.got)
        client.lose()
        back = (await Client(session).attach(after, again=True)).read()
        assert await said(back, "and that?", 1) == "Eight."
        assert asked(sales)[-1] == "and that?"


async def test_who_was_handed_on_stays_there_after_a_restart(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    shop, _, _ = crew("Seven.")
    async with Runtime(url) as runtime, live(SwarmNode(shop), runtime=runtime) as (_, client):
        await said(client, "what is it?", 1)
    shop, _, sales = crew("Eight.", "Back.")
    node = SwarmNode(shop)
    async with Runtime(url) as runtime, live(node, runtime=runtime) as (session, client):
        assert session.resumed
        assert await said(client, "and that?", 1) == "Eight."
        assert node.client.agent == "sales"
        assert asked(sales)[0] == "what is it?"


async def test_what_was_refused_stays_hidden_after_a_restart_and_is_not_judged_again(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    model = ScriptedModel("Hello.", "Again.")
    for number in range(2):
        node = SwarmNode(shop_of(model))
        async with Runtime(url) as runtime, live(node, runtime=runtime) as (session, client):
            assert await said(client, f"hi {number}", 1) in ("Hello.", "Again.")
            assert await said(client, f"what of Acme, {number}", 2) == BAN
            checked = await session.conversation.events(types=["policy.checked"])
            seen = [each for each in checked if (each.body or {}).get("direction") == "input"]
            assert len(seen) == 2 * (number + 1)
    assert asked(model) == ["hi 0", "Hello.", BAN, "hi 1"]


async def test_what_was_said_and_not_looked_at_before_a_restart_is_looked_at_after_it(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    async with Runtime(url) as runtime:
        await runtime.session("s").send_message({"role": "user", "content": "what of Acme"})
    model = ScriptedModel("Hello.")
    node = SwarmNode(shop_of(model))
    async with Runtime(url) as runtime, live(node, runtime=runtime) as (_, client):
        assert await said(client, "hi", 1) == BAN
        assert await said(client, "hi", 2) == "Hello."
        assert "what of Acme" not in asked(model)


async def test_no_retention_keeps_what_was_refused_before_the_eyes_of_a_model() -> None:
    model = ScriptedModel("Hello.")
    async with Runtime("memory:") as runtime:
        await runtime.session("s", retention={"immutable": True}).send_message(
            {"role": "assistant", "content": "Welcome."}
        )
        async with live(SwarmNode(shop_of(model)), runtime=runtime) as (session, client):
            assert await said(client, "what of Acme", 1) == BAN
            assert await said(client, "hi", 2) == "Hello."
            assert asked(model) == ["Welcome.", BAN, "hi"]
            assert await session.conversation.verify()


# -- the client behind it


async def test_the_end_of_the_live_session_leaves_no_client_session() -> None:
    ended: list[BusEvent] = []

    def note(client: ClientSession, event: BusEvent) -> None:
        ended.append(event)

    shop = shop_of(ScriptedModel("Hello."), on_dispose=note)
    async with Runtime("memory:") as runtime:
        node = SwarmNode(shop)
        async with live(node, runtime=runtime) as (session, client):
            await said(client, "hi", 1)
            assert runtime.client_sessions() == [node.client]
            assert node.client.session is session.conversation
        assert runtime.client_sessions() == []
        assert len(ended) == 1
        assert runtime.bus.subscriptions == 0
        with pytest.raises(UsageError, match="no client"):
            _ = node.client


async def test_a_client_that_was_disposed_meanwhile_is_there_again_with_the_next_request() -> None:
    model = ScriptedModel("Hello.", "Again.")
    async with Runtime("memory:") as runtime:
        async with live(SwarmNode(shop_of(model)), runtime=runtime) as (_, client):
            await said(client, "hi", 1)
            await runtime.client_session("s", "shop").dispose()
            assert await said(client, "still there?", 2) == "Again."
            await runtime.client_session("s", "shop").emit("We close.")
            await client.until(AgentSpeak)
        assert runtime.client_sessions() == []


async def test_what_server_code_executes_shows_no_model_what_was_not_looked_at() -> None:
    model = ScriptedModel("Hello.", "Seven.")
    async with on_air(shop_of(model)) as (runtime, session, client):
        await session.receive(TranscriptUpdate(role="user", content="what of Acme"))
        await settled(session)
        answer = await runtime.client_session("s", "shop").execute("hi", mode="tool")
        assert (answer.kind, str(answer)) == ("answer", "Hello.")
        assert asked(model) == ["hi"]
        assert await said(client, "go on", 1) == "Seven."


async def test_what_is_executed_in_a_live_session_is_asked_of_the_policies_once() -> None:
    looked_at: list[str] = []

    class Notes(Policy):
        async def validate_input(self, message: str, context: PolicyContext, /) -> bool:
            looked_at.append(message)
            return "acme" not in message.lower()

    pause = Pause()
    model = ScriptedModel([pause, "One."], "Two.", "Three.")
    async with on_air(shop_of(model, Notes())) as (runtime, session, client):
        shop = runtime.client_session("s", "shop")
        executed = asyncio.create_task(shop.execute("first"))
        await pause.reached()
        await session.receive(TranscriptUpdate(role="user", content="what of Acme?"))
        pause.release()
        assert await executed == "One."
        assert await said(client, "hello", 1) == I_AM_NOT
        await shop.execute("second")
        assert await said(client, "go on", 2) == "Three."
        assert looked_at == ["first", "what of Acme?", "hello", "second", "go on"]


async def test_what_another_agent_was_asked_in_a_live_session_is_looked_at_all_the_same() -> None:
    model = ScriptedModel("Fine.")
    other = Agent("other", model=ScriptedModel("Acme it is."))
    async with on_air(shop_of(model)) as (_, session, client):
        await other.run("what of Acme", session.conversation)
        assert await said(client, "hi", 1) == BAN
        assert model.requests == []


def test_a_node_needs_a_swarm() -> None:
    agent: Any = Agent("a", model=ScriptedModel())
    with pytest.raises(InvalidInput, match="needs a Swarm"):
        SwarmNode(agent)


async def test_another_swarm_of_the_same_name_is_refused() -> None:
    async with Runtime("memory:", swarms=[shop_of(ScriptedModel())]) as runtime:
        with pytest.raises(ConfigurationError, match="two swarms are named 'shop'"):
            async with live(SwarmNode(shop_of(ScriptedModel())), runtime=runtime):
                pass
        assert runtime.client_sessions() == []


# -- over a real connection


async def test_two_conversations_of_one_user_are_never_mixed_and_share_the_bans() -> None:
    model = ScriptedModel(*["Hello."] * 2)
    shop = shop_of(model)
    app = AgentApp(swarms=[shop], store="memory:", auth=Token({"alices-token": "alice"}))
    async with serving(app) as served:
        one = served.connected("?token=alices-token")
        two = served.connected("?token=alices-token")
        async with one as first, two as second:
            await first.init("a")
            await second.init("b")
            for wire in (first, second):
                await wire.says("hi")
                await wire.until(ResponseEnd)
            assert [len(request.messages) for request in model.requests] == [1, 1]
            live_ones = app.runtime.client_sessions()
            assert sorted(each.session.id for each in live_ones) == ["a", "b"]
            assert {each.client_id for each in live_ones} == {"alice"}
            await app.runtime.client_session("alice", "shop").emit("We close.")
            await first.until(AgentSpeak)
            await shop.ban("alice")
            for wire in (second, first):
                await wire.says("hi again")
                end = await wire.until(ResponseEnd, 2)
                texts = [e.text for e in wire.of(ResponseChunk) if e.request_id == end.request_id]
                assert texts == [BAN]
            assert second.of(AgentSpeak) == []
            for name in ("a", "b"):
                served.session(name).finish("the test is over")
        await eventually(lambda: not app.hub.held)
        assert app.runtime.client_sessions() == []


async def test_http_talks_in_the_clients_own_conversation_and_emits_reach_all_of_them() -> None:
    model = ScriptedModel(*["Hello."] * 4)
    auth = Token({"alices-token": "alice"}, trusted="our-own-token")
    app = AgentApp(swarms=[shop_of(model)], store="memory:", auth=auth)
    async with serving(app) as served:
        alice, ours = (Http(served.port, name) for name in ("alices-token", "our-own-token"))
        path = "/v1/swarms/shop/clients/alice"
        async with (
            served.connected("?token=alices-token") as first,
            served.connected("?token=alices-token") as second,
        ):
            for wire, name in ((first, "a"), (second, "b")):
                await wire.init(name)
                await wire.says("hi")
                await wire.until(ResponseEnd)
            for count in (1, 3):
                await alice.post(f"{path}/execute", {"message": "hi"})
                assert len(model.requests[-1].messages) == count
            for name in ("a", "b"):
                assert len(await app.runtime.session(name, user_id="alice").history()) == 2
            await ours.post(f"{path}/emit", {"text": "We close."})
            await ours.post(f"{path}/notify", {"text": "A parcel is there."})
            for wire in (first, second):
                assert (await wire.until(AgentSpeak)).text == "We close."
                assert (await wire.until(AgentLog)).payload["text"] == "A parcel is there."
            own = app.runtime.clients.own("alice", "shop").session
            assert [each.text for each in await own.history()][-1] == "We close."
            assert (await ours.ask("DELETE", path)).data == {"disposed": True}
            assert app.runtime.client_sessions() == []
            for name in ("a", "b"):
                served.session(name).finish("the test is over")


async def test_what_is_emitted_where_only_a_live_session_lives_is_in_that_one_only() -> None:
    auth = Token({"alices-token": "alice"}, trusted="our-own-token")
    app = AgentApp(swarms=[shop_of(ScriptedModel())], store="memory:", auth=auth)
    async with serving(app) as served, served.connected("?token=alices-token") as wire:
        await wire.init("a")
        ours = Http(served.port, "our-own-token")
        await ours.post("/v1/swarms/shop/clients/alice/emit", {"text": "We close."})
        assert (await wire.until(AgentSpeak)).text == "We close."
        assert [info.id for info in await app.runtime.sessions()] == ["a"]
        served.session("a").finish("the test is over")


async def test_a_swarm_answers_over_a_web_socket_and_after_the_connection_was_lost() -> None:
    model = ScriptedModel(["Hel", "lo."], "Blue.")
    app = AgentApp(swarms=[shop_of(model)], store="memory:")
    async with serving(app) as served:
        async with served.connected() as wire:
            session_id = (await wire.init()).session_id or ""
            await wire.says("hi")
            await wire.until(ResponseEnd)
            assert "".join(each.text for each in wire.of(ResponseChunk)) == "Hello."
            await wire.says("what of Acme")
            await wire.until(ResponseEnd, 2)
            assert wire.of(ResponseChunk)[-1].text == BAN
            wire.abort()
        await served.left(session_id)
        await app.runtime.client_session(session_id, "shop").emit("Are you there?")
        async with served.connected(f"?session_id={session_id}&after=0") as wire:
            await wire.send("system.init")
            await wire.until(AgentReady)
            assert (await wire.until(AgentSpeak)).text == "Are you there?"
            shown = [each.text for each in wire.of(ResponseChunk)]
            assert shown == ["Hello.", BAN]
            await wire.says("which color")
            await wire.until(ResponseEnd, 3)
            assert wire.of(ResponseChunk)[-1].text == "Blue."
        assert [each.text for each in model.requests[1].messages][-3:] == [
            BAN,
            "Are you there?",
            "which color",
        ]
