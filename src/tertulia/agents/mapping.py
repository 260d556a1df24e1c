"""Our messages as pydantic-ai's; imported at the first turn with a provider only."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal, cast

from pydantic_ai.exceptions import ModelAPIError, UserError
from pydantic_ai.messages import (
    BinaryContent,
    ImageUrl,
    ModelMessage,
    ModelRequestPart,
    ModelResponse,
    ModelResponsePart,
    SystemPromptPart,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserContent,
    UserPromptPart,
)
from pydantic_ai.messages import ModelRequest as PydanticRequest
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.output import OutputObjectDefinition
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition

from tertulia.agents.protocol import FINAL_RESULT, ModelRequest, OutputSpec, ToolSpec
from tertulia.errors import ModelError
from tertulia.messages import Message, Part, ToolCall

_ANTHROPIC = "anthropic"
_OPENING = "(The conversation began earlier.)"
_EMPTY = "(empty)"
"""Stands for a text without any: Anthropic refuses those."""
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_ID = re.compile(r"[a-zA-Z0-9_-]{1,40}")
_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_-]")
_GONE = "Called earlier in this conversation; it cannot be called any more."
_SAYS_WHAT = {"type", "anyOf", "oneOf", "allOf", "$ref", "enum", "const"}
_MODES: tuple[Literal["native", "tool"], ...] = ("native", "tool")


def messages(request: ModelRequest, system: str = "") -> list[ModelMessage]:
    """The whole conversation: what follows each other on one side is one message there.

    `system` is pydantic-ai's name of the provider. What providers refuse is put right here: names
    and ids that others made, ids that are used twice, texts without a word; for Anthropic also a
    conversation that begins with an answer, and answers that follow each other.
    """
    result: list[ModelMessage] = []
    parts: list[ModelRequestPart] = []
    if request.system:
        parts.append(SystemPromptPart(request.system))
    calls = _Calls()
    for message in request.messages:
        if message.role != "assistant":
            parts.append(_request_part(message, calls))
        elif said := list(_response_parts(message, calls)):
            if system == _ANTHROPIC and _only_system(parts):
                said = _after_user(result, parts, said)
            if parts:
                result.append(PydanticRequest(parts=parts))
            parts = []
            result.append(ModelResponse(parts=said))
    if parts:
        result.append(PydanticRequest(parts=parts))
    return result


def settings(request: ModelRequest) -> ModelSettings:
    """What the caller set; all else is the provider's default."""
    made = ModelSettings()
    if request.temperature is not None:
        made["temperature"] = request.temperature
    if request.max_tokens is not None:
        made["max_tokens"] = request.max_tokens
    if request.tools and not request.may_call:
        made["tool_choice"] = "none"
    return made


def parameters(
    request: ModelRequest, model: Model, settings: ModelSettings
) -> ModelRequestParameters:
    """The tools, and the answer that is asked for in the first way that the model can do."""
    made = ModelRequestParameters(function_tools=[_tool(tool) for tool in request.tools])
    if request.output is None:
        return _with_tools_gone(made, request, model, settings)
    asked = _with_output(made, request.output)
    for mode in _MODES:
        if mode == "native" and model.system == _ANTHROPIC and _open(request.output.parameters):
            continue  # it would close what is open: a dict would always be empty
        tried = replace(asked, output_mode=mode, allow_text_output=mode == "native")
        if _can(model, settings, tried):
            return tried
    return replace(asked, output_mode="prompted", allow_text_output=True)


class _Calls:
    """The calls of a conversation by their ids, as the provider is told of them."""

    def __init__(self) -> None:
        self._told: set[str] = set()
        self._now: dict[str, tuple[str, str]] = {}

    def made(self, call: ToolCall) -> tuple[str, str]:
        """The name and the id of a call."""
        name = _name(call.name)
        self._now[call.id] = name, self._id_for(call.id)
        return self._now[call.id]

    def answered(self, message: Message) -> tuple[str, str]:
        """The name and the id of the call that a message answers."""
        call_id = message.tool_call_id or ""
        return self._now.get(call_id) or (_name(message.name or "tool"), self._id_for(call_id))

    def _id_for(self, call_id: str) -> str:
        told = call_id if _ID.fullmatch(call_id) else f"call_{len(self._told)}"
        number = 0
        while told in self._told:
            number += 1
            told = f"call_{len(self._told)}_{number}"
        self._told.add(told)
        return told


def _name(name: str) -> str:
    """A name of a tool that providers accept: a model may have called one that does not exist."""
    return name if _NAME.fullmatch(name) else _NOT_IN_NAMES.sub("_", name)[:64] or "tool"


def _tool(spec: ToolSpec | OutputSpec, name: str | None = None) -> ToolDefinition:
    return ToolDefinition(
        name=name or spec.name,
        description=spec.description,
        parameters_json_schema=spec.parameters,
    )


def _with_output(made: ModelRequestParameters, output: OutputSpec) -> ModelRequestParameters:
    """The answer as both what a schema and what a tool can describe: the mode says which counts."""
    return replace(
        made,
        output_object=OutputObjectDefinition(
            json_schema=output.parameters,
            name=_name(output.name),
            description=output.description or None,
        ),
        output_tools=[_tool(output, FINAL_RESULT)],
    )


def _can(model: Model, settings: ModelSettings, tried: ModelRequestParameters) -> bool:
    """Whether the library can ask this of the model: its profile, its limits, the schema."""
    try:
        model.prepare_request(settings, tried)
    except (UserError, ModelAPIError, ValueError):
        return False
    return True


def _with_tools_gone(
    made: ModelRequestParameters, request: ModelRequest, model: Model, settings: ModelSettings
) -> ModelRequestParameters:
    """Anthropic wants tools described where any were called, also when there are none any more."""
    called = {_name(call.name) for m in request.messages for call in m.tool_calls or ()}
    if made.function_tools or not called or model.system != _ANTHROPIC:
        return made
    settings["tool_choice"] = "none"
    gone = [ToolDefinition(name=name, description=_GONE) for name in sorted(called)]
    return replace(made, function_tools=gone)


def _open(schema: Any) -> bool:
    """Whether a schema leaves open what may be there: a dict of anything, or just anything."""
    if not isinstance(schema, Mapping):
        return False
    node = cast("Mapping[str, Any]", schema)
    if not _SAYS_WHAT & set(node) or node.get("additionalProperties"):
        return True
    below: list[Any] = [*cast("Iterable[Any]", node.get("prefixItems") or ()), node.get("items")]
    for several in ("properties", "$defs"):
        below += cast("Mapping[str, Any]", node.get(several) or {}).values()
    for several in ("anyOf", "oneOf", "allOf"):
        below += cast("Iterable[Any]", node.get(several) or ())
    return any(_open(each) for each in below)


def _after_user(
    result: list[ModelMessage], parts: list[ModelRequestPart], said: list[ModelResponsePart]
) -> list[ModelResponsePart]:
    """What is said where no user spoke before: one answer with the last one, or after a filler."""
    if parts or not result:
        parts.append(UserPromptPart(_EMPTY if result else _OPENING))
        return said
    return [*cast("ModelResponse", result.pop()).parts, *said]


def _only_system(parts: Iterable[ModelRequestPart]) -> bool:
    return all(isinstance(part, SystemPromptPart) for part in parts)


def _request_part(message: Message, calls: _Calls) -> ModelRequestPart:
    if message.role == "tool":
        name, call_id = calls.answered(message)
        failed = bool((message.metadata or {}).get("error"))
        text = message.text if message.text.strip() else _EMPTY
        outcome = "failed" if failed else "success"
        return ToolReturnPart(name, text, call_id, outcome=outcome)
    if message.role != "user":
        return SystemPromptPart(message.text)
    content = message.content
    if isinstance(content, str):
        return UserPromptPart(content if content.strip() else _EMPTY)
    made = [_user_content(part) for part in content]
    said = [part for part in made if not isinstance(part, str) or part.strip()]
    return UserPromptPart(said or _EMPTY)


def _response_parts(message: Message, calls: _Calls) -> Iterator[ModelResponsePart]:
    if message.text.strip():
        yield TextPart(message.text)
    for call in message.tool_calls or ():
        name, call_id = calls.made(call)
        yield ToolCallPart(name, dict(call.arguments), call_id)


def _user_content(part: Part) -> UserContent:
    """A part of a user's message: text or an image, in the shape that OpenAI made common."""
    kind = part.get("type")
    if kind == "text" or "text" in part:
        return str(part.get("text", ""))
    if kind == "image_url":
        image: Any = part.get("image_url")
        url = image if isinstance(image, str) else str(dict(image or {}).get("url", ""))
        return BinaryContent.from_data_uri(url) if url.startswith("data:") else ImageUrl(url)
    raise ModelError(f"a part of type {kind!r} cannot be sent to a model; use text or image_url")
