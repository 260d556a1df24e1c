"""Tools run at once, but for those that a person has to approve: then the turn waits, durably.

The offline model calls a tool when the words of a message match one. Name a model of yours to have
another, for example Agent(model="openai:gpt-4o").
"""

import tempfile

from tertulia import Agent, RunContext, configure, tool

ORDERS = {"A-17": 40, "A-18": 25}


@tool(read_only=True)
def look_up_order(order_id: str) -> str:
    """Look up what an order cost."""
    return f"order {order_id} cost {ORDERS[order_id]} euros"


@tool(requires_approval=True, idempotent=True)
def refund(order_id: str, context: RunContext) -> str:
    """Give back the money of an order."""
    return f"{ORDERS[order_id]} euros are on their way (key {context.key.split(':', 1)[1]})"


configure(store=f"sqlite:///{tempfile.mkdtemp()}/shop.db")
session = Agent("clerk", model="offline", tools=[look_up_order, refund]).session("till")
print(session.run("How much was order A-17?"))
for order in ORDERS:
    [waiting] = session.run(f"Please refund order {order}").pending
    print("waits:", waiting.name, waiting.arguments)  # any process may decide, at any time
    if order == "A-17":
        session.approve(waiting.id)
    else:
        session.reject(waiting.id, "it was used")
    print(session.resume())
