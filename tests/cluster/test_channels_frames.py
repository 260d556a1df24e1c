"""The codec of frames and the windows, with whatever hypothesis comes up with."""

from __future__ import annotations

import random

import hypothesis.strategies as st
from hypothesis import given

from tertulia.cluster.frames import (
    FRAME_LIMIT,
    KIND_LIMIT,
    PART_LIMIT,
    REASON_LIMIT,
    Frame,
    Word,
    decode,
    encode,
    short,
    split,
)
from tertulia.cluster.windows import MESSAGE_LIMIT, WINDOW, WINDOW_FRAMES, Arrivals, Room

WHOLE = st.integers(1, 2**64 - 1)
COMMON = {"sender": st.binary(min_size=16, max_size=16), "link": st.integers(0, 2**64 - 1)}
KINDS = st.text(st.characters(codec="ascii", exclude_categories=["Cs"]), min_size=1, max_size=64)
FRAMES = st.one_of(
    st.builds(
        Frame,
        st.just(Word.OPEN),
        WHOLE,
        st.binary(max_size=300),
        text=KINDS,
        more=st.booleans(),
        answer=st.booleans(),
        number=WHOLE,
        **COMMON,
    ),
    st.builds(
        Frame,
        st.just(Word.DATA),
        WHOLE,
        st.binary(max_size=300),
        more=st.booleans(),
        number=WHOLE,
        **COMMON,
    ),
    st.builds(
        Frame,
        st.just(Word.CREDIT),
        WHOLE,
        size=st.integers(0, 2**32 - 1),
        frames=st.integers(0, 2**32 - 1),
        number=WHOLE,
        **COMMON,
    ),
    st.builds(Frame, st.just(Word.END), WHOLE, number=WHOLE, **COMMON),
    st.builds(
        Frame,
        st.just(Word.CLOSE),
        WHOLE,
        text=st.text(max_size=40),
        refused=st.booleans(),
        unserved=st.booleans(),
        number=WHOLE,
        **COMMON,
    ),
    st.builds(Frame, st.just(Word.BEAT), number=WHOLE, **COMMON),
    st.builds(Frame, st.just(Word.RESET), **COMMON),
)


@given(FRAMES)
def test_a_frame_comes_out_as_it_went_in(frame: Frame) -> None:
    assert decode(encode(frame)) == frame


@given(st.binary(max_size=200))
def test_whatever_comes_is_a_frame_or_none(data: bytes) -> None:
    frame = decode(data)
    assert frame is None or encode(frame) == data


@given(FRAMES, st.data())
def test_a_frame_with_a_bit_turned_or_cut_off_never_raises(
    frame: Frame, data: st.DataObject
) -> None:
    whole = bytearray(encode(frame))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    cut = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    found = decode(cut)
    assert found is None or decode(encode(found)) == found


def test_the_largest_frame_is_within_the_limit() -> None:
    frame = Frame(Word.OPEN, 1, bytes(PART_LIMIT), text="k" * KIND_LIMIT, number=1)
    assert len(encode(frame)) <= FRAME_LIMIT
    assert decode(encode(frame)) == frame
    assert decode(encode(frame) + bytes(FRAME_LIMIT)) is None


@given(st.text(max_size=300))
def test_a_reason_is_cut_to_what_a_frame_may_have(reason: str) -> None:
    assert len(short(reason).encode()) <= REASON_LIMIT
    assert reason.startswith(short(reason))


SIZES = st.one_of(st.integers(0, 2_000), st.integers(60_000, 70_000), st.integers(0, MESSAGE_LIMIT))


@given(st.lists(SIZES, max_size=40), st.integers(0, 2**32))
def test_all_messages_get_through_and_what_waits_is_bounded(sizes: list[int], seed: int) -> None:
    """A sender that sends whenever it may, and a reader that takes when luck has it."""
    luck = random.Random(seed)
    sent = [bytes([size % 251]) * size for size in sizes]
    frames = [
        (part, index + 1 < len(parts))
        for parts in map(split, sent)
        for index, part in enumerate(parts)
    ]
    room, arrivals, came, waiting = Room(), Arrivals(), list[bytes](), 0
    while len(came) < len(sent):
        moved = False
        if frames and room.fits(len(frames[0][0])) and luck.random() < 0.9:
            part, more = frames.pop(0)
            room.take(len(part))
            waiting += len(part)
            assert arrivals.add(part, more=more)
            moved = True
        assert waiting <= MESSAGE_LIMIT + WINDOW
        stuck = not frames or not room.fits(len(frames[0][0]))
        if (stuck or luck.random() < 0.3) and (data := arrivals.take()) is not None:
            came.append(data)
            waiting -= len(data)
            moved = True
        if (due := arrivals.due()) is not None:
            room.give(due.size, due.frames)
            arrivals.paid()
            moved = True
        assert moved or not stuck
    assert came == sent


def test_who_sends_more_than_the_window_is_found_out() -> None:
    arrivals = Arrivals()
    assert all(arrivals.add(b"x", more=False) for _ in range(WINDOW_FRAMES))
    assert not arrivals.add(b"x", more=False)


def test_parts_without_data_are_found_out() -> None:
    assert not Arrivals().add(b"", more=True)
    arrivals = Arrivals()
    assert arrivals.add(b"x", more=True)
    assert not arrivals.add(b"", more=False)


def test_a_message_that_never_ends_is_found_out() -> None:
    arrivals, taken = Arrivals(), 0
    while arrivals.add(bytes(PART_LIMIT), more=True):
        taken += PART_LIMIT
        arrivals.paid()
    assert taken <= MESSAGE_LIMIT
