"""The words of a text for full-text search, hashed for the one owner who may find them."""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Any, cast

import apsw

from tertulia.stores.database import Database

WORD_BYTES = 8
MAX_QUERY_WORDS = 64
"""Different words of a query that count; those after them are left out."""


def words(db: Database, salt: bytes, text: str) -> list[str]:
    """The words in order: without case and accents, English endings cut off, then hashed."""
    split: Any = cast("Any", db).fts5_tokenizer("porter", ["unicode61", "remove_diacritics", "2"])
    found = split(
        text.encode(),
        apsw.FTS5_TOKENIZE_DOCUMENT,
        None,
        include_offsets=False,
        include_colocated=False,
    )
    return [blake2b(each.encode(), digest_size=WORD_BYTES, key=salt).hexdigest() for each in found]


def any_of(db: Database, salt: bytes, text: str) -> str | None:
    """A query for what has any word of a text; None where the text has no word."""
    found = list(dict.fromkeys(words(db, salt, text)))[:MAX_QUERY_WORDS]
    return " OR ".join(f'"{word}"' for word in found) or None


def of_memory(db: Database, salt: bytes, key: str | None, content: str) -> str:
    """What the index gets of a memory; `key` where it was chosen by a person."""
    text = content if key is None else f"{re.sub(r'[_-]', ' ', key)}\n{content}"
    return " ".join(words(db, salt, text))
