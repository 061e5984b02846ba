"""Real workers, looked after: deaths that nothing tells of, samples that take too long, stacks."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import time

import pytest

from penstock.engines.oversight import Oversight
from penstock.engines.protocol import ROUND_S
from penstock.transport.journal import AT_ONCE, NO_PLACE
from penstock.transport.memory import RecentKills
from tests.engines.driving import job_of
from tests.engines.seated import EPOCH, CountedKills, Office, wait_for_death, wait_until

TIMEOUT_S = 2.0


@pytest.fixture
def office():
    office = Office(job_of(list(range(9)), seats=2))
    yield office
    office.close()


def oversight_of(office: Office, sample_timeout_s: float | None = TIMEOUT_S) -> Oversight:
    return Oversight(office.crew, office.journal, RecentKills(), sample_timeout_s)


def found_late(oversight: Oversight, after_s: float) -> list:
    """The seats that a look yields, with what they are at."""
    looks = oversight.look(time.monotonic() + after_s, EPOCH)
    return [(seat.number, None if entry is None else entry.place) for seat, entry in looks]


def found(oversight: Oversight, after_s: float = 0.0) -> list:
    """The same behind all the looks that are due before."""
    now = time.monotonic()
    while oversight.due < now + after_s:
        list(oversight.look(oversight.due, EPOCH))
    return found_late(oversight, after_s)


# Who is gone.


def test_workers_that_live_are_left_alone(office):
    for seat in (0, 1):
        office.hire(seat)
    assert found(oversight_of(office)) == []


def test_seats_without_a_worker_are_passed_over(office):
    assert found(oversight_of(office)) == []


@pytest.mark.parametrize("taken", [False, True], ids=["zombie", "taken by somebody else"])
def test_a_worker_that_died_is_found_although_its_own_child_holds_its_pipes(office, taken):
    reader, writer = os.pipe()

    def leave_a_child():
        if not os.fork():
            os.close(writer)
            os.read(reader, 1)
        os._exit(0)

    pid = office.hire(1, leave_a_child)
    office.hire(0)
    wait_for_death(pid)
    poll = select.poll()
    for fd in office.seats[1].handles:
        poll.register(fd, select.POLLIN)
    assert poll.poll(0) == [], "nothing else tells"
    if taken:
        # As a handler of SIGCHLD does that waits for all children.
        os.waitpid(pid, 0)
    oversight = oversight_of(office)
    assert found(oversight) == [(1, None)]
    assert found(oversight) == [(1, None)], "its exit code is left to whoever buries it"
    os.close(reader)
    os.close(writer)


def test_a_worker_that_is_stopped_is_not_gone(office):
    pid = office.hire(0)
    os.kill(pid, signal.SIGSTOP)
    assert found(oversight_of(office)) == []


# Samples that take too long.


def test_a_sample_is_overdue_behind_its_time_and_not_before(office):
    office.hire(0)
    office.lend(0, 4, 10, 11)
    notes = office.notes_of(0)
    notes.begin(EPOCH, 4, 0)
    notes.at(1)
    oversight = oversight_of(office)
    assert found(oversight, TIMEOUT_S * 0.9) == []
    assert found(oversight, TIMEOUT_S * 1.1) == [(0, 1)]


def test_the_next_sample_has_its_own_time(office):
    office.hire(0)
    notes = office.notes_of(0)
    notes.begin(EPOCH, 0, 0)
    notes.at(0)
    time.sleep(0.05)
    notes.at(1)
    assert found(oversight_of(office, 0.05)) == []
    assert found(oversight_of(office, 0.05), 0.06) == [(0, 1)]


def test_without_a_limit_no_sample_is_overdue(office):
    office.hire(0)
    notes = office.notes_of(0)
    notes.begin(EPOCH, 0, 0)
    notes.at(0)
    assert found_late(oversight_of(office, None), 1e6) == []


@pytest.mark.parametrize("what", ["collation", "an epoch before", "nothing"])
def test_what_is_no_sample_of_this_epoch_may_take_any_time(office, what):
    office.hire(0)
    notes = office.notes_of(0)
    notes.begin(EPOCH - (what == "an epoch before"), 0, 0)
    notes.at(NO_PLACE if what == "collation" else 0)
    if what == "nothing":
        notes.end()
    assert found(oversight_of(office), 100.0) == []


@pytest.mark.parametrize(("probe", "samples"), [((), 4), ((1, 2), 2)])
def test_samples_that_are_made_at_once_have_the_time_of_all_of_them(office, probe, samples):
    office.hire(0)
    office.lend(0, 0, 10, 11, 12, 13, probe=probe)
    notes = office.notes_of(0)
    notes.begin(EPOCH, 0, 0)
    notes.at(AT_ONCE)
    oversight = oversight_of(office)
    assert found(oversight, TIMEOUT_S * (samples - 0.1)) == []
    assert found(oversight, TIMEOUT_S * (samples + 0.1)) == [(0, AT_ONCE)]


def test_a_look_is_due_often_enough_for_the_limit(office):
    for limit, most in ((None, ROUND_S), (100.0, ROUND_S), (0.4, 0.1), (0.001, 0.01)):
        oversight = oversight_of(office, limit)
        list(oversight.look(50.0, EPOCH))
        assert oversight.due == pytest.approx(50.0 + most)


# Where this process was stopped itself.


def test_a_sample_that_was_begun_before_this_process_was_stopped_has_so_much_more_time(office):
    office.hire(0)
    notes = office.notes_of(0)
    notes.begin(EPOCH, 0, 0)
    notes.at(0)
    oversight = oversight_of(office)
    assert found_late(oversight, 0.0) == []
    # The next look was due in a quarter of a second, and ten more have passed.
    assert found_late(oversight, 10.25) == []
    for after_s in (10.5, 11.4, 12.2):
        assert found_late(oversight, after_s) == []
    assert found_late(oversight, 12.4) == [(0, 0)]


def test_what_several_stops_took_adds_up(office):
    office.hire(0)
    notes = office.notes_of(0)
    notes.begin(EPOCH, 0, 0)
    notes.at(0)
    oversight = oversight_of(office)
    # Half a second of each round counts.
    assert [found_late(oversight, after_s) for after_s in (0.25, 5.5, 10.75, 16.0)] == [[]] * 4
    for after_s in (16.25, 17.2):
        assert found_late(oversight, after_s) == []
    assert found_late(oversight, 17.4) == [(0, 0)]


def test_a_sample_that_was_begun_while_nobody_looked_has_its_time_from_then_on(office):
    office.hire(0)
    notes = office.notes_of(0)
    oversight = oversight_of(office)
    found_late(oversight, -20.0)
    notes.begin(EPOCH, 0, 0)
    notes.at(0)
    assert found_late(oversight, 3.0) == []
    assert found_late(oversight, 3.0 + TIMEOUT_S - 0.9) == []
    assert found_late(oversight, 3.0 + TIMEOUT_S + 0.15) == []
    assert found_late(oversight, 3.0 + TIMEOUT_S + 0.35) == [(0, 0)]


def test_the_sample_behind_one_that_was_excused_is_not(office):
    office.hire(0)
    notes = office.notes_of(0)
    notes.begin(EPOCH, 0, 0)
    notes.at(0)
    oversight = oversight_of(office)
    found_late(oversight, -10.0)
    assert found_late(oversight, 0.0) == []
    notes.at(1)
    for after_s in (0.9, 1.9):
        assert found_late(oversight, after_s) == []
    assert found_late(oversight, TIMEOUT_S + 0.1) == [(0, 1)]


def test_a_wait_that_was_a_little_late_changes_nothing(office):
    office.hire(0)
    notes = office.notes_of(0)
    notes.begin(EPOCH, 0, 0)
    notes.at(0)
    oversight = oversight_of(office)
    # Each of them three quarters of a second late.
    assert [found_late(oversight, after_s) for after_s in (0.0, 1.0, 1.9)] == [[]] * 3
    assert found_late(oversight, TIMEOUT_S + 0.1) == [(0, 0)]


def test_a_process_that_is_really_stopped_and_goes_on_ends_no_sample_for_it(office):
    office.hire(0)
    notes = office.notes_of(0)
    notes.begin(EPOCH, 0, 0)
    notes.at(0)
    limit_s, stopped_s = 1.0, 1.8
    began = time.monotonic()
    parent = os.fork()
    if not parent:
        # The parent's loop. The worker is no child of this process: only the sample is looked at.
        oversight = oversight_of(office, limit_s)
        while True:
            select.poll().poll(50)
            if any(entry for _, entry in oversight.look(time.monotonic(), EPOCH)):
                os._exit(int(time.monotonic() - began < limit_s + stopped_s))
    time.sleep(0.2)
    os.kill(parent, signal.SIGSTOP)
    time.sleep(stopped_s)
    os.kill(parent, signal.SIGCONT)
    _, status = os.waitpid(parent, 0)
    assert os.waitstatus_to_exitcode(status) == 0, "it was ended too soon"


# What is collected meanwhile.


def test_what_workers_write_is_shown_at_each_look(office, capfd):
    def speak():
        sys.stderr.write("hello\n")
        sys.stderr.flush()
        signal.pause()

    office.hire(0, speak)
    wait_until(lambda: office.seats[0].words.size > 0)
    found(oversight_of(office))
    assert capfd.readouterr().err == "hello\n"


def test_vitals_are_taken_once_a_second_and_kept_over_a_death(office):
    pid = office.hire(0)
    seat = office.seats[0]
    oversight = oversight_of(office)
    found(oversight)
    first = seat.vitals
    assert first is not None
    assert first.rss_bytes > 0
    found(oversight, 0.5)
    assert seat.vitals is first
    found(oversight, 1.5)
    assert seat.vitals is not first
    last = seat.vitals
    os.kill(pid, signal.SIGKILL)
    wait_for_death(pid)
    assert found(oversight, 10.0) == [(0, None)]
    assert seat.vitals is last


def test_what_the_kernel_killed_while_all_workers_lived_on_is_soon_none_of_them(
    office, monkeypatch
):
    counted = CountedKills(monkeypatch)
    kills = RecentKills()
    oversight = Oversight(office.crew, office.journal, kills, None)
    pid = office.hire(0)
    office.hire(1)
    counted.count += 1
    found(oversight)
    found(oversight, 1.5)
    counted.count += 1
    found(oversight, 2.2)
    os.kill(pid, signal.SIGKILL)
    wait_for_death(pid)
    # It is gone, and however often is looked before it is buried, what came before is kept.
    for after_s in (4.5, 6.0):
        assert found(oversight, after_s) == [(0, None)]
    assert kills.take() == 1


# Stacks.


def hang_in_c() -> None:
    ctypes.PyDLL(None).sleep(1000)  # With the lock of the interpreter.


@pytest.mark.parametrize("stopped", [False, True])
def test_the_stack_of_a_worker_is_taken_whatever_it_does(office, capfd, stopped):
    def work():
        sys.stderr.write("ready\n")
        sys.stderr.flush()
        hang_in_c()

    pid = office.hire(0, work)
    words = office.seats[0].words
    wait_until(lambda: words.size > 0)
    if stopped:
        os.kill(pid, signal.SIGSTOP)
    oversight_of(office).take_stacks(office.seats[0])
    office.seats[0].kill()
    assert "hang_in_c" in words.stack()
    assert words.lines() == "ready"
    assert capfd.readouterr().err == "ready\n"


def test_a_worker_that_does_not_answer_is_not_waited_for_long(office):
    pid = office.hire(0)
    os.kill(pid, signal.SIGKILL)
    wait_for_death(pid)
    began = time.monotonic()
    oversight_of(office).take_stacks(office.seats[0])
    assert time.monotonic() - began < 5.0
    assert office.seats[0].words.stack() == ""
