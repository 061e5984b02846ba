"""Whatever comes through a worker's pipe: what was sent, or an error that says so.

A valid stream of frames is damaged as a foreign writer, a dying worker or a bug could do it, cut
into reads of any size, and read. Only what was sent may come out, from the beginning on, and as
soon as the damage has been read whole, it is reported.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import tracemalloc

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from penstock.errors import WireError
from penstock.transport.channel import Channel, ChannelClosed
from penstock.transport.frames import Frame, FrameReader, Kind, pack

FIELDS = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(Kind),
        "body": st.binary(max_size=150),
        "epoch": st.integers(0, 3),
        "batch": st.integers(0, 9),
        "attempt": st.integers(0, 3),
        "slot": st.integers(-1, 5),
        "used": st.integers(0, 1 << 20),
        "capacity": st.integers(0, 1 << 20),
    }
)
HEADER_BYTES = len(pack(Kind.READY)) - 4


def cut(data: bytes, at: list[int]) -> list[bytes]:
    """The pieces between these places."""
    places = sorted({0, len(data), *(place % (len(data) + 1) for place in at)})
    return [data[start:end] for start, end in itertools.pairwise(places)]


def read(pieces: list[bytes]) -> tuple[list[bytes], bool, bool]:
    """The frames that come out, packed again; whether damage was reported; whether one is begun."""
    reader = FrameReader()
    found: list[bytes] = []
    for piece in pieces:
        try:
            found += map(packed_again, reader.feed(piece))
        except WireError:
            return found, True, False
    return found, False, reader.torn


def packed_again(frame: Frame) -> bytes:
    fields = frame._asdict()
    return pack(Kind(fields.pop("kind")), bytes(fields.pop("body")), **fields)


CUTS = st.lists(st.integers(0, 1 << 12), max_size=8)
STREAMS = st.lists(FIELDS, min_size=1, max_size=5).map(
    lambda frames: [pack(**fields) for fields in frames]
)


@given(STREAMS, st.data(), CUTS)
@settings(max_examples=400)
def test_bytes_in_the_midst_of_a_stream_are_found_before_anything_is_made_of_them(sent, data, cuts):
    stream = b"".join(sent)
    foreign = data.draw(st.binary(min_size=1, max_size=200))
    at = data.draw(st.integers(0, len(stream) - 1))
    damaged = stream[:at] + foreign + stream[at:]
    found, reported, torn = read(cut(damaged, cuts))
    check(sent, damaged, found, reported, torn)


@given(STREAMS, st.data(), CUTS)
@settings(max_examples=400)
def test_bytes_that_are_missing_are_found_likewise(sent, data, cuts):
    stream = b"".join(sent)
    at = data.draw(st.integers(0, len(stream) - 1))
    count = data.draw(st.integers(1, len(stream) - at))
    damaged = stream[:at] + stream[at + count :]
    found, reported, torn = read(cut(damaged, cuts))
    check(sent, damaged, found, reported, torn)


def check(sent, damaged, found, reported, torn):
    """Only frames that were sent come out of a damaged stream, and the damage shows.

    Whole frames may be gone from between others: each says itself what it is of. Where a frame is
    begun and nothing reported, more is waited for, which a worker that lives never leaves out.
    """
    assert set(found) <= set(sent)
    assert reported or torn or b"".join(found) == damaged


@given(STREAMS, st.data(), CUTS)
@settings(max_examples=400)
def test_no_field_of_a_header_can_be_another_than_was_sent(sent, data, cuts):
    which = data.draw(st.integers(0, len(sent) - 1))
    place = data.draw(st.integers(0, HEADER_BYTES - 1))
    bit = 1 << data.draw(st.integers(0, 7))
    frame = bytearray(sent[which])
    frame[place] ^= bit
    # It is whole, so nothing else can be waited for: a size that was changed is found at once.
    found, reported, _ = read(cut(b"".join([*sent[:which], frame]), cuts))
    assert reported
    assert found == sent[: len(found)]
    assert len(found) <= which


@given(st.binary(max_size=400), CUTS)
@settings(max_examples=400)
@example(bytes(400), [])
@example(b"\xff" * 400, [])
def test_of_random_bytes_nothing_is_made(noise, cuts):
    found, reported, _ = read(cut(noise, cuts))
    assert not found
    assert reported == (len(noise) >= HEADER_BYTES)


@given(st.integers(1, (1 << 32) - 1), st.binary(max_size=200))
@settings(max_examples=50)
def test_a_size_takes_no_memory_before_its_bytes_come(size, come):
    head = huge_header(size)
    tracemalloc.start()
    try:
        reader = FrameReader()
        assert reader.feed(head + come[: size - 1]) == []
        assert reader.torn
        assert tracemalloc.get_traced_memory()[1] < 1 << 16
    finally:
        tracemalloc.stop()


class Sized(bytes):
    """Bytes that claim another length than they have."""

    size = 0

    def __len__(self) -> int:
        return self.size


def huge_header(size: int) -> bytes:
    """The valid header of a frame with a body that nobody has the memory for."""
    body = Sized()
    body.size = size
    return pack(Kind.DONE, body)[:HEADER_BYTES]


@given(STREAMS, st.integers(0, 1 << 12), CUTS)
@settings(
    max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
def test_a_channel_gives_what_came_before_its_writer_was_killed(no_leaks, sent, end, cuts):
    stream = b"".join(sent)
    stream = stream[: end % (len(stream) + 1)]
    reader, writer = multiprocessing.Pipe(duplex=False)
    _, elsewhere = pipe = multiprocessing.Pipe(duplex=False)
    channel = Channel(reader, elsewhere, blocking=False)
    found: list[bytes] = []
    for piece in cut(stream, cuts):
        os.write(writer.fileno(), piece)
        found += map(packed_again, channel.receive())
    writer.close()
    with pytest.raises(ChannelClosed):
        channel.receive()
    channel.close()
    pipe[0].close()
    assert found == whole_frames(sent, len(stream))


def whole_frames(sent: list[bytes], length: int) -> list[bytes]:
    """Those that lie within the first bytes of a stream."""
    whole = []
    for frame in sent:
        length -= len(frame)
        if length < 0:
            break
        whole.append(frame)
    return whole
