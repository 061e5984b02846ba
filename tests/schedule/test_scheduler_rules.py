"""Who is lent what, which reply counts, and what is delivered when."""

from __future__ import annotations

import pytest

from penstock.plan import GivenBatches, StreamTurns
from penstock.schedule import Delivery
from tests.schedule.roles import DROP, ask, complete, given, issued, numbers, schedule, seats_of
from tests.schedule.simulation import sample_error

# Lending.


def test_batches_are_lent_up_to_the_window_and_one_more_for_each_delivery():
    scheduler = given([0], [1], [2], [3], window=2)
    first, _ = issued(scheduler)
    complete(scheduler, first)
    scheduler.fill()
    assert issued(scheduler) == [], "what waits for its delivery takes its place in the window"
    scheduler.pop()
    scheduler.fill()
    assert [lease.batch for lease in issued(scheduler)] == [2]


def test_each_batch_goes_to_the_worker_with_the_least_to_do():
    scheduler = given([0], [1], [2], [3], [4], seats=2, window=4)
    first, _, third, _ = leases = issued(scheduler)
    assert [lease.seat for lease in leases] == [0, 1, 0, 1]
    complete(scheduler, third)
    complete(scheduler, first)
    scheduler.pop()
    scheduler.fill()
    assert seats_of(scheduler) == [0]


def test_nothing_is_taken_from_the_plan_without_a_worker():
    taken = []

    def sampler():
        for number in range(3):
            taken.append(number)
            yield [number]

    scheduler = schedule(GivenBatches(sampler(), batched=True), seats=0)
    assert taken == []
    assert not scheduler.finished


def test_a_batch_of_a_stream_waits_for_the_worker_of_its_stream():
    scheduler = schedule(StreamTurns(2), seats=2, window=2)
    issued(scheduler)
    scheduler.remove_worker(1)
    scheduler.fill()
    assert issued(scheduler) == []
    scheduler.add_worker(1)
    scheduler.fill()
    assert [(lease.batch, lease.seat, lease.attempt) for lease in issued(scheduler)] == [(1, 1, 1)]


def test_commands_are_given_once():
    scheduler = given([0])
    assert len(scheduler.commands()) == 1
    assert scheduler.commands() == []


# Delivery.


def test_pop_returns_none_as_long_as_there_is_nothing():
    scheduler = given([0])
    assert scheduler.pop() is None
    assert not scheduler.deliverable


def test_in_order_a_batch_waits_for_those_before_it():
    scheduler = given([0], [1])
    first, second = issued(scheduler)
    complete(scheduler, second)
    assert scheduler.ready == 1
    assert not scheduler.deliverable
    assert scheduler.pop() is None
    complete(scheduler, first)
    assert scheduler.deliverable
    assert numbers(scheduler) == [0, 1]


def test_out_of_order_batches_are_delivered_as_they_are_completed():
    scheduler = given([0], [1], [2], in_order=False)
    first, second, third = issued(scheduler)
    complete(scheduler, third)
    assert numbers(scheduler) == [2]
    complete(scheduler, second)
    complete(scheduler, first)
    assert numbers(scheduler) == [1, 0]


def test_an_epoch_is_finished_when_the_plan_has_ended_and_all_is_delivered():
    scheduler = given([0], window=1)
    (lease,) = issued(scheduler)
    complete(scheduler, lease)
    assert not scheduler.finished
    scheduler.pop()
    assert not scheduler.finished, "the plan was not asked for more yet"
    scheduler.fill()
    assert scheduler.finished


def test_an_epoch_without_batches_is_finished_at_once():
    scheduler = given()
    assert scheduler.finished
    assert scheduler.pop() is None


@pytest.mark.parametrize("in_order", [True, False])
def test_a_batch_that_cannot_be_made_is_delivered_as_its_error(in_order):
    scheduler = given([0], in_order=in_order)
    error = ValueError("collate")
    assert scheduler.failed(0, 0, 0, error)
    assert not scheduler.finished
    assert scheduler.pop() == Delivery(0, None, error)
    assert scheduler.finished


@pytest.mark.parametrize("in_order", [True, False])
def test_an_empty_batch_is_passed_over(in_order):
    plan = StreamTurns(2)
    scheduler = schedule(plan, seats=2, window=2, in_order=in_order)
    plan.end_stream(0)
    assert scheduler.emptied(0, 0, 0)
    scheduler.completed(1, 1, 0, "batch")
    assert numbers(scheduler) == [1]


@pytest.mark.parametrize("in_order", [True, False])
def test_a_plan_that_raises_ends_the_epoch_behind_the_batches_before(in_order):
    error = ValueError("sampler")

    def sampler():
        yield [0]
        yield [1]
        raise error

    scheduler = schedule(GivenBatches(sampler(), batched=True), in_order=in_order)
    first, second = issued(scheduler)
    complete(scheduler, first)
    assert numbers(scheduler) == [0]
    assert not scheduler.deliverable
    complete(scheduler, second)
    assert numbers(scheduler) == [1, None]
    assert scheduler.finished


def test_the_error_of_a_plan_is_delivered_once():
    error = ValueError("sampler")

    def sampler():
        raise error
        yield

    scheduler = schedule(GivenBatches(sampler(), batched=True))
    assert scheduler.deliverable
    assert not scheduler.finished
    assert scheduler.pop() == Delivery(None, None, error)
    assert scheduler.finished
    assert not scheduler.deliverable
    assert scheduler.pop() is None


# Which replies count.


def test_the_second_of_two_equal_replies_does_not_count():
    scheduler = given([0])
    (lease,) = issued(scheduler)
    assert complete(scheduler, lease, "first")
    assert not complete(scheduler, lease, "second")
    delivery = scheduler.pop()
    assert delivery is not None
    assert delivery.result == "first"
    assert not complete(scheduler, lease, "third")


@pytest.mark.parametrize(
    ("seat", "batch", "attempt"),
    [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 7, 0)],
    ids=["seat", "batch", "attempt", "none"],
)
def test_a_reply_about_anything_but_the_live_lease_does_not_count(seat, batch, attempt):
    scheduler = given([0], [1], seats=2)
    assert not scheduler.completed(seat, batch, attempt, "batch")
    assert not scheduler.failed(seat, batch, attempt, ValueError())
    assert not scheduler.emptied(seat, batch, attempt)
    assert not scheduler.withheld(seat, batch, attempt, [(0, sample_error(0))])
    assert numbers(scheduler) == []
    assert scheduler.open_batch() is None


def test_a_question_asked_twice_is_asked_once():
    scheduler = given([0])
    (lease,) = issued(scheduler)
    assert ask(scheduler, lease, 0)
    assert not ask(scheduler, lease, 0)
    scheduler.resolve(0, {0: DROP})
    assert scheduler.open_batch() is None


def test_an_open_batch_cannot_be_completed_before_it_is_resolved():
    scheduler = given([0])
    (lease,) = issued(scheduler)
    ask(scheduler, lease, 0)
    assert not complete(scheduler, lease)
    scheduler.resolve(0, {0: DROP})
    assert complete(scheduler, lease)
