"""Moving what a store keeps to another store, as it is."""

from tertulia.moving.mover import move
from tertulia.moving.results import Left, Moved

__all__ = ["Left", "Moved", "move"]
