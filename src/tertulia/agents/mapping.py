"""Our messages as pydantic-ai's; imported at the first turn with a provider only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

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
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition

from tertulia.agents.protocol import ModelRequest
from tertulia.errors import ModelError
from tertulia.messages import Message, Part


def messages(request: ModelRequest) -> list[ModelMessage]:
    """The whole conversation: what follows each other on one side is one message there."""
    result: list[ModelMessage] = []
    parts: list[ModelRequestPart] = []
    if request.system:
        parts.append(SystemPromptPart(request.system))
    names: dict[str, str] = {}
    for message in request.messages:
        names.update({call.id: call.name for call in message.tool_calls or ()})
        if message.role != "assistant":
            parts.append(_request_part(message, names))
            continue
        said = list(_response_parts(message))
        if said:
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


def parameters(request: ModelRequest) -> ModelRequestParameters:
    """The tools."""
    tools = [
        ToolDefinition(
            name=tool.name, description=tool.description, parameters_json_schema=tool.parameters
        )
        for tool in request.tools
    ]
    return ModelRequestParameters(function_tools=tools)


def _request_part(message: Message, names: dict[str, str]) -> ModelRequestPart:
    if message.role == "tool":
        call_id = message.tool_call_id or ""
        name = names.get(call_id) or message.name or "tool"
        return ToolReturnPart(name, message.text, call_id)
    if message.role == "user":
        content = message.content
        return UserPromptPart(
            content if isinstance(content, str) else [_user_content(part) for part in content]
        )
    return SystemPromptPart(message.text)


def _response_parts(message: Message) -> Iterator[ModelResponsePart]:
    if message.text:
        yield TextPart(message.text)
    for call in message.tool_calls or ():
        yield ToolCallPart(call.name, dict(call.arguments), call.id)


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
