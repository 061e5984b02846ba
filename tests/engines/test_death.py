"""Workers that really die, and what is certified of that."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from penstock.engines.death import Coroner
from penstock.engines.job import Job
from penstock.engines.protocol import Died
from penstock.engines.vitals import look_at
from penstock.schedule import Death, Fill
from penstock.transport.journal import AT_ONCE, NO_PLACE
from penstock.transport.memory import RecentKills
from tests.engines.driving import job_of
from tests.engines.seated import EPOCH, CountedKills, Office, wait_for_death, wait_until

MIB = 1 << 20


class Pictures(list):
    """A dataset that knows what its samples are."""

    def describe(self, index: int) -> str:
        return f"/pictures/{index}.jpg"


@pytest.fixture
def kills(monkeypatch):
    return CountedKills(monkeypatch)


@contextmanager
def office_with(job: Job) -> Iterator[tuple[Office, Coroner]]:
    office = Office(job)
    try:
        yield office, Coroner(job, office.crew, office.journal, RecentKills())
    finally:
        office.close()


def die_at(
    office: Office,
    coroner: Coroner,
    run: Callable[[], object] = signal.pause,
    *,
    place: int | None = None,
    kill: int | None = None,
    fault: str = "",
    is_overdue: bool = False,
    epoch: int = EPOCH,
    attempt: int = 0,
    begins: bool = True,
    **lease,
) -> Died:
    """A worker dies of what it runs, or of a signal, in a batch with samples 10, 11 and 12."""
    office.lend(0, 4, 10, 11, 12, **lease)
    notes = office.notes_of(0)
    pid = office.hire(0, run)
    if begins:
        notes.begin(EPOCH, 4, attempt)
    if place is not None:
        notes.at(place)
    overdue = office.journal.read(0) if is_overdue else None
    if kill is not None:
        office.seats[0].vitals = look_at(pid)
        os.kill(pid, kill)
    if not fault:
        wait_for_death(pid)
    return coroner.bury(office.seats[0], epoch, fault, overdue)


@pytest.fixture
def scene():
    with office_with(job_of(Pictures(range(99)), sample_timeout_s=2.5)) as (office, coroner):
        yield office, coroner


def test_a_worker_that_was_killed_is_certified_with_all_that_is_known(scene):
    died = die_at(*scene, place=1, kill=signal.SIGKILL)
    certificate = died.certificate
    assert (died.seat, certificate.worker) == (0, 0)
    assert certificate.pid > 0
    assert certificate.exit_code == -signal.SIGKILL
    assert (certificate.batch, certificate.index) == (4, 11)
    assert certificate.source == "/pictures/11.jpg"
    assert certificate.indices == "samples [10, 11, 12]"
    assert 0 <= certificate.ran_s < 60
    assert certificate.peak_rss_bytes >= certificate.rss_bytes > 0
    assert certificate.descriptors > 0
    assert 0 < certificate.memory.used <= certificate.memory.limit
    assert certificate.out_of_memory_kills == 0
    assert died.death == Death((4, 0), 1)


def test_a_crash_is_its_own_doing_with_the_stack_and_the_last_words(scene, capfd):
    def crash():
        sys.stderr.write("decoding\n")
        sys.stderr.flush()
        ctypes.string_at(0)

    died = die_at(*scene, crash, place=2)
    assert died.certificate.signal_name == "SIGSEGV"
    assert "in crash" in died.certificate.stack
    assert died.certificate.stderr == "decoding"
    assert died.death == Death((4, 0), 2, by_itself=True)
    assert capfd.readouterr().err == "decoding\n"


def test_a_worker_that_leaves_has_died_of_its_own_doing(scene):
    died = die_at(*scene, lambda: os._exit(0), place=0)
    assert died.certificate.exit_code == 0
    assert died.death == Death((4, 0), 0, by_itself=True)


def test_the_most_memory_that_it_ever_had_is_known_although_nobody_looked(scene):
    def swell():
        bytearray(b"x" * (256 * MIB))
        os._exit(1)

    died = die_at(*scene, swell, place=0)
    assert died.certificate.rss_bytes is None
    assert died.certificate.peak_rss_bytes > 256 * MIB


# What it was at.


@pytest.mark.parametrize("place", [None, AT_ONCE, NO_PLACE, 3, -9, 1 << 60])
def test_where_it_was_at_no_one_sample_only_the_batch_is_known(scene, place):
    died = die_at(*scene, place=place, kill=signal.SIGKILL)
    assert (died.certificate.batch, died.certificate.index) == (4, None)
    assert died.certificate.source == ""
    assert died.death == Death((4, 0), None)


def test_of_a_probe_of_one_sample_that_is_known(scene):
    died = die_at(*scene, probe=(2,), kill=signal.SIGKILL)
    assert (died.certificate.index, died.certificate.source) == (12, "/pictures/12.jpg")


def test_where_another_sample_has_taken_a_place_that_one_is_named(scene):
    died = die_at(*scene, place=1, fills={1: Fill("index", 77)}, kill=signal.SIGKILL)
    assert (died.certificate.index, died.certificate.source) == (77, "/pictures/77.jpg")


def test_a_worker_that_had_begun_nothing_was_at_nothing(scene):
    died = die_at(*scene, begins=False, kill=signal.SIGKILL)
    assert died.death == Death(idle=True)
    assert (died.certificate.batch, died.certificate.index) == (None, None)
    assert died.certificate.ran_s is None


@pytest.mark.parametrize("stale", [{"epoch": EPOCH + 1}, {"attempt": 1}])
def test_what_is_not_wanted_any_more_is_nothing(scene, stale):
    died = die_at(*scene, place=1, kill=signal.SIGKILL, **stale)
    assert died.death == Death(idle=True)
    assert died.certificate.batch is None


def test_of_a_stream_only_its_number_is_told():
    with office_with(job_of(Pictures(), stream=True)) as scene:
        office, coroner = scene
        office.lend(0, 4, 0, 2)
        office.hire(0)
        notes = office.notes_of(0)
        notes.begin(EPOCH, 4, 0)
        notes.at(1)
        office.seats[0].kill()
        died = coroner.bury(office.seats[0], EPOCH, "", None)
    assert died.certificate.indices == "batch 2 of the stream of worker 0"
    assert (died.certificate.index, died.certificate.source) == (None, "")


# Why it had to go.


def test_a_worker_that_has_to_go_is_ended_with_the_reason(scene):
    office, _ = scene
    died = die_at(*scene, place=1, fault="sent nonsense")
    assert died.certificate.fault == "sent nonsense"
    assert not died.certificate.overdue
    assert died.death == Death((4, 0), 1, by_itself=True)
    with pytest.raises(ProcessLookupError):
        os.kill(died.certificate.pid, 0)
    assert office.seats[0].process is None


def test_a_sample_that_took_too_long_is_overdue_whatever_the_worker_is_at_since(scene):
    office, coroner = scene
    office.lend(0, 4, 10, 11)
    office.hire(0)
    notes = office.notes_of(0)
    notes.begin(EPOCH, 4, 0)
    notes.at(1)
    entry = office.journal.read(0)
    notes.at(0)
    office.seats[0].kill()
    died = coroner.bury(office.seats[0], EPOCH, "was ended for a sample", entry)
    assert died.certificate.index == 11
    assert died.certificate.limit_s == 2.5
    assert died.death == Death((4, 0), 1, by_itself=True, overdue=True)


# Memory.


def test_a_kill_that_the_kernel_counts_is_of_memory_and_nobodys_own_doing(kills):
    with office_with(job_of(Pictures())) as (office, coroner):
        kills.count += 1
        died = die_at(office, coroner, place=1, kill=signal.SIGKILL)
    assert died.certificate.out_of_memory_kills == 1
    assert died.death == Death((4, 0), 1, of_memory=True)


def test_each_kill_that_was_counted_is_of_one_death(kills):
    with office_with(job_of(Pictures())) as (office, coroner):
        kills.count += 2
        deaths = [die_at(office, coroner, place=1, kill=signal.SIGKILL) for _ in range(3)]
    assert [died.certificate.out_of_memory_kills for died in deaths] == [2, 1, 0]
    assert [died.death.of_memory for died in deaths] == [True, True, False]


def test_where_the_kernel_does_not_say_no_death_is_of_memory(kills):
    kills.count = None
    with office_with(job_of(Pictures())) as (office, coroner):
        died = die_at(office, coroner, place=1, kill=signal.SIGKILL)
    assert died.certificate.out_of_memory_kills == 0
    assert died.death == Death((4, 0), 1)


@pytest.mark.usefixtures("capfd")
def test_a_worker_that_gives_up_for_memory_died_of_that(scene):
    def give_up():
        os.write(2, b"terminate called after throwing an instance of 'std::bad_alloc'\n")
        os.abort()

    died = die_at(*scene, give_up, place=1)
    assert died.death == Death((4, 0), 1, of_memory=True)


# What it had.


@pytest.mark.usefixtures("no_leaks")
def test_all_that_a_dead_worker_had_is_taken_back():
    with office_with(job_of(Pictures(), seats=1)) as (office, coroner):
        free = office.arena.acquire(0)[0]
        office.arena.release(free)
        died = die_at(office, coroner, place=1, kill=signal.SIGKILL)
        seat = office.seats[0]
        assert died.certificate.exit_code == -signal.SIGKILL
        assert seat.lent == {}
        assert seat.process is None
        assert seat.channel is None
        assert seat.words.descriptor == -1
        assert office.arena.acquire(0)[0] == free


def test_a_worker_that_leaves_slowly_is_given_time_for_its_exit_code(scene):
    office, coroner = scene
    office.lend(0, 4, 10)

    def leave_slowly():
        time.sleep(0.7)
        os._exit(7)

    pid = office.hire(0, leave_slowly)
    died = coroner.bury(office.seats[0], EPOCH, "", None)
    assert died.certificate.exit_code == 7
    wait_until(lambda: look_at(pid) is None)
