"""The composition root: one store, one bus, one clock, and all that lives on them."""

from tertulia.runtime.defaults import configure, runtime_for
from tertulia.runtime.listing import SessionInfo
from tertulia.runtime.runtime import Runtime, as_store

__all__ = ["Runtime", "SessionInfo", "as_store", "configure", "runtime_for"]
