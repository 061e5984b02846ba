"""Bad samples: when they are asked about, and what comes in their places."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.schedule import Amend, Delivery, Discard, Fill, Recall
from tests.schedule.roles import (
    DROP,
    ask,
    asked_about,
    complete,
    given,
    issued,
    numbers,
    refilling,
)
from tests.schedule.simulation import sample_error


def test_in_order_questions_are_asked_in_the_order_of_delivery():
    scheduler = given([0], [1], [2])
    first, second, third = issued(scheduler)
    ask(scheduler, third, 0)
    ask(scheduler, second, 0)
    assert scheduler.open_batch() is None
    complete(scheduler, first)
    assert asked_about(scheduler) == 1
    scheduler.resolve(1, {0: DROP})
    assert scheduler.open_batch() is None, "it may have to be asked about again"
    complete(scheduler, second)
    assert asked_about(scheduler) == 2


def test_out_of_order_questions_do_not_wait_for_each_other():
    scheduler = given([0], [1], in_order=False)
    _, second = issued(scheduler)
    ask(scheduler, second, 0)
    assert asked_about(scheduler) == 1


def test_a_question_brings_the_bad_samples_and_their_places():
    scheduler = given(["a", "b"])
    error = sample_error("b")
    scheduler.withheld(0, 0, 0, [(1, error)])
    assert scheduler.open_batch() == (0, [(1, error)])


def test_a_batch_with_an_open_question_is_not_delivered_nor_passed():
    scheduler = given([0], [1])
    first, second = issued(scheduler)
    ask(scheduler, first, 0)
    complete(scheduler, second)
    assert scheduler.pop() is None


def test_a_dropped_place_without_donors_is_left_out():
    scheduler = given([0, 1])
    (lease,) = issued(scheduler)
    ask(scheduler, lease, 1)
    scheduler.resolve(0, {1: DROP})
    assert scheduler.commands() == [Amend(lease, {1: DROP})]


def test_a_value_is_put_in_even_where_there_are_donors():
    scheduler = refilling(3, 1)
    lease = issued(scheduler)[0]
    ask(scheduler, lease, 0)
    fill = Fill("value", "other")
    scheduler.resolve(0, {0: fill})
    assert scheduler.commands() == [Amend(lease, {0: fill})]


def test_a_dropped_place_is_given_the_last_sample_of_the_epoch():
    scheduler = refilling(9, 2, window=2)
    lease = issued(scheduler)[0]
    ask(scheduler, lease, 0, 1)
    scheduler.resolve(0, {0: DROP, 1: DROP})
    fills = {0: Fill("index", 8), 1: Fill("index", 7)}
    assert scheduler.commands() == [Amend(lease, fills)]


def test_a_donor_that_is_bad_as_well_is_replaced_by_the_next():
    scheduler = refilling(9, 2, window=2)
    lease = issued(scheduler)[0]
    for donor in (8, 7):
        assert ask(scheduler, lease, 1)
        scheduler.resolve(0, {1: DROP})
        assert lease.fills == {1: Fill("index", donor)}


@pytest.mark.parametrize("state", ["lent", "open", "queued", "ready", "failed"])
def test_a_batch_whose_sample_was_given_away_is_made_anew_from_what_is_left(state):
    scheduler = refilling(6, 2, seats=2)
    first, second, third = issued(scheduler)
    if state == "open":
        ask(scheduler, third, 0)
    if state == "ready":
        complete(scheduler, third, "stale")
    if state == "failed":
        scheduler.failed(third.seat, third.batch, third.attempt, ValueError())
    if state == "queued":
        # A donor that is bad takes the same batch's sample twice before it is lent again.
        complete(scheduler, first)
        scheduler.remove_worker(third.seat)
        ask(scheduler, second, 0)
        scheduler.resolve(1, {0: DROP})
    else:
        ask(scheduler, first, 0)
        scheduler.resolve(0, {0: DROP})
    amend, *rest = scheduler.commands()
    assert isinstance(amend, Amend)
    assert amend.fills == {0: Fill("index", 5)}
    expected: dict[str, Any] = {
        "lent": [Recall(third)],
        "open": [Recall(third)],
        "ready": [Discard("stale")],
    }
    assert rest == expected.get(state, [])
    scheduler.fill()
    (again,) = issued(scheduler)
    assert (again.batch, again.attempt > 0, again.indices) == (2, True, [4])
    # Its worker is still at those places, and may die there.
    assert third.indices == [4, 5]
    assert not complete(scheduler, third)


def test_a_batch_that_was_robbed_twice_is_lent_once():
    scheduler = refilling(9, 3)
    first, *_ = issued(scheduler)
    for _ in range(2):
        ask(scheduler, first, 0)
        scheduler.resolve(0, {0: DROP})
    scheduler.commands()
    scheduler.fill()
    assert [(lease.batch, lease.indices) for lease in issued(scheduler)] == [(2, [6])]


@pytest.mark.parametrize("state", ["lent", "ready"])
def test_a_batch_that_was_given_away_to_the_last_is_passed_over(state):
    scheduler = refilling(3, 1)
    first, second, third = issued(scheduler)
    if state == "ready":
        complete(scheduler, third, "stale")
    ask(scheduler, first, 0)
    scheduler.resolve(0, {0: DROP})
    order = Recall(third) if state == "lent" else Discard("stale")
    assert scheduler.commands() == [Amend(first, {0: Fill("index", 2)}), order]
    complete(scheduler, first)
    complete(scheduler, second)
    assert not complete(scheduler, third)
    assert numbers(scheduler) == [0, 1]
    scheduler.fill()
    assert scheduler.commands() == []
    assert scheduler.finished


def test_out_of_order_nothing_is_taken_from_a_batch_that_was_given_out():
    scheduler = refilling(6, 2, window=3, in_order=False)
    first = issued(scheduler)[0]
    ask(scheduler, first, 0)
    scheduler.resolve(0, {0: DROP})
    assert scheduler.commands() == [Amend(first, {0: DROP})]


@pytest.mark.parametrize("in_order", [True, False])
def test_with_drop_last_a_batch_that_cannot_be_filled_is_left_out(in_order):
    scheduler = refilling(2, 2, drop_last=True, in_order=in_order)
    (lease,) = issued(scheduler)
    ask(scheduler, lease, 0)
    scheduler.resolve(0, {0: DROP})
    assert scheduler.commands() == [Recall(lease)]
    assert not complete(scheduler, lease)
    assert numbers(scheduler) == []
    assert scheduler.remove_worker(0) is None
    scheduler.add_worker(0)
    scheduler.fill()
    assert scheduler.finished


def test_a_batch_that_is_given_up_is_recalled_and_delivered_as_the_error():
    scheduler = given([0], [1])
    first, second = issued(scheduler)
    error = ValueError("bad")
    ask(scheduler, first, 0)
    scheduler.fail(0, error)
    assert scheduler.commands() == [Recall(first)]
    assert not complete(scheduler, first)
    assert scheduler.pop() == Delivery(0, None, error)
    assert scheduler.remove_worker(0) is second, "the worker has the first lease no more"
