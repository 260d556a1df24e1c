"""The bus over HTTP: what happens to clients, as server-sent events."""

from __future__ import annotations

from tests.live.talking import eventually
from tests.server.web import Client, serving

from tertulia import Agent, Runtime, Swarm
from tertulia.doors import Outcome
from tertulia.server.api import routes
from tertulia.testing import ScriptedModel

ONE = "/v1/swarms/shop/clients"


async def test_events_come_by_their_topics_with_their_places_in_the_log(
    web: Client, model: ScriptedModel, runtime: Runtime
) -> None:
    model.add("Hello.", "Blue.")
    stream = await web.listen("GET", "/v1/bus?client_id=c&topic=session.*")
    assert stream.headers["content-type"].startswith("text/event-stream")
    for name in ("d", "c"):
        await web.post(f"{ONE}/{name}/execute", {"message": "hi"})
    told = await stream.next()
    assert told is not None
    assert told.type == "session.execute"
    assert told.data["client_id"] == "c"
    assert told.data["input"] == {"message": "hi", "mode": "user"}
    assert told.data["output"]["message"] == "Blue."
    logged = await runtime.client_session("c", "shop").session.events()
    assert int(told.id or 0) == told.data["seq"] == logged[-1].seq
    await web.ask("DELETE", f"{ONE}/c")
    told = await stream.next()
    assert told is not None
    assert (told.type, told.id) == ("session.dispose", None)
    stream.hang_up()


async def test_without_a_client_all_are_heard_and_events_of_ones_own_too(
    web: Client, runtime: Runtime
) -> None:
    stream = await web.listen("GET", "/v1/bus")
    await eventually(lambda: runtime.bus.subscriptions)
    for name in ("a", "b"):
        await runtime.bus.emit(name, {"type": "placed", "source": "order-bus", "input": {"n": 1}})
    for name in ("a", "b"):
        told = await stream.next()
        assert told is not None
        assert (told.type, told.data["client_id"]) == ("order.placed", name)
    stream.hang_up()


async def test_a_listener_that_leaves_leaves_nothing_behind(web: Client, runtime: Runtime) -> None:
    stream = await web.listen("GET", "/v1/bus?client_id=c")
    await eventually(lambda: runtime.bus.subscriptions == 1)
    stream.hang_up()
    await eventually(lambda: runtime.bus.subscriptions == 0)


async def test_who_has_a_name_hears_of_nobody_else(guarded: Client, model: ScriptedModel) -> None:
    alice, bob = guarded.known_as("alice"), guarded.known_as("bob")
    for asked, status, kind in (("alice", 404, "SessionNotFound"), ("*", 403, "Forbidden")):
        refused = await bob.ask("GET", f"/v1/bus?client_id={asked}")
        assert (refused.status, refused.data["error"]["type"]) == (status, kind)
    assert "the bus of all clients is for the server's own code" in refused.data["error"]["message"]
    model.add("Hello.", "Blue.")
    stream = await bob.listen("GET", "/v1/bus?topic=session.execute")
    everything = await guarded.known_as("the-server").listen("GET", "/v1/bus?topic=agent.output")
    for who, name in ((alice, "alice"), (bob, "bob")):
        await who.post(f"{ONE}/{name}/execute", {"message": name})
    told = await stream.next()
    assert told is not None
    assert told.data["client_id"] == "bob"
    for name in ("alice", "bob"):
        told = await everything.next()
        assert told is not None
        assert told.data["client_id"] == name
    stream.hang_up()
    everything.hang_up()


async def test_a_pattern_that_no_topic_can_have_is_refused(web: Client, runtime: Runtime) -> None:
    refused = await web.ask("GET", "/v1/bus?topic=session-bus.execute")
    assert (refused.status, refused.data["error"]["type"]) == (422, "InvalidInput")
    assert runtime.bus.subscriptions == 0


async def test_it_ends_when_the_server_stops(runtime: Runtime, clerk: Agent, shop: Swarm) -> None:
    closing: Outcome[None] = Outcome()
    async with serving(routes(runtime, agent=clerk, closing=closing)) as client:
        stream = await client.listen("GET", "/v1/bus")
        closing.set_result(None)
        assert await stream.rest() == []
    assert runtime.bus.subscriptions == 0


async def test_it_ends_when_the_runtime_closes(clerk: Agent) -> None:
    runtime = Runtime("memory:", swarms=[Swarm("desk", [clerk])])
    async with serving(routes(runtime)) as client:
        stream = await client.listen("GET", "/v1/bus")
        await eventually(lambda: runtime.bus.subscriptions)
        await runtime.close()
        assert await stream.rest() == []
