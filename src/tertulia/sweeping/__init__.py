"""Sweeping while servers run: one worker of a store at a time."""

from tertulia.sweeping.duty import Standing, standing
from tertulia.sweeping.sweeper import DUTY, Sweep, Sweeper

__all__ = ["DUTY", "Standing", "Sweep", "Sweeper", "standing"]
