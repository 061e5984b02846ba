"""How many batches may be on their way, and when they become more."""

from __future__ import annotations

import pytest

from penstock.plan import StreamTurns
from penstock.schedule import Window
from penstock.schedule.window import (
    COUNTED_BATCHES,
    FRESH_BYTES_A_SECOND,
    LENT_WORK_S,
    MOST_OF_ROOM,
    MOST_PER_WORKER,
    UNEVEN_PER_WORKER,
)
from tests.schedule.roles import complete, given, issued, lent, numbers, schedule

SLOW_S = 1.0


def widening(*batches, seats=2, window=2, **options):
    """A scheduler whose window may grow."""
    return given(*batches, seats=seats, window=Window(window, workers=seats), **options)


def wait(scheduler):
    """The loop waits, as `Wheel.note_wait` tells it; returns whether the window has grown."""
    window = scheduler._window
    before = window.size
    if scheduler.starves:
        window.note_starved()
    return window.size > before


# Who waits.


def test_a_wait_while_a_worker_has_nothing_to_do_widens_the_window():
    scheduler = widening([0], [1], [2], [3], [4], [5])
    _, second = issued(scheduler)
    assert not wait(scheduler), "both are at work"
    complete(scheduler, second)
    scheduler.fill()
    assert lent(scheduler) == [], "the first is not there, and the second waits for it"
    assert wait(scheduler)
    scheduler.fill()
    assert lent(scheduler) == [2, 3]
    assert numbers(scheduler) == []


def test_a_wait_for_workers_that_are_all_at_work_widens_nothing():
    scheduler = widening([0], [1], [2], [3])
    issued(scheduler)
    assert not wait(scheduler)


def test_a_wait_at_the_end_of_the_plan_widens_nothing():
    scheduler = widening([0], [1], window=3)
    _, second = issued(scheduler)
    complete(scheduler, second)
    assert not wait(scheduler)


def test_a_worker_whose_stream_has_ended_widens_nothing():
    window = Window(2, workers=2)
    scheduler = schedule(StreamTurns(2), seats=2, window=window)
    _, second = issued(scheduler)
    complete(scheduler, second)
    assert not wait(scheduler)
    assert window.size == 2


def test_a_window_that_was_given_stays():
    scheduler = given([0], [1], [2], seats=2, window=Window(2))
    _, second = issued(scheduler)
    complete(scheduler, second)
    assert not wait(scheduler)


def test_where_batches_are_large_the_wait_has_to_be_worth_the_memory():
    window = Window(4, workers=2)
    window.note_done(SLOW_S, 1 << 20)
    worth_s = 4 * (1 << 20) / FRESH_BYTES_A_SECOND
    window.note_starved(worth_s / 2)
    assert window.size == 4
    window.note_starved(worth_s / 2)
    assert window.size == 8
    # What it has grown for counts once.
    window.note_starved(worth_s)
    assert window.size == 8
    window.note_starved(worth_s)
    assert window.size == 16


def test_waits_that_only_add_up_over_hundreds_of_batches_are_not_worth_memory():
    window = Window(4, workers=2)
    window.note_done(SLOW_S, 1 << 20)
    worth_s = 4 * (1 << 20) / FRESH_BYTES_A_SECOND
    for _ in range(1000):
        window.note_starved(worth_s / COUNTED_BATCHES / 2)
        window.note_done(SLOW_S, 1 << 20)
    assert window.size == 4
    for _ in range(COUNTED_BATCHES):
        window.note_starved(worth_s / COUNTED_BATCHES * 2)
        window.note_done(SLOW_S, 1 << 20)
    assert window.size == 8


# How fast batches come.


def test_quick_batches_get_a_wider_window_only_where_they_are_small():
    for size, grows in ((1 << 16, True), (1 << 20, False)):
        window = Window(4, workers=2)
        for _ in range(100):
            window.note_done(1e-6, size)
        assert (window.size > 4) == grows


def test_batches_that_take_no_time_widen_the_window_until_each_worker_has_enough():
    window = Window(4, workers=2)
    for _ in range(20):
        window.note_done(LENT_WORK_S / 10, 0)
    # So much work a worker at least, and less than twice as much.
    assert 10 <= window.size / 2 < 20


def test_batches_that_take_their_time_widen_nothing():
    window = Window(4, workers=2)
    window.note_done(LENT_WORK_S / 2, 0)
    assert window.size == 4


def test_where_batches_are_uneven_they_are_begun_earlier():
    window = Window(4, workers=2)
    for _ in range(20):
        window.note_uneven()
    assert UNEVEN_PER_WORKER <= window.size / 2 < 2 * UNEVEN_PER_WORKER
    given_size = Window(4)
    given_size.note_uneven()
    assert given_size.size == 4


def test_there_is_a_most():
    window = Window(4, workers=2)
    for _ in range(20):
        window.note_done(0.0, 0)
    assert window.size == 2 * MOST_PER_WORKER


def test_a_wide_window_is_filled_a_quarter_at_a_time():
    window = Window(2, workers=2)
    assert window.refill_at == 1
    window.note_starved()
    window.note_starved()
    window.note_starved()
    assert (window.size, window.refill_at) == (16, 13)
    window.narrow(1)
    assert (window.size, window.refill_at) == (1, 0)


# How much memory there is.


def test_batches_take_their_share_of_the_memory_and_no_more():
    window = Window(4, workers=2, fits=lambda size: 6 * MOST_OF_ROOM if size == 100 else 1)
    window.note_done(SLOW_S, 100)
    window.note_starved(SLOW_S)
    assert window.size == 6
    window.note_starved(SLOW_S)
    assert window.size == 6


def test_the_largest_batch_counts():
    window = Window(4, workers=2, fits=lambda size: 1000 if size < 50 else 1)
    window.note_done(SLOW_S, 100)
    window.note_done(SLOW_S, 10)
    window.note_starved(SLOW_S)
    assert window.size == 4


def test_a_window_that_memory_has_narrowed_does_not_grow_again():
    window = Window(4, workers=2)
    window.narrow(2)
    window.note_starved()
    window.note_done(0.0, 0)
    assert window.size == 2


@pytest.mark.parametrize("size", [0, -1])
def test_one_batch_may_always_be_on_its_way(size):
    window = Window(4, workers=2)
    window.narrow(size)
    assert window.size == 1
    window.note_starved()
    assert window.size == 1
