"""A conversation that is kept: run it twice, and the second time it remembers.

    python examples/01_chat.py [chat.db]

It needs no key: the offline model notes what it is told. Name a model of yours to have another,
for example Agent(model="openai:gpt-4o").
"""

import sys

from tertulia import Agent

path = sys.argv[1] if len(sys.argv) > 1 else "chat.db"
agent = Agent(model="offline")
session = agent.session(session_id="alice", store=f"sqlite:///{path}")

if session.messages:
    print(f"({len(session.messages)} messages from last time)")
else:
    session.run("My name is Alice.")
    session.run("I live in Lisbon.")

response = session.run("What is my name, and where do I live?")
for message in session.messages[-2:]:
    print(f"{message.role}: {message.text}")
