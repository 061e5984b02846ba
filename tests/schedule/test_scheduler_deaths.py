"""What was lent to a worker that died."""

from __future__ import annotations

import pytest

from penstock.schedule import MAX_DEATHS_PER_BATCH, Inquest, Lease, Scheduler
from tests.schedule.roles import DROP, ask, asked_about, complete, given, issued, numbers


def test_what_a_dead_worker_held_is_lent_again_as_a_new_attempt():
    scheduler = given([0], [1], [2], seats=2)
    before = issued(scheduler)
    scheduler.remove_worker(0)
    scheduler.fill()
    after = issued(scheduler)
    assert [(lease.batch, lease.attempt, lease.seat) for lease in after] == [(0, 1, 1), (2, 1, 1)]
    assert [lease.indices for lease in after] == [[0], [2]]
    assert not complete(scheduler, before[0])
    assert complete(scheduler, after[0])
    assert complete(scheduler, before[1])


def test_the_suspect_is_the_oldest_lease_that_the_dead_worker_could_work_on():
    scheduler = given([0], [1], [2])
    first, second, third = issued(scheduler)
    complete(scheduler, first)
    ask(scheduler, second, 0)
    assert scheduler.remove_worker(0) is third, "the second was waiting for an answer"


def test_the_batch_that_was_answered_last_is_suspect_too():
    scheduler = given([0], [1])
    first, _ = issued(scheduler)
    ask(scheduler, first, 0)
    scheduler.resolve(0, {0: DROP})
    assert scheduler.remove_worker(0) is first


def test_a_worker_that_died_with_nothing_to_do_leaves_no_suspect():
    scheduler = given([0], seats=2)
    assert scheduler.remove_worker(1) is None
    assert scheduler.remove_worker(1) is None


def test_what_was_settled_before_a_death_stays_settled():
    scheduler = given([0, 1])
    (lease,) = issued(scheduler)
    ask(scheduler, lease, 1)
    scheduler.resolve(0, {1: DROP})
    scheduler.commands()
    scheduler.remove_worker(0)
    scheduler.add_worker(0)
    scheduler.fill()
    (again,) = issued(scheduler)
    assert (again.attempt, again.fills) == (1, {1: DROP})


def test_a_question_of_a_dead_worker_is_asked_again_by_the_next():
    scheduler = given([0])
    (lease,) = issued(scheduler)
    ask(scheduler, lease, 0)
    scheduler.remove_worker(0)
    assert scheduler.open_batch() is None
    scheduler.add_worker(0)
    scheduler.fill()
    (again,) = issued(scheduler)
    assert ask(scheduler, again, 0)
    assert asked_about(scheduler) == 0


def kill(scheduler: Scheduler[str], times: int) -> list[Lease | None]:
    suspects = []
    for _ in range(times):
        suspects.append(scheduler.remove_worker(0))
        scheduler.add_worker(0)
        scheduler.fill()
    return suspects


@pytest.mark.parametrize("in_order", [True, False])
def test_a_batch_that_kills_every_worker_is_given_up_in_its_turn(in_order):
    died = []

    def death_error(lease: Lease) -> BaseException:
        died.append((lease.batch, lease.attempt))
        return RuntimeError("it kills")

    scheduler = given([0], [1], window=2, in_order=in_order, inquest=Inquest(given_up=death_error))
    kill(scheduler, MAX_DEATHS_PER_BATCH - 1)
    assert died == []
    assert not scheduler.deliverable
    kill(scheduler, 1)
    assert died == [(0, MAX_DEATHS_PER_BATCH - 1)]
    delivery = scheduler.pop()
    assert delivery is not None
    assert delivery.batch == 0
    assert isinstance(delivery.error, RuntimeError)
    lease = issued(scheduler)[-1]
    assert lease.batch == 1
    assert complete(scheduler, lease)
    assert numbers(scheduler) == [1]


def test_deaths_count_against_the_suspect_alone():
    scheduler = given([0], [1], window=2, inquest=Inquest(given_up=lambda lease: RuntimeError()))
    suspects = kill(scheduler, MAX_DEATHS_PER_BATCH - 1)
    assert {suspect.batch for suspect in suspects if suspect is not None} == {0}
    complete(scheduler, next(each for each in reversed(issued(scheduler)) if not each.batch))
    kill(scheduler, MAX_DEATHS_PER_BATCH - 1)
    assert numbers(scheduler) == [0]
    kill(scheduler, 1)
    assert numbers(scheduler) == [1]


def test_without_a_death_error_a_batch_is_tried_for_ever():
    scheduler = given([0])
    kill(scheduler, MAX_DEATHS_PER_BATCH * 3)
    assert complete(scheduler, issued(scheduler)[-1])
    assert numbers(scheduler) == [0]
