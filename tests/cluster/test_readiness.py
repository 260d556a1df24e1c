"""When a server of many says that it is ready."""

from __future__ import annotations

from starlette.testclient import TestClient
from tests.postgres.proxy import proxied

from tertulia import Agent
from tertulia.server import AgentApp
from tertulia.testing import ScriptedModel


def app_on(store: str) -> AgentApp:
    return AgentApp(agent=Agent(name="clerk", model=ScriptedModel()), store=store)


def test_a_server_is_ready_once_its_database_has_answered(postgres: str) -> None:
    with proxied(postgres) as proxy:
        proxy.hold()
        with TestClient(
            app_on(proxy.url), base_url="http://127.0.0.1", client=("127.0.0.1", 1)
        ) as client:
            told = client.get("/ready")
            assert told.status_code == 503
            assert "has not answered" in told.json()["detail"]["reason"]
            proxy.let_go()
            while client.get("/ready").status_code != 200:
                continue
