"""Functions that a model may call, and what calls them."""

from tertulia.compat.atoms.tools.decorator import (
    FunctionToolInfo,
    find_function_tools,
    function_tool,
    is_function_tool,
    loopback_tool,
)
from tertulia.compat.atoms.tools.registry import ToolRegistry
from tertulia.compat.atoms.tools.schema import FunctionSchema

__all__ = [
    "FunctionSchema",
    "FunctionToolInfo",
    "ToolRegistry",
    "find_function_tools",
    "function_tool",
    "is_function_tool",
    "loopback_tool",
]
