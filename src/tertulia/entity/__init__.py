"""Keyed, durable state with one writer at a time."""

from tertulia.entity.entity import Entity, State, query

__all__ = ["Entity", "State", "query"]
