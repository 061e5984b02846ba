"""Several batches in one lease: how many, and what becomes of the lease."""

from __future__ import annotations

import pytest

from penstock.schedule import Bundling, Death, Discard, Issue, Lease, Window
from penstock.schedule.bundling import (
    BUNDLED_BYTES,
    BUNDLED_WORK_S,
    BUNDLES_A_WORKER,
    FELT_STEP_S,
    MOST_BUNDLED,
)
from tests.schedule.roles import given

WORKERS = 2
WIDE = MOST_BUNDLED * BUNDLES_A_WORKER * WORKERS


def bundling_of(window: int = WIDE, *, busy_s: float = 1e-6, size: int = 0, step_s: float = 0.0):
    bundling = Bundling(Window(window), WORKERS)
    for _ in range(50):
        bundling.note_done(busy_s, size)
        bundling.note_step(step_s)
    return bundling


class TestSize:
    def test_small_quick_batches_of_a_quick_loop_go_together(self):
        assert bundling_of().size == MOST_BUNDLED

    def test_before_anything_is_known_they_go_one_by_one(self):
        assert Bundling(Window(WIDE), WORKERS).size == 1

    def test_so_they_do_in_a_narrow_window(self):
        assert bundling_of(BUNDLES_A_WORKER * WORKERS).size == 1
        assert bundling_of(3 * BUNDLES_A_WORKER * WORKERS).size == 3

    def test_and_where_the_loop_has_a_step_of_its_own(self):
        assert bundling_of(step_s=2 * FELT_STEP_S).size == 1

    def test_a_bundle_is_so_much_work_at_most(self):
        assert bundling_of(busy_s=BUNDLED_WORK_S / 3.5).size == 3
        assert bundling_of(busy_s=BUNDLED_WORK_S).size == 1

    def test_and_so_much_memory(self):
        assert bundling_of(size=BUNDLED_BYTES // 4).size == 4
        assert bundling_of(size=2 * BUNDLED_BYTES).size == 1

    def test_what_has_gone_wrong_is_the_last(self):
        bundling = bundling_of()
        bundling.stop()
        assert bundling.size == 1


def scheduler_of(batches: int = 12, **options):
    """Twelve batches of two samples, of which four go together."""
    bundling = bundling_of(4 * BUNDLES_A_WORKER * WORKERS)
    samples = [[2 * number, 2 * number + 1] for number in range(batches)]
    return given(*samples, seats=2, window=Window(8), bundling=bundling, **options)


def issued(scheduler) -> list[Lease]:
    return [each.lease for each in scheduler.commands() if isinstance(each, Issue)]


def test_a_lease_is_for_several_batches_and_the_window_counts_those():
    first, second = issued(scheduler_of())
    assert (first.batch, first.sizes, first.indices) == (0, (2, 2, 2, 2), list(range(8)))
    assert (second.batch, second.count) == (4, 4)
    assert [single.indices for single in second.singles()] == [[8, 9], [10, 11], [12, 13], [14, 15]]


def test_they_are_handed_over_together_in_their_turn():
    scheduler = scheduler_of()
    first, second = issued(scheduler)
    assert scheduler.completed(second.seat, second.batch, 0, "second")
    assert scheduler.pop() is None
    assert scheduler.ready == 4
    assert scheduler.completed(first.seat, first.batch, 0, "first")
    deliveries = [scheduler.pop(), scheduler.pop()]
    assert [(each.batch, each.count, each.result) for each in deliveries] == [
        (0, 4, "first"),
        (4, 4, "second"),
    ]
    scheduler.fill()
    (third,) = issued(scheduler)
    assert (third.batch, third.count) == (8, 4)


def test_one_that_fails_is_done_again_batch_by_batch():
    scheduler = scheduler_of()
    first, second = issued(scheduler)
    assert scheduler.failed(first.seat, 0, 0, ValueError())
    assert scheduler.pop() is None
    scheduler.fill()
    again = issued(scheduler)
    assert [(lease.batch, lease.attempt, lease.indices) for lease in again] == [
        (number, 1, [2 * number, 2 * number + 1]) for number in range(4)
    ]
    assert not scheduler.completed(first.seat, 0, 0, "late"), "of the attempt before"
    assert scheduler.completed(second.seat, 4, 0, "second")
    for lease in again:
        assert scheduler.completed(lease.seat, lease.batch, 1, lease.batch)
    assert [scheduler.pop().result for _ in range(5)] == [0, 1, 2, 3, "second"]
    scheduler.fill()
    assert all(lease.count == 1 for lease in issued(scheduler)), "nothing is lent together any more"
    assert not scheduler.finished


def test_of_several_the_first_may_come_and_the_others_are_lent_again():
    scheduler = scheduler_of()
    first, second = issued(scheduler)
    assert scheduler.completed(second.seat, 4, 0, "second")
    assert scheduler.completed(first.seat, 0, 0, "some", 3)
    assert scheduler.ready == 7
    delivery = scheduler.pop()
    assert (delivery.batch, delivery.count, delivery.result) == (0, 3, "some")
    assert scheduler.pop() is None
    scheduler.fill()
    again, *others = issued(scheduler)
    assert (again.batch, again.attempt, again.indices, again.count) == (3, 1, [6, 7], 1)
    assert scheduler.completed(again.seat, 3, 1, "third")
    assert [scheduler.pop().result for _ in range(2)] == ["third", "second"]
    assert all(lease.count == 1 for lease in others)


def test_a_death_is_of_the_batch_that_its_worker_was_at():
    scheduler = scheduler_of()
    first, _ = issued(scheduler)
    suspect = scheduler.remove_worker(first.seat, Death((2, 0), 1, by_itself=True))
    assert suspect is not None
    assert (suspect.batch, suspect.indices) == (2, [4, 5])
    scheduler.fill()
    assert sorted(lease.batch for lease in issued(scheduler)) == [0, 1, 2, 3]


def test_what_gives_way_for_want_of_memory_is_done_again_batch_by_batch():
    scheduler = scheduler_of()
    _, second = issued(scheduler)
    assert scheduler.completed(second.seat, 4, 0, "second")
    assert scheduler.make_room(0)
    assert any(isinstance(each, Discard) for each in scheduler.commands())
    assert scheduler.ready == 0
    assert scheduler.lease(5) is not None


@pytest.mark.parametrize("passed", [{3}, {0, 1, 2}, set(range(12))])
def test_what_was_handed_over_before_is_in_no_bundle(passed):
    scheduler = scheduler_of(passed=passed)
    singles = [single.batch for lease in issued(scheduler) for single in lease.singles()]
    assert not passed.intersection(singles)
    assert singles == sorted(singles)
