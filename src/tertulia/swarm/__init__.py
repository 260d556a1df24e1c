"""Swarms: agents that share the conversation of a client, with policies, navigation and a bus."""

from tertulia.bus import Bus, BusEvent, LocalBus
from tertulia.policies import Ban, Policy, PolicyContext, Refusal, Verdict
from tertulia.swarm.answer import Answer, Outgoing
from tertulia.swarm.client import ClientSession
from tertulia.swarm.connecting import Send
from tertulia.swarm.current import current_client
from tertulia.swarm.rescue import Failure, Rescue, Retry
from tertulia.swarm.services import SessionConnectionService, SessionPublicService
from tertulia.swarm.streams import ClientStream
from tertulia.swarm.swarm import Swarm

__all__ = [
    "Answer",
    "Ban",
    "Bus",
    "BusEvent",
    "ClientSession",
    "ClientStream",
    "Failure",
    "LocalBus",
    "Outgoing",
    "Policy",
    "PolicyContext",
    "Refusal",
    "Rescue",
    "Retry",
    "Send",
    "SessionConnectionService",
    "SessionPublicService",
    "Swarm",
    "Verdict",
    "current_client",
]
