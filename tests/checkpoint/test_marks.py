"""What batches add to the progress, and when."""

from __future__ import annotations

from penstock.checkpoint import Mark, Marks, StreamMark


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


def test_what_was_noted_counts_for_a_batch_that_holds_nothing_too():
    marks = Marks(in_order=True)
    marks.note_skip(3)
    marks.note_stream(3, StreamMark(1, 4, ended=True))
    marks.note_emptied([3])
    marks.pass_by(None)
    assert marks.collect() == [Mark(3, skipped=1, stream=StreamMark(1, 4, ended=True))]


def test_what_was_noted_for_a_batch_counts_once():
    marks = Marks(in_order=False)
    marks.note_skip(1)
    marks.note_snapshot(1, 0, b"of a copy")
    marks.hand_over(1)
    marks.hand_over(1)
    assert marks.collect() == [Mark(1, skipped=1, copy=(0, b"of a copy")), Mark(1)]


def test_a_batch_is_not_passed_by_before_those_in_front_of_it_are_handed_over():
    marks = Marks(in_order=True)
    marks.note_emptied([5, 1])
    marks.pass_by(0)
    assert marks.collect() == []
    marks.pass_by(4)
    assert marks.collect() == [Mark(1)]


def test_out_of_order_the_end_of_a_stream_waits_for_the_end_of_the_epoch():
    """Its last batches may be there, and not be handed over yet."""
    marks = Marks(in_order=False)
    marks.note_stream(3, StreamMark(1, 4, True))
    marks.note_emptied([3])
    marks.hand_over(0)
    marks.pass_by(0)
    assert [mark.batch for mark in marks.collect()] == [0]
    marks.pass_by(None)
    assert [(mark.batch, mark.stream) for mark in marks.collect()] == [(3, StreamMark(1, 4, True))]
