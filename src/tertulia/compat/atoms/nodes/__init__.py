"""The nodes of a graph, under all three sets of names."""

from tertulia.compat.atoms.nodes.background import BackgroundCrewNode
from tertulia.compat.atoms.nodes.base import CrewNode
from tertulia.compat.atoms.nodes.output import OutputCrewNode
from tertulia.compat.atoms.nodes.router import DeterministicRouter, SubAgent

Node = SwarmNode = CrewNode
OutputAgentNode = OutputSwarmNode = OutputCrewNode
BackgroundAgentNode = BackgroundSwarmNode = BackgroundCrewNode

__all__ = [
    "BackgroundAgentNode",
    "BackgroundCrewNode",
    "BackgroundSwarmNode",
    "CrewNode",
    "DeterministicRouter",
    "Node",
    "OutputAgentNode",
    "OutputCrewNode",
    "OutputSwarmNode",
    "SubAgent",
    "SwarmNode",
]
