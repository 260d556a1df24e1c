"""Which model answers where an agent names none."""

from __future__ import annotations

import pytest

from tertulia import Agent, LanguageModel, Runtime, configure, settings
from tertulia.errors import ConfigurationError
from tertulia.testing import ScriptedModel


@pytest.fixture(autouse=True)
def nothing_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "_model", [])
    monkeypatch.delenv("TERTULIA_MODEL", raising=False)


async def test_without_any_model_the_error_says_what_to_set() -> None:
    with pytest.raises(ConfigurationError, match=r"Agent\(model=…\), configure\(model=…\), TERT"):
        await Agent().run("Hello")


async def test_the_environment_names_the_last_resort(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERTULIA_MODEL", "offline")
    assert (await Agent().run("My name is Ann")).text
    assert LanguageModel().name == "offline"


async def test_what_is_configured_goes_before_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERTULIA_MODEL", "offline")
    configure(model=ScriptedModel("Configured."))
    assert (await Agent().run("Hello")).text == "Configured."


async def test_the_enclosing_runtime_goes_before_what_is_configured() -> None:
    configure(model=ScriptedModel("Configured."))
    async with Runtime("memory:", model=ScriptedModel("Enclosing.")):
        assert (await Agent().run("Hello")).text == "Enclosing."
    assert (await Agent().run("Hello")).text == "Configured."


async def test_the_argument_goes_before_the_enclosing_runtime() -> None:
    async with Runtime("memory:", model=ScriptedModel("Enclosing.")):
        agent = Agent(model=ScriptedModel("Argument."))
        assert (await agent.run("Hello")).text == "Argument."


@pytest.mark.parametrize("model", [5, "gpt-4o", ":x", "openai:", object()])
async def test_what_is_no_model_is_refused(model: object) -> None:
    configure(model=model)
    with pytest.raises(ConfigurationError, match="no model"):
        await Agent().run("Hello")
