"""Whose turn it is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock.plan import StreamTurns


def read_all(lengths: list[int]) -> list[tuple[int, int]]:
    """Takes turns until all have ended, as (stream, batch of it); an end is noticed at once."""
    turns = StreamTurns(len(lengths))
    taken: list[tuple[int, int]] = []
    for _ in range(sum(lengths) + len(lengths) + 1):
        turn = turns.take()
        if turn is None:
            return taken
        (stream, ordinal), seat = turn
        assert isinstance(ordinal, int)
        assert seat == stream
        if ordinal < lengths[stream]:
            taken.append((stream, ordinal))
        else:
            turns.end_stream(stream)
    raise AssertionError("there are turns without end")


def test_the_first_turn_is_the_first_streams():
    turns = StreamTurns(3)
    assert [turns.take() for _ in range(5)] == [
        ([0, 0], 0),
        ([1, 0], 1),
        ([2, 0], 2),
        ([0, 1], 0),
        ([1, 1], 1),
    ]


def test_a_stream_that_has_ended_is_passed_over():
    assert read_all([3, 1, 2]) == [(0, 0), (1, 0), (2, 0), (0, 1), (2, 1), (0, 2)]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=5))
def test_each_round_takes_one_batch_of_each_stream_that_has_one(lengths):
    rounds = [
        (stream, ordinal)
        for ordinal in range(5)
        for stream, length in enumerate(lengths)
        if ordinal < length
    ]
    assert read_all(lengths) == rounds


def test_an_end_that_is_noticed_late_costs_empty_turns_and_changes_no_order():
    turns = StreamTurns(2)
    ahead = [turns.take() for _ in range(4)]
    turns.end_stream(0)
    assert ahead[2] == ([0, 1], 0)
    assert [turns.take() for _ in range(2)] == [([1, 2], 1), ([1, 3], 1)]


def test_streams_that_are_more_than_the_workers_are_read_by_them_in_turn():
    turns = StreamTurns(3, 2)
    assert [turns.take() for _ in range(4)] == [([0, 0], 0), ([1, 0], 1), ([2, 0], 0), ([0, 1], 0)]


def test_turns_begin_where_they_were_left():
    turns = StreamTurns(4, turn=2, ended={3})
    assert [turns.take() for _ in range(3)] == [([2, 0], 2), ([0, 0], 0), ([1, 0], 1)]


def test_when_all_streams_have_ended_there_is_no_turn():
    turns = StreamTurns(2)
    turns.end_stream(1)
    turns.end_stream(0)
    turns.end_stream(0)
    assert turns.take() is None
    assert turns.take() is None
