"""Where memory is short: fewer batches at once, arrived ones given up, and one made alone."""

from __future__ import annotations

import pytest

from penstock.plan import StreamTurns
from penstock.schedule import (
    Command,
    Death,
    Discard,
    Fill,
    Inquest,
    Recall,
    Rewind,
    Scheduler,
    Window,
)
from penstock.schedule.hunt import DEATHS_BY_OTHERS
from tests.schedule.roles import (
    DROP,
    ask,
    asked_about,
    complete,
    given,
    issued,
    lent,
    numbers,
    schedule,
)


def out_of_memory(batch: int, attempt: int = 0, place: int | None = None) -> Death:
    return Death((batch, attempt), place, of_memory=True)


def die(scheduler: Scheduler[str], seat: int, death: Death) -> None:
    """A worker dies and is replaced."""
    scheduler.remove_worker(seat, death)
    scheduler.add_worker(seat)
    scheduler.fill()


# Fewer at once.


def test_a_narrow_window_lends_no_more_until_so_much_has_come_and_gone():
    scheduler = given([0], [1], [2], [3], [4], window=3)
    leases = issued(scheduler)
    scheduler.narrow(1)
    for lease in leases:
        scheduler.fill()
        assert lent(scheduler) == []
        complete(scheduler, lease)
        assert numbers(scheduler) == [lease.batch]
    scheduler.fill()
    assert lent(scheduler) == [3]


def test_a_window_is_not_widened_again():
    scheduler = given([0], [1], [2], window=1)
    scheduler.narrow(3)
    scheduler.fill()
    assert lent(scheduler) == [0]


@pytest.mark.parametrize("window", [0, -1])
def test_one_batch_may_always_be_on_its_way(window):
    scheduler = given([0], [1], window=1)
    (first,) = issued(scheduler)
    scheduler.narrow(window)
    die(scheduler, 0, Death())
    (again,) = issued(scheduler)
    assert again.batch == first.batch
    complete(scheduler, again)
    assert numbers(scheduler) == [0]
    scheduler.fill()
    assert lent(scheduler) == [1]


def test_with_a_narrow_window_what_was_lost_is_lent_one_after_another():
    scheduler = given([0], [1], [2], window=3)
    issued(scheduler)
    scheduler.narrow(2)
    die(scheduler, 0, Death())
    (first, _) = issued(scheduler)
    scheduler.fill()
    assert lent(scheduler) == []
    complete(scheduler, first)
    assert numbers(scheduler) == [0]
    scheduler.fill()
    assert lent(scheduler) == [2]


def test_the_first_batch_is_lent_although_those_behind_it_fill_the_window():
    scheduler = given([0], [1], [2], seats=2, window=3)
    first, second, _ = issued(scheduler)
    complete(scheduler, second)
    scheduler.narrow(1)
    die(scheduler, first.seat, Death())
    assert lent(scheduler) == [0], "in order, the others wait for it"


# What has arrived is given up.


def test_room_is_made_by_what_has_arrived_behind_and_that_is_made_again():
    scheduler = given([0], [1], [2], window=3)
    first, second, third = issued(scheduler)
    complete(scheduler, second, "second")
    complete(scheduler, third, "third")
    assert scheduler.make_room(0)
    assert scheduler.commands() == [Discard("second"), Discard("third")]
    scheduler.fill()
    assert lent(scheduler) == [], "they would take the room again"
    assert not complete(scheduler, second, "late")
    assert complete(scheduler, first)
    scheduler.fill()
    again = issued(scheduler)
    assert [(lease.batch, lease.attempt) for lease in again] == [(1, 1), (2, 1)]
    for lease in again:
        assert complete(scheduler, lease, "made again")
    assert numbers(scheduler) == [0, 1, 2]


@pytest.mark.parametrize("in_order", [True, False])
def test_room_is_made_by_what_waits_for_its_worker_or_for_room_itself(in_order):
    scheduler = given([0], [1], [2], seats=2, window=3, in_order=in_order)
    first, second, third = issued(scheduler)
    assert scheduler.make_room(0)
    assert scheduler.commands() == [Recall(second), Recall(third)]
    scheduler.fill()
    assert lent(scheduler) == []
    assert not scheduler.make_room(0), "there is no more to give up"
    complete(scheduler, first)
    scheduler.fill()
    assert lent(scheduler) == [1, 2]


def test_in_order_the_first_of_all_gets_the_room_whichever_has_none():
    scheduler = given([0], [1], window=2)
    first, second = issued(scheduler)
    assert scheduler.make_room(1)
    assert scheduler.commands() == [Recall(second)]
    complete(scheduler, first)
    assert numbers(scheduler) == [0]
    scheduler.fill()
    assert lent(scheduler) == [1]
    assert not scheduler.make_room(1)


def test_room_is_made_by_what_waits_for_a_decision_that_comes_behind():
    scheduler = given([0], [1, 2], window=2)
    first, second = issued(scheduler)
    ask(scheduler, second, 1)
    assert asked_about(scheduler) is None
    assert scheduler.make_room(0)
    assert scheduler.commands() == [Recall(second)]
    complete(scheduler, first)
    scheduler.fill()
    (again,) = issued(scheduler)
    assert (again.batch, again.attempt) == (1, 1)
    ask(scheduler, again, 1)
    assert asked_about(scheduler) == 1


def test_what_was_decided_about_a_batch_that_is_given_up_stays_decided():
    scheduler = given([0], [10, 11], window=2, in_order=False)
    first, second = issued(scheduler)
    ask(scheduler, second, 1)
    assert asked_about(scheduler) == 1
    fill = Fill("value", "instead")
    scheduler.resolve(1, {1: fill})
    scheduler.commands()
    assert scheduler.make_room(0)
    assert scheduler.commands() == [Recall(second)]
    complete(scheduler, first)
    scheduler.fill()
    assert [lease.fills for lease in issued(scheduler)] == [{1: fill}]


def test_a_batch_that_has_failed_takes_no_room():
    scheduler = given([0], [1], window=2)
    _, second = issued(scheduler)
    scheduler.failed(second.seat, 1, 0, ValueError())
    assert not scheduler.make_room(0)


def test_out_of_order_nothing_is_given_up_since_it_is_handed_over_first():
    scheduler = given([0], [1], window=2, in_order=False)
    _, second = issued(scheduler)
    complete(scheduler, second)
    assert not scheduler.make_room(0)
    assert numbers(scheduler) == [1]


# Room, of streams.


def make_room(scheduler: Scheduler[str]) -> list[Command[str]]:
    """What is done for the room of batch 0."""
    assert scheduler.make_room(0, are_streams=True)
    return scheduler.commands()


def test_of_streams_what_was_not_begun_is_given_up_first():
    scheduler = schedule(StreamTurns(2), seats=2, window=6)
    leases = issued(scheduler)
    assert make_room(scheduler) == [Recall(lease) for lease in leases[2:]]


def test_behind_a_batch_that_waits_for_a_decision_no_other_was_begun():
    scheduler = schedule(StreamTurns(2), seats=2, window=4)
    leases = issued(scheduler)
    ask(scheduler, leases[1], 0)
    assert make_room(scheduler) == [Recall(lease) for lease in leases[2:]]


def test_then_streams_are_run_again_behind_what_was_handed_over():
    scheduler = schedule(StreamTurns(3), seats=3, window=6)
    leases = issued(scheduler)
    complete(scheduler, leases[1], "second")
    complete(scheduler, leases[4], "fifth")
    make_room(scheduler)
    # The third stream's worker is amid its first batch.
    told = [Rewind(1), Rewind(2), Discard("second"), Discard("fifth")]
    assert make_room(scheduler) == told
    assert not scheduler.make_room(0, are_streams=True)
    assert complete(scheduler, leases[0])
    assert numbers(scheduler) == [0]
    scheduler.fill()
    again = issued(scheduler)
    assert [(lease.batch, lease.seat) for lease in again] == [
        (1, 1),
        (2, 2),
        (3, 0),
        (4, 1),
        (5, 2),
    ]
    assert all(lease.attempt >= 1 for lease in again)


def test_with_each_stream_that_is_run_again_fewer_batches_are_on_their_way():
    window = Window(4)
    scheduler = schedule(StreamTurns(2), seats=2, window=window)
    make_room(scheduler)
    assert window.size == 4
    make_room(scheduler)
    assert window.size == 3


def test_an_error_behind_a_batch_that_is_made_again_comes_again():
    scheduler = schedule(StreamTurns(2), seats=2, window=6)
    leases = issued(scheduler)
    complete(scheduler, leases[1])
    scheduler.failed(1, 3, 0, ValueError())
    make_room(scheduler)
    make_room(scheduler)
    complete(scheduler, leases[0])
    assert numbers(scheduler) == [0]
    scheduler.fill()
    assert {1, 3} <= set(lent(scheduler))


def test_an_error_before_all_that_is_made_again_is_kept():
    scheduler = schedule(StreamTurns(2), seats=2, window=6)
    leases = issued(scheduler)
    error = ValueError()
    scheduler.failed(1, 1, 0, error)
    complete(scheduler, leases[3], "fourth")
    make_room(scheduler)
    assert make_room(scheduler) == [Rewind(1), Discard("fourth")]
    complete(scheduler, leases[0])
    scheduler.pop()
    delivery = scheduler.pop()
    assert delivery is not None
    assert delivery.error is error


def test_a_worker_with_several_streams_begins_all_of_them_again():
    scheduler = schedule(StreamTurns(2, seats=1), seats=1, window=4)
    leases = issued(scheduler)
    assert [lease.seat for lease in leases] == [0, 0, 0, 0]
    complete(scheduler, leases[0])
    assert numbers(scheduler) == [0]
    complete(scheduler, leases[2], "third")
    # Batch 1 is next.
    assert make_room(scheduler) == [Recall(leases[3])]
    assert make_room(scheduler) == [Rewind(0), Discard("third")]
    scheduler.fill()
    assert lent(scheduler) == [1]


def test_what_is_to_be_made_alone_waits_for_what_comes_before_it_in_its_stream():
    scheduler = schedule(StreamTurns(2), seats=2, window=6)
    leases = issued(scheduler)
    complete(scheduler, leases[1])
    die(scheduler, 1, out_of_memory(3))
    make_room(scheduler)
    assert make_room(scheduler)[0] == Rewind(1)
    complete(scheduler, leases[0])
    scheduler.fill()
    assert 3 not in lent(scheduler), "its worker would take what is of batch 1 for it"
    made = []
    while len(made) < 5:
        made += numbers(scheduler)
        scheduler.fill()
        for lease in issued(scheduler):
            complete(scheduler, lease)
    assert made[:5] == [0, 1, 2, 3, 4]


# Alone.


def test_a_batch_that_a_worker_was_killed_at_for_memory_is_made_while_nothing_else_is():
    scheduler = given([0], [1], [2], [3], seats=2, window=3)
    _, second, _ = issued(scheduler)
    die(scheduler, 0, out_of_memory(0))
    assert lent(scheduler) == [], "another is at work still"
    complete(scheduler, second)
    scheduler.fill()
    (alone,) = issued(scheduler)
    assert (alone.batch, alone.attempt) == (0, 1)
    scheduler.fill()
    assert lent(scheduler) == [], "nothing is begun beside it"
    complete(scheduler, alone)
    assert numbers(scheduler) == [0, 1]
    scheduler.fill()
    assert lent(scheduler) == [2, 3]


def test_two_such_batches_are_made_one_after_the_other():
    scheduler = given([0], [1], seats=2, window=2)
    issued(scheduler)
    scheduler.remove_worker(1, out_of_memory(1))
    die(scheduler, 0, out_of_memory(0))
    scheduler.add_worker(1)
    (first,) = issued(scheduler)
    assert first.batch == 0
    complete(scheduler, first)
    scheduler.fill()
    assert lent(scheduler) == [1]


def test_a_batch_that_fails_alone_lets_the_others_go_on():
    scheduler = given([0], [1], window=2)
    issued(scheduler)
    die(scheduler, 0, out_of_memory(0))
    (alone,) = issued(scheduler)
    scheduler.failed(alone.seat, 0, alone.attempt, ValueError())
    scheduler.fill()
    assert lent(scheduler) == [1]


def test_a_batch_that_is_made_alone_holds_nobody_up_while_it_waits_for_an_answer():
    scheduler = given([0], [1], [2], window=2)
    first, _ = issued(scheduler)
    complete(scheduler, first)
    die(scheduler, 0, out_of_memory(1))
    (alone,) = issued(scheduler)
    assert numbers(scheduler) == [0]
    scheduler.fill()
    assert lent(scheduler) == []
    ask(scheduler, alone, 0)
    scheduler.fill()
    assert lent(scheduler) == [2]
    assert asked_about(scheduler) == 1
    scheduler.resolve(1, {0: DROP})
    assert complete(scheduler, alone)
    assert numbers(scheduler) == [1]


def test_the_first_batch_goes_before_one_that_is_to_be_made_alone_if_others_wait_for_it():
    scheduler = given([0], [1], [2], seats=3, window=3)
    _, _, third = issued(scheduler)
    scheduler.remove_worker(0, Death())
    scheduler.remove_worker(1, out_of_memory(1))
    complete(scheduler, third)
    scheduler.narrow(1)
    scheduler.fill()
    (first,) = issued(scheduler)
    assert first.batch == 0
    scheduler.fill()
    assert lent(scheduler) == [], "one at a time"
    complete(scheduler, first)
    assert numbers(scheduler) == [0]
    scheduler.fill()
    assert lent(scheduler) == [1]


def test_what_was_killed_for_memory_once_is_not_searched():
    inquest = Inquest(killed=lambda index: "kills")
    scheduler = given([10, 11], inquest=inquest)
    die(scheduler, 0, out_of_memory(0, place=1))
    assert [lease.probe for lease in issued(scheduler)[1:]] == [()]


def test_a_sample_that_needs_too_much_memory_alone_is_left_out_and_not_for_good():
    quarantine: dict[object, object] = {}
    inquest = Inquest(killed=lambda index: f"kills at {index}", quarantine=quarantine)
    scheduler = given([10, 11], inquest=inquest)
    issued(scheduler)
    for attempt in range(DEATHS_BY_OTHERS):
        die(scheduler, 0, out_of_memory(0, attempt, place=1))
    (*_, probe) = issued(scheduler)
    assert probe.probe == (1,)
    for attempt in range(probe.attempt, probe.attempt + DEATHS_BY_OTHERS):
        die(scheduler, 0, out_of_memory(0, attempt, place=1))
    (*_, lease) = issued(scheduler)
    assert (lease.probe, lease.fills) == ((), {1: Fill("bad", "kills at 11")})
    assert quarantine == {}


def test_a_stream_s_next_batch_is_not_waited_for_while_its_worker_waits_for_a_decision():
    scheduler = schedule(StreamTurns(2), seats=2, window=4)
    _, asking, *_ = issued(scheduler)
    ask(scheduler, asking, 0)
    die(scheduler, 0, out_of_memory(0))
    scheduler.fill()
    # The decision comes behind batch 0, and batch 3 behind the decision.
    assert lent(scheduler) == [0]


def test_a_stream_whose_worker_was_killed_for_memory_goes_on_in_its_order():
    scheduler = schedule(StreamTurns(2), seats=2, window=4)
    leases = issued(scheduler)
    assert [lease.batch for lease in leases] == [0, 1, 2, 3]
    die(scheduler, 1, out_of_memory(1))
    for lease in (leases[0], leases[2]):
        complete(scheduler, lease)
    scheduler.fill()
    (alone,) = issued(scheduler)
    assert (alone.batch, alone.seat) == (1, 1)
    complete(scheduler, alone)
    scheduler.fill()
    assert lent(scheduler) == [3]


def test_an_epoch_that_is_given_up_while_a_batch_is_made_alone_is_over():
    scheduler = given([0], [1], window=2)
    issued(scheduler)
    die(scheduler, 0, out_of_memory(0))
    scheduler.commands()
    assert scheduler.abandon() == []
    scheduler.fill()
    assert scheduler.commands() == []
    assert scheduler.finished
