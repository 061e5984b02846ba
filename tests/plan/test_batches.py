"""The order cut into batches, and who takes a skipped sample's place."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import OptionError
from penstock.plan import Chunks, GivenBatches, RefillingBatches


def take_all(plan: Any) -> list[list[object]]:
    batches = []
    while (work := plan.take()) is not None:
        indices, worker = work
        assert worker is None
        batches.append(list(indices))
    return batches


# Batches of somebody else's sampler.


@pytest.mark.parametrize("batch", [[1, 2], (1, 2), np.array([1, 2]), {1: "", 2: ""}.keys()])
def test_a_batch_may_be_any_iterable_of_indices(batch):
    assert take_all(GivenBatches([batch], batched=True)) == [[1, 2]]


def test_what_is_not_a_batch_is_named_together_with_the_remedy():
    plan = GivenBatches([[0], 17], batched=True)
    plan.take()
    with pytest.raises(OptionError, match=r"gave 17, .*belongs in sampler="):
        plan.take()


def test_single_indices_make_leases_of_one_and_stay_as_they_are():
    key = (1, 2)
    plan = GivenBatches([key, [3]], batched=False)
    assert take_all(plan) == [[key], [[3]]]


def test_a_sampler_is_asked_for_a_batch_only_when_it_is_taken():
    asked = []

    def sampler():
        for number in range(3):
            asked.append(number)
            yield [number]

    plan = GivenBatches(sampler(), batched=True)
    assert asked == []
    plan.take()
    assert asked == [0]


def test_an_empty_batch_is_not_the_end():
    assert take_all(GivenBatches([[], [1]], batched=True)) == [[], [1]]


def test_the_end_of_given_batches_is_final():
    plan = GivenBatches([[0]], batched=True)
    assert take_all(plan) == [[0]]
    assert plan.take() is None


# Batches that are kept full.


@given(st.integers(0, 30), st.integers(1, 7), st.booleans())
def test_without_bad_samples_the_order_is_cut_as_a_batch_sampler_does(samples, size, drop_last):
    batches = take_all(RefillingBatches(range(samples), size, drop_last=drop_last))
    cut = [list(range(samples))[start : start + size] for start in range(0, samples, size)]
    if drop_last:
        cut = [batch for batch in cut if len(batch) == size]
    assert batches == cut


def test_planned_samples_are_those_of_the_beginning():
    plan = RefillingBatches(range(5), 2, drop_last=True)
    plan.donor(0, untaken=False)
    assert plan.planned == 5


@pytest.mark.parametrize(
    "order",
    [["a", "b", "c"], [2**70, 1, 0], [True, 0, 5], [np.int64(3), 1, 2], [(1, 2), None, 3.5]],
    ids=["str", "large", "bool", "numpy", "mixed"],
)
def test_indices_keep_their_type_and_value(order):
    (batch,) = take_all(RefillingBatches(order, 3, drop_last=False))
    assert batch == order
    assert [type(index) for index in batch] == [type(index) for index in order]


def test_what_drop_last_leaves_over_is_given_first():
    plan = RefillingBatches(range(8), 3, drop_last=True)
    assert take_all(plan) == [[0, 1, 2], [3, 4, 5]]
    assert [plan.donor(0, untaken=False) for _ in range(3)] == [(7, None), (6, None), (5, 1)]


def test_a_donor_from_a_batch_that_was_taken_is_named_with_that_batch():
    plan = RefillingBatches(range(6), 2, drop_last=False)
    plan.take()
    plan.take()
    assert plan.donor(0, untaken=False) == (5, None)
    assert plan.donor(0, untaken=False) == (4, None)
    assert plan.donor(0, untaken=False) == (3, 1)
    assert plan.indices(1) == [2]
    assert plan.take() is None


def test_a_batch_takes_nothing_from_itself_nor_from_those_before():
    plan = RefillingBatches(range(4), 2, drop_last=False)
    take_all(plan)
    assert plan.donor(1, untaken=False) is None
    assert plan.donor(0, untaken=False) == (3, 1)
    assert plan.donor(0, untaken=False) == (2, 1)
    assert plan.donor(0, untaken=False) is None
    assert plan.indices(0) == [0, 1]
    assert plan.indices(1) == []


def test_of_untaken_batches_only_nothing_is_taken_once_all_are_taken():
    plan = RefillingBatches(range(5), 2, drop_last=False)
    plan.take()
    assert plan.donor(0, untaken=True) == (4, None)
    plan.take()
    assert plan.donor(0, untaken=True) is None
    assert plan.indices(1) == [2, 3]


def test_with_drop_last_a_batch_that_lost_a_sample_is_no_more():
    plan = RefillingBatches(range(4), 2, drop_last=True)
    take_all(plan)
    assert plan.donor(0, untaken=False) == (3, 1)
    assert plan.indices(1) == []
    assert plan.donor(0, untaken=False) == (2, 1)


@pytest.mark.parametrize("untaken", [True, False])
def test_with_drop_last_a_batch_without_a_donor_is_left_out(untaken):
    plan = RefillingBatches(range(4), 2, drop_last=True)
    take_all(plan)
    assert plan.donor(1, untaken=untaken) is None
    assert plan.indices(1) == []
    assert plan.indices(0) == [0, 1]


def test_without_drop_last_a_batch_without_a_donor_stays():
    plan = RefillingBatches(range(2), 2, drop_last=False)
    plan.take()
    assert plan.donor(0, untaken=False) is None
    assert plan.indices(0) == [0, 1]


@given(
    samples=st.integers(0, 30),
    size=st.integers(1, 6),
    ahead=st.integers(0, 8),
    drop_last=st.booleans(),
    wanted=st.lists(st.integers(0, 6), max_size=10),
)
def test_how_far_batches_are_taken_ahead_changes_nothing(samples, size, ahead, drop_last, wanted):
    """`wanted`: how many donors each batch asks for, one batch after another."""
    plan = RefillingBatches(range(samples), size, drop_last=drop_last)
    pool = deque(range(samples))
    taken = 0
    for number, want in enumerate([*wanted, *[0] * 30]):
        while taken <= number + ahead and plan.take() is not None:
            taken += 1
        if len(pool) < (size if drop_last else 1):
            assert plan.indices(number) == []
            continue
        assert plan.indices(number) == [pool.popleft() for _ in range(min(size, len(pool)))]
        for _ in range(want):
            donation = plan.donor(number, untaken=False)
            if not pool:
                assert donation is None
                continue
            assert donation is not None
            index, home = donation
            assert index == pool.pop()
            assert home == (index // size if index // size < taken else None)


# Leases whose size may change.


@given(st.integers(0, 50), st.lists(st.integers(1, 9), min_size=50, max_size=50))
def test_chunks_hold_each_index_once_and_in_order_whatever_their_sizes(length, sizes):
    asked = iter(sizes)
    chunks = take_all(Chunks(length, lambda: next(asked)))
    assert [index for chunk in chunks for index in chunk] == list(range(length))
    assert [len(chunk) for chunk in chunks[:-1]] == sizes[: len(chunks)][:-1]


def test_the_size_of_a_chunk_is_asked_for_when_it_is_taken():
    sizes = [2]
    plan = Chunks(9, lambda: sizes[0])
    assert plan.take() == (range(2), None)
    sizes[0] = 4
    assert plan.take() == (range(2, 6), None)
    assert plan.take() == (range(6, 9), None)
    assert plan.take() is None


# Where an epoch goes on.


def test_batches_that_were_handed_over_are_passed_by_unseen():
    given = GivenBatches(iter([[1], [2], [3]]), batched=True, skip=2, first=2)
    assert given.take() == ([3], None)
    assert given.take() is None


def test_a_sampler_with_fewer_batches_than_are_to_be_passed_by_is_at_its_end():
    assert GivenBatches([[1]], batched=True, skip=5, first=5).take() is None


def test_looking_ahead_draws_and_loses_nothing():
    drawn = []

    def batches():
        drawn.append("begun")
        yield from ([1], [2])

    given = GivenBatches(batches(), batched=True)
    given.look_ahead()
    assert drawn == ["begun"]
    assert [given.take(), given.take(), given.take()] == [([1], None), ([2], None), None]


def test_what_was_read_ahead_and_not_asked_for_is_not_consumed():
    given = GivenBatches([iter([1, 2]), iter([3])], batched=True)
    given.look_ahead()
    assert given.peek(0) == []
    assert [given.take(), given.take()] == [([1, 2], None), ([3], None)]


def test_a_samplers_state_is_kept_behind_every_so_many_batches():
    place = []

    def batches():
        for number in range(6):
            place.append(number)
            yield [number]

    given = GivenBatches(batches(), batched=True, first=1, snapshot=lambda: len(place), every=2)
    for _ in range(5):
        given.take()
    kept = {batch: given.snapshot(batch) for batch in range(1, 6)}
    # Behind batches 1, 3 and 5, of which 1 was the first to be taken here.
    assert kept == {1: 1, 2: None, 3: 3, 4: None, 5: 5}
    assert given.snapshot(3) is None


def test_the_places_of_donors_are_told_once():
    batches = RefillingBatches(range(7), 2, drop_last=False)
    batches.take()
    batches.donor(0, untaken=False)
    batches.donor(0, untaken=False)
    assert batches.donated(0) == [6, 5]
    assert batches.donated(0) == ()


def test_what_was_donated_before_is_not_there_again():
    batches = RefillingBatches(range(8), 2, drop_last=False, first=1, donated=[7, 4])
    taken = [batches.take() for _ in range(4)]
    assert taken == [([2, 3], None), ([5], None), ([6], None), None]


def test_a_batch_whose_samples_were_all_donated_does_not_end_the_epoch():
    batches = RefillingBatches(range(6), 2, drop_last=False, donated=[2, 3])
    assert [batches.take() for _ in range(4)] == [
        ([0, 1], None),
        ([], None),
        ([4, 5], None),
        None,
    ]


def test_donors_are_not_taken_where_they_were_taken_before():
    batches = RefillingBatches(range(6), 2, drop_last=False, donated=[5, 3])
    batches.take()
    assert [batches.donor(0, untaken=False)[0] for _ in range(2)] == [4, 2]
