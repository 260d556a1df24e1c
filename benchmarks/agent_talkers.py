"""Those who answer in the agents' benchmarks: our turns, and the model library with appends.

All of one process share one runtime, so one file and one writer thread.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from typing import Any

import apsw
from pydantic_ai.direct import model_request, model_request_stream
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart
from pydantic_ai.models import Model as PydanticModel

import tertulia
from benchmarks.agent_models import (
    EndingFunctionModel,
    EndingTestModel,
    ManyWords,
    OneWord,
    at_once,
    in_pieces,
)
from benchmarks.systems import Measured, distribution_versions
from tertulia import Agent, Message, Runtime
from tertulia.agents.protocol import ModelRequest as OurRequest
from tertulia.agents.protocol import TextDelta
from tertulia.agents.providers import ProviderModel

clock = time.perf_counter


class Talker(Measured):
    """Answers turns in one conversation after the other."""

    async def open(self, runtime: Runtime) -> None:
        self.runtime = runtime

    @abstractmethod
    def begin(self, name: str) -> None:
        """A new conversation; it does no I/O."""

    async def turn(self, text: str) -> str:
        """Ask and get the answer, both durable."""
        raise NotImplementedError

    def pieces(self, text: str) -> AsyncIterator[str]:
        """Ask, and get the text of the answer as it comes."""
        raise NotImplementedError

    def versions(self) -> dict[str, str]:
        found = distribution_versions("pydantic-ai-slim", "apsw", "msgspec")
        return found | {"sqlite": apsw.sqlite_lib_version(), "tertulia": tertulia.__version__}


class Ours(Talker):
    """A session with an agent."""

    model: Callable[[], Any]

    async def open(self, runtime: Runtime) -> None:
        await super().open(runtime)
        self.agent = Agent(model=self.model(), runtime=runtime)

    def begin(self, name: str) -> None:
        self.session = self.agent.session(name)

    async def turn(self, text: str) -> str:
        return (await self.session.run_async(text)).text

    async def pieces(self, text: str) -> AsyncIterator[str]:
        async for event in self.session.stream_async(text):
            if event.type == "text_delta":
                yield event.text


class OurOneWord(Ours):
    model = OneWord


class OurManyWords(Ours):
    model = ManyWords


class OurTestModel(Ours):
    def model(self) -> ProviderModel:
        return ProviderModel("test:constant", EndingTestModel)


class OurFunctionModel(Ours):
    def model(self) -> ProviderModel:
        return ProviderModel("test:function", lambda: EndingFunctionModel(stream_function=at_once))


class OurPieces(Ours):
    def model(self) -> ProviderModel:
        return ProviderModel(
            "test:function", lambda: EndingFunctionModel(stream_function=in_pieces)
        )


class Direct(Talker, ABC):
    """`pydantic_ai.direct`, the history in a list; each message appended once it is there."""

    make: Callable[[], PydanticModel]

    async def open(self, runtime: Runtime) -> None:
        await super().open(runtime)
        self.model = self.make()

    def begin(self, name: str) -> None:
        self.session = self.runtime.session(name)
        self.history: list[ModelMessage] = []

    async def turn(self, text: str) -> str:
        await self.session.send_message(Message.user(text))
        self.history.append(ModelRequest.user_text_prompt(text))
        response = await self.ask()
        self.history.append(response)
        answer = "".join(part.content for part in response.parts if isinstance(part, TextPart))
        await self.session.send_message(Message.assistant(answer))
        return answer

    async def ask(self) -> ModelResponse:
        """The call that is compared."""
        async with model_request_stream(self.model, self.history) as stream:
            async for _ in stream:
                pass
        return stream.get()


class DirectTestModel(Direct):
    make = EndingTestModel

    async def ask(self) -> ModelResponse:
        return await model_request(self.model, self.history)


class DirectTestModelStream(Direct):
    make = EndingTestModel


class DirectFunctionModel(Direct):
    def make(self) -> PydanticModel:
        return EndingFunctionModel(stream_function=at_once)


class BareManyWords(Talker):
    """The model of ours alone: what comes before the first word without any session."""

    def begin(self, name: str) -> None:
        self.history: list[Message] = []
        self.model = ManyWords()

    async def pieces(self, text: str) -> AsyncIterator[str]:
        self.history.append(Message.user(text))
        said: list[str] = []
        async for event in self.model.stream(OurRequest(messages=self.history)):
            if isinstance(event, TextDelta):
                said.append(event.text)
                yield event.text
        self.history.append(Message.assistant("".join(said)))


class BarePieces(Talker):
    """`pydantic_ai.direct` alone, streaming."""

    def begin(self, name: str) -> None:
        self.history: list[ModelMessage] = []
        self.model = EndingFunctionModel(stream_function=in_pieces)

    async def pieces(self, text: str) -> AsyncIterator[str]:
        self.history.append(ModelRequest.user_text_prompt(text))
        async with model_request_stream(self.model, self.history) as stream:
            async for event in stream:
                if event.event_kind == "part_start" and event.part.part_kind == "text":
                    yield event.part.content
                elif event.event_kind == "part_delta" and event.delta.part_delta_kind == "text":
                    yield event.delta.content_delta
        self.history.append(stream.get())
