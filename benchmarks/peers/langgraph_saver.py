"""LangGraph: a graph of one node that answers, checkpointed by `AsyncSqliteSaver`.

Every step stores the whole conversation again, so its cost grows with the length; its turns
are limited, which favours it, and its lines say so.
"""

# pyright: basic, reportMissingImports=false
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, MessagesState, StateGraph

from benchmarks.messages import Message
from benchmarks.systems import System


def convert(message: Message) -> AnyMessage:
    """One message in its own classes."""
    kind = HumanMessage if message["role"] == "user" else AIMessage
    return kind(content=message["content"])


def config(session: str) -> Any:
    """The thread of this session."""
    return {"configurable": {"thread_id": session}}


class LangGraph(System):
    """One compiled graph and one saver for all conversations."""

    distributions = ("langgraph", "langgraph-checkpoint-sqlite")

    async def open(self, folder: Path) -> None:
        self.manager = AsyncSqliteSaver.from_conn_string(str(folder / "langgraph.db"))
        self.compile(await self.manager.__aenter__())

    def compile(self, saver: Any) -> None:
        self.answers: dict[str, Message] = {}
        graph = StateGraph(MessagesState)
        graph.add_node("answer", self.answer)
        graph.add_edge(START, "answer")
        graph.add_edge("answer", END)
        self.graph = graph.compile(checkpointer=saver)

    async def answer(self, state: MessagesState, config: RunnableConfig) -> dict[str, Any]:
        answer = self.answers[config.get("configurable", {})["thread_id"]]
        return {"messages": [convert(answer)]}

    async def append(self, session: str, messages: list[Message]) -> None:
        question, self.answers[session] = messages
        await self.graph.ainvoke({"messages": [convert(question)]}, config(session))

    async def fill(self, session: str, messages: Sequence[Message]) -> None:
        self.answers[session] = messages[-1]
        every = [convert(message) for message in messages[:-1]]
        await self.graph.ainvoke({"messages": every}, config(session))

    async def messages(self, session: str) -> list[Any]:
        state = await self.graph.aget_state(config(session))
        return list(state.values.get("messages", []))

    async def last(self, session: str, limit: int) -> int:
        return len((await self.messages(session))[-limit:])

    async def count(self, session: str) -> int:
        return len(await self.messages(session))

    async def fork(self, session: str, new: str) -> None:
        values = {"messages": await self.messages(session)}
        await self.graph.aupdate_state(config(new), values, as_node="answer")

    async def close(self) -> None:
        await self.manager.__aexit__(None, None, None)
