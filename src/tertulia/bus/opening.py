"""A bus by its address."""

from __future__ import annotations

from tertulia.bus.base import Bus
from tertulia.bus.local import LocalBus
from tertulia.clock import Clock
from tertulia.errors import ConfigurationError

KNOWN = "local:, nats://host:4222, tls://host:4222"


def open_bus(address: str, clock: Clock | None = None) -> Bus:
    """The bus that an address names; one of NATS connects when it is first used.

    Raises ConfigurationError, and MissingExtra where nats-py is not installed.
    """
    scheme, colon, rest = address.partition(":")
    if scheme == "local" and colon and not rest:
        return LocalBus(clock)
    if scheme in {"nats", "tls"} and colon:
        from tertulia.bus.nats import NatsBus  # not for all
        from tertulia.bus.nats_connection import NatsConnection

        return NatsBus(NatsConnection(address), clock)
    raise ConfigurationError(f"the address begins with no kind of bus; there are: {KNOWN}")
