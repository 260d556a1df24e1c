"""The bus: what happens to a client, as events that others listen to."""

from tertulia.bus.base import Bus, BusEvent
from tertulia.bus.handles import BusEvents, Once, Subscription
from tertulia.bus.local import LocalBus
from tertulia.bus.opening import open_bus

__all__ = [
    "Bus",
    "BusEvent",
    "BusEvents",
    "LocalBus",
    "Once",
    "Subscription",
    "open_bus",
]
