"""What can be a tool: functions, methods, partials, objects that can be called."""

from __future__ import annotations

from functools import partial, wraps
from typing import Any

import pytest
from tests.agents.tool_calls import call

from tertulia import Runtime, tool
from tertulia.agents.tools import tools_of


class Shop:
    def __init__(self, stock: int) -> None:
        self.stock = stock

    @tool(read_only=True, timeout=5)
    def count(self, least: int = 0) -> int:
        """Count what is there."""
        return max(self.stock, least)

    @tool
    async def reserve(self, number: int) -> int:
        """Reserve."""
        return self.stock - number

    @tool
    @staticmethod
    def greet(name: str) -> str:
        """Greet."""
        return f"Hello {name}"

    @staticmethod
    @tool
    async def part() -> str:
        """Take leave."""
        return "Bye"

    def plain(self, least: int) -> int:
        """Count, plainly."""
        return self.stock + least

    def __call__(self, least: int) -> int:
        """Count when called."""
        return self.stock * least


class AsyncShop:
    async def __call__(self, least: int) -> int:
        """Count when called, in a while."""
        return least + 1


def doubled(function: Any) -> Any:
    @wraps(function)
    def inner(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs) * 2

    return inner


@doubled
def wrapped(least: int) -> int:
    """Give it twice."""
    return least


def given_back(least: Any) -> Any:
    return least


async def slow_add(least: int, more: int) -> int:
    """Add."""
    return least + more


@pytest.mark.parametrize(
    ("function", "name", "given", "text"),
    [
        (Shop(3).count, "count", {"least": 5}, "5"),
        (Shop(3).reserve, "reserve", {"number": 1}, "2"),
        (Shop(3).plain, "plain", {"least": 5}, "8"),
        (Shop.greet, "greet", {"name": "Ann"}, "Hello Ann"),
        (Shop(3).greet, "greet", {"name": "Ann"}, "Hello Ann"),
        (Shop(3).part, "part", {}, "Bye"),
        (Shop(3), "Shop", {"least": 2}, "6"),
        (AsyncShop(), "AsyncShop", {"least": 2}, "3"),
        (wrapped, "wrapped", {"least": 2}, "4"),
        (partial(slow_add, 1), "slow_add", {"more": 2}, "3"),
        (partial(slow_add, more=5), "slow_add", {"least": 2}, "7"),
        (partial(Shop(3).plain, least=1), "plain", {}, "4"),
        (tool(name="again")(Shop(3).count), "again", {}, "3"),
        (tool(name="same")(given_back), "same", {"least": [1]}, "[1]"),
        (tool(name="short")(lambda: 3), "short", {}, "3"),
    ],
)
async def test_whatever_can_be_called_can_be_a_tool(
    runtime: Runtime, function: Any, name: str, given: dict[str, Any], text: str
) -> None:
    assert list(tools_of([function])) == [name]
    assert (await call(runtime, function, given)).text == text


def test_a_tool_is_still_the_function_or_the_method() -> None:
    shop = Shop(3)
    assert (shop.count(5), Shop.count(shop, 1), Shop.greet("Bo")) == (5, 3, "Hello Bo")
    assert (shop.count.effect, shop.count.timeout, shop.count.name) == ("none", 5, "count")
    assert (shop.count.__doc__, repr(shop.count)) == ("Count what is there.", "Tool('count')")


async def test_a_synchronous_tool_may_give_something_to_await(runtime: Runtime) -> None:
    def later() -> Any:
        return slow_add(1, 2)

    assert (await call(runtime, later)).text == "3"
