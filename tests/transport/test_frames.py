from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import WireError
from penstock.transport.frames import FrameReader, Kind, pack

# Of fewer it is not known yet what they are.
HEADER_BYTES = len(pack(Kind.READY)) - 4

frames = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(Kind),
        "body": st.binary(max_size=200),
        "epoch": st.integers(0, 2**32 - 1),
        "batch": st.integers(-(2**63), 2**63 - 1),
        "attempt": st.integers(0, 2**32 - 1),
        "slot": st.integers(-1, 2**31 - 1),
        "used": st.integers(0, 2**63 - 1),
        "capacity": st.integers(0, 2**63 - 1),
        "position": st.integers(0, 2**63 - 1),
        "seen": st.integers(0, 2**32 - 1),
        "busy_s": st.floats(0, 1e9),
    }
)


def packed(fields):
    return pack(**fields)


def fields_of(frame):
    return {**frame._asdict(), "kind": Kind(frame.kind), "body": bytes(frame.body)}


@given(st.lists(frames, max_size=5), st.data())
def test_frames_that_are_cut_anywhere_are_put_together_in_order(sent, data):
    stream = b"".join(map(packed, sent))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    reader = FrameReader()
    found = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += reader.feed(stream[start:end])
    assert [fields_of(frame) for frame in found] == sent
    assert not reader.torn


@given(frames)
def test_a_frame_that_comes_byte_by_byte_is_whole_with_its_last_byte(sent):
    reader = FrameReader()
    *most, last = packed(sent)
    for byte in most:
        assert reader.feed(bytes([byte])) == []
        assert reader.torn
    (found,) = reader.feed(bytes([last]))
    assert fields_of(found) == sent
    assert not reader.torn


@given(frames, frames, st.data())
def test_a_torn_frame_is_noticed_and_never_handed_out(whole, torn, data):
    stream = packed(torn)
    length = data.draw(st.integers(1, len(stream) - 1))
    reader = FrameReader()
    found = reader.feed(packed(whole) + stream[:length])
    assert [fields_of(frame) for frame in found] == [whole]
    assert reader.torn


def test_a_body_stays_as_it_was_while_more_is_read():
    reader = FrameReader()
    (first,) = reader.feed(pack(Kind.DONE, b"first"))
    other = pack(Kind.DONE, b"other")
    reader.feed(other[:-1])
    reader.feed(other[-1:])
    assert bytes(first.body) == b"first"


@pytest.mark.timeout(15)
def test_a_large_body_comes_in_many_pieces():
    # Joining what has come with each piece would take a minute.
    body = bytes(range(256)) * (1 << 18)
    stream = memoryview(pack(Kind.LEASE, body, batch=7) + pack(Kind.DONE, batch=8))
    reader = FrameReader()
    found = []
    for start in range(0, len(stream), 65536):
        found += reader.feed(bytes(stream[start : start + 65536]))
    assert [(frame.batch, frame.body == memoryview(body)) for frame in found] == [
        (7, True),
        (8, False),
    ]


@settings(max_examples=300)
@given(st.binary(min_size=HEADER_BYTES, max_size=300))
def test_bytes_that_nobody_packed_are_refused(data):
    with pytest.raises(WireError, match="not the start of a message"):
        FrameReader().feed(data)


@given(frames, st.binary(min_size=HEADER_BYTES, max_size=100))
def test_bytes_that_nobody_packed_are_refused_behind_a_frame_too(sent, data):
    reader = FrameReader()
    reader.feed(packed(sent))
    with pytest.raises(WireError):
        reader.feed(b"\0\0" + data)


def test_a_frame_that_claims_an_impossible_size_is_refused():
    head = bytearray(pack(Kind.DONE))
    head[4:8] = b"\xff\xff\xff\xff"
    with pytest.raises(WireError):
        FrameReader().feed(bytes(head))
