"""Ids that are the same in every run."""

from __future__ import annotations

from hashlib import sha256
from itertools import count


class SequentialIds:
    """Ids and salts from a seed and a counter: ``Runtime(ids=SequentialIds())``.

    Two runs that ask in the same order get the same; another seed gives others. They can be
    guessed, which salts must not be where erasing has to hold: for tests only. It may be shared
    by threads.
    """

    def __init__(self, seed: int | str = 0) -> None:
        self._seed = sha256(repr(seed).encode()).digest()[:7]
        self._uids = count(1)
        self._salts = count(1)

    def uid(self) -> bytes:
        """The next id, of 16 bytes."""
        return self._seed + b"\x00" + next(self._uids).to_bytes(8, "big")

    def salt(self) -> bytes:
        """The next salt, of 16 bytes."""
        return self._seed + b"\x01" + next(self._salts).to_bytes(8, "big")
