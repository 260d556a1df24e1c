"""Workers of one database reach each other: channels, what carries them, and where things sit."""

from __future__ import annotations

from tertulia.cluster.calls import Handler
from tertulia.cluster.channels import Channel
from tertulia.cluster.cluster import Cluster
from tertulia.cluster.http import HttpPipe
from tertulia.cluster.lines import ChannelClosed, NotDelivered
from tertulia.cluster.nats import NatsPipe
from tertulia.cluster.pipes import Pipe
from tertulia.cluster.switchboard import Switchboard, SwitchboardStats

__all__ = [
    "Channel",
    "ChannelClosed",
    "Cluster",
    "Handler",
    "HttpPipe",
    "NatsPipe",
    "NotDelivered",
    "Pipe",
    "Switchboard",
    "SwitchboardStats",
]
