"""The page of the reference on the client names what is there, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from tests.docs.test_reference import PAGES, as_cell, parameters, rows, told

from tertulia.client import (
    AnswerStream,
    LiveClient,
    Piece,
    Reconnect,
    Reply,
    __all__,
    asking,
    outbox,
    waiting,
)
from tertulia.client.link import FRAME_LIMIT
from tertulia.wire.frames import MAX_FRAME

PAGE = PAGES["client.md"]


@pytest.mark.parametrize("owner", [LiveClient, AnswerStream])
def test_the_page_has_every_public_method_with_its_parameters_and_no_other(owner: type) -> None:
    public = {name: as_cell(owner, name) for name in dir(owner) if not name.startswith("_")}
    assert told(owner) == public


@pytest.mark.parametrize("made", [LiveClient, Reconnect])
def test_the_page_has_every_parameter(made: Any) -> None:
    assert list(rows(f"{made.__name__}: parameters")) == parameters(made)


@pytest.mark.parametrize("name", [*__all__, *Reply.__slots__, *Piece.__slots__])
def test_the_page_names_what_the_package_exports(name: str) -> None:
    assert f"`{name}" in PAGE or f".{name}" in PAGE


def test_the_page_tells_the_bounds_as_they_are() -> None:
    assert (waiting.SIZE, outbox.SIZE) == (1_000, 1_000)
    assert asking.ANSWER_LIMIT == 8 * 1024 * 1024
    assert (FRAME_LIMIT, MAX_FRAME) == (16 * 1024 * 1024, 256 * 1024)
    for told_bound in ("1,000 events wait", "8 Mi characters", "16 MiB", "256 KiB"):
        assert told_bound in " ".join(PAGE.split())
