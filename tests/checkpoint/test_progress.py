"""How far an epoch has come, and what its batches add to that."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from penstock.checkpoint import Mark, Marks, Progress, StreamMark, StreamProgress
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


# Marks.


def test_in_order_a_batch_that_holds_nothing_is_passed_by_in_its_turn():
    marks = Marks(in_order=True)
    marks.note_emptied([2, 4])
    marks.pass_by(1)
    marks.hand_over(1)
    assert [mark.batch for mark in marks.collect()] == [1]
    marks.pass_by(3)
    marks.hand_over(3)
    assert [mark.batch for mark in marks.collect()] == [2, 3]
    marks.pass_by(None)
    assert [mark.batch for mark in marks.collect()] == [4]


def test_out_of_order_it_is_passed_by_at_once():
    marks = Marks(in_order=False)
    marks.note_emptied([7])
    marks.pass_by(1)
    assert [mark.batch for mark in marks.collect()] == [7]


def test_a_mark_holds_what_was_noted_for_its_batch():
    marks = Marks(in_order=True)
    marks.note_skip(1)
    marks.note_skip(1)
    marks.note_skip(2)
    marks.note_stream(1, StreamMark(0, 5))
    marks.note_snapshot(1, 0, b"of a stream")
    marks.note_snapshot(2, 3, b"of a copy")
    marks.hand_over(1, read=4, donated=(8,), sampler=b"s")
    marks.hand_over(2)
    first, second = marks.collect()
    stream = StreamMark(0, 5, snapshot=b"of a stream")
    assert first == Mark(1, skipped=2, read=4, donated=(8,), stream=stream, sampler=b"s")
    assert second == Mark(2, skipped=1, copy=(3, b"of a copy"))
    assert marks.collect() == []
