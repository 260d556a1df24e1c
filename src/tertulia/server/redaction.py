"""Tokens stay out of the server's logs."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"

_LOGGERS = (
    "uvicorn.access",
    "uvicorn.error",  # what becomes of a WebSocket, and at DEBUG its headers and frames
    "uvicorn.asgi",  # at the lowest level each scope, with its query
)


def _spelled(word: str) -> str:
    """A pattern for a word in a URL, where each letter may be written as its code."""
    return "".join(f"(?:{each}|%{ord(each):02x}|%{ord(each.upper()):02x})" for each in word)


_SECRET = re.compile(rf"((?:{_spelled('token')})=|\bbearer\s+)[^&\s]+", re.IGNORECASE)


class RedactTokens(logging.Filter):
    """Hides the values of `token=` and of `Bearer` in all that is logged; drops no record.

    From the level DEBUG down whole frames and scopes are logged, and a token may be anywhere in
    them: there, of what is neither text nor a number only the type is told.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg = _hidden(record.msg, record.levelno)
        if isinstance(record.args, Mapping):
            record.args = {
                key: _hidden(value, record.levelno) for key, value in record.args.items()
            }
        elif record.args:
            record.args = tuple(_hidden(value, record.levelno) for value in record.args)
        return True


_REDACT = RedactTokens()


def redact_logs() -> None:
    """Put `RedactTokens` on the loggers of uvicorn; more than once is the same as once.

    uvicorn keeps the filter when it sets up its loggers afterwards.
    """
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_REDACT)


def _hidden(value: Any, level: int) -> Any:
    """A part of a record without the tokens in it."""
    if isinstance(value, str):
        return _SECRET.sub(rf"\g<1>{HIDDEN}", value)
    if level <= logging.DEBUG and not isinstance(value, int | float | None):
        return f"<{type(value).__name__}>"
    return value
