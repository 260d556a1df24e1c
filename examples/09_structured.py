"""An answer of a type: as a dataclass, checked, and asked for again where it does not fit.

Here a script stands in for the model, so that it runs without a key.
"""

from dataclasses import dataclass
from typing import Literal

from tertulia import Agent
from tertulia.errors import SchemaValidationError
from tertulia.testing import ScriptedModel


@dataclass
class Ticket:
    """What a request is about."""

    category: Literal["billing", "technical"]
    urgent: bool


model = ScriptedModel(
    "Since when?",
    {"category": "technical"},  # lacks a field: the model is told so, and asked again
    {"category": "technical", "urgent": True},
    *["I do not know."] * 3,
)
session = Agent(model=model).session()
session.run("My line is dead")

response = session.json("File a ticket", schema=Ticket)
print(response.output)
print(response.category, response.urgent, response.usage.requests)
try:
    session.json("And another one", schema=Ticket)
except SchemaValidationError:
    print("no answer fits, and the history is as it was:", len(session.messages), "messages")
