"""How far an epoch has come."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from penstock.checkpoint import Mark, Progress, StreamMark, StreamProgress
from penstock.checkpoint.own_state import pack, unpack


def test_batches_in_order_move_the_frontier():
    progress = Progress()
    progress.add([Mark(0, read=4), Mark(1, skipped=1, read=4)])
    assert (progress.passed, progress.beyond) == (2, set())
    assert (progress.read, progress.skipped) == (8, 1)


@given(st.permutations(range(8)), st.integers(0, 8))
def test_out_of_order_the_frontier_waits_for_the_first_that_is_missing(order, count):
    progress = Progress()
    progress.add(Mark(batch) for batch in order[:count])
    handed = set(order[:count])
    assert handed == set(range(progress.passed)) | progress.beyond
    assert progress.passed not in handed


def test_a_sampler_state_counts_once_all_before_it_has_been_handed_over():
    progress = Progress()
    progress.add([Mark(1, sampler=b"behind 1")])
    assert (progress.sampler, progress.sampler_at) == (None, 0)
    progress.add([Mark(0, sampler=b"behind 0")])
    assert (progress.sampler, progress.sampler_at) == (b"behind 1", 2)


def test_a_stream_keeps_its_last_snapshot_and_where_that_was():
    progress = Progress(streams=[StreamProgress(), StreamProgress()])
    progress.add(
        [Mark(0, stream=StreamMark(0, 3, snapshot=b"s")), Mark(1, stream=StreamMark(1, 2))]
    )
    assert progress.turn == 0
    progress.add([Mark(2, stream=StreamMark(0, 6))])
    assert progress.streams[0] == StreamProgress(pulled=6, snapshot=b"s", snapshot_at=3)
    assert progress.streams[1] == StreamProgress(pulled=2)
    assert progress.turn == 1


def test_a_stream_that_has_ended_stays_so():
    progress = Progress(streams=[StreamProgress()])
    progress.add([Mark(0, stream=StreamMark(0, 3, ended=True)), Mark(1, stream=StreamMark(0, 3))])
    assert progress.streams[0].ended


def test_the_last_state_of_each_copy_is_kept():
    progress = Progress()
    progress.add([Mark(0, copy=(2, b"a")), Mark(1, copy=(0, b"b")), Mark(2, copy=(2, b"c"))])
    assert progress.copies == [b"b", None, b"c"]


def test_it_survives_json():
    stream = StreamProgress(4, snapshot=pack({"at": 1}), snapshot_at=2)
    progress = Progress(streams=[stream])
    progress.add([Mark(0, donated=[9], sampler=pack([1])), Mark(3), Mark(5)])
    state = json.loads(json.dumps(progress.to_state()))
    again = Progress.from_state(state)
    assert again.to_state() == progress.to_state()
    assert again.beyond == {3, 5}
    assert (unpack(again.streams[0].snapshot), unpack(again.sampler)) == ({"at": 1}, [1])
