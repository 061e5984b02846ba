"""What workers note of what they are at, read by another process."""

from __future__ import annotations

import mmap
import os
import signal
import time

import pytest

from penstock.transport.backing import open_backing
from penstock.transport.journal import AT_ONCE, NO_PLACE, Journal, journal_bytes


@pytest.fixture
def backing():
    """A file with room for three lines."""
    descriptor, _ = open_backing()
    os.ftruncate(descriptor, journal_bytes(3))
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def parents(backing):
    """The parent's side, as it is when three workers are started."""
    journal = Journal(backing, 3)
    for seat in range(3):
        journal.clear(seat)
    return journal


@pytest.mark.parametrize(("seats", "pages"), [(1, 1), (64, 1), (65, 2), (1000, 16)])
def test_a_journal_takes_whole_pages(seats, pages):
    assert journal_bytes(seats) == pages * mmap.PAGESIZE


def test_a_worker_that_has_begun_nothing_is_at_nothing(parents):
    assert [parents.read(seat) for seat in range(3)] == [None] * 3


def test_what_a_worker_notes_is_read_of_its_seat_alone(backing, parents):
    worker = Journal(backing, 3, seat=1)
    before = time.monotonic()
    worker.begin(7, 8, 9)
    entry = parents.read(1)
    assert entry is not None
    assert entry.key == (7, 8, 9)
    assert entry.place is None
    assert before <= entry.since_s <= time.monotonic()
    assert parents.read(0) is None
    assert parents.read(2) is None


def test_each_sample_has_its_own_beginning(backing, parents):
    worker = Journal(backing, 3, seat=2)
    worker.begin(1, 0, 0)
    lease = parents.read(2)
    worker.at(5)
    first = parents.read(2)
    worker.at(6)
    second = parents.read(2)
    assert (first.place, second.place) == (5, 6)
    assert lease.since_s < first.since_s < second.since_s
    assert first.key == second.key == lease.key


def test_a_place_that_is_set_alone_keeps_the_time_of_the_one_before_it(backing, parents):
    worker = Journal(backing, 3, seat=1)
    worker.begin(1, 0, 0)
    worker.at(0)
    first = parents.read(1)
    worker.place[0] = 6
    assert parents.read(1) == first._replace(place=6)
    assert parents.read(0) is None
    assert parents.read(2) is None


def test_behind_the_samples_no_place_is_named(backing, parents):
    worker = Journal(backing, 3, seat=0)
    worker.begin(1, 0, 0)
    worker.at(5)
    worker.at(NO_PLACE)
    assert parents.read(0).place is None


def test_a_new_lease_does_not_begin_at_a_place_of_the_last(backing, parents):
    worker = Journal(backing, 3, seat=0)
    worker.begin(1, 0, 0)
    worker.at(5)
    worker.begin(1, 1, 0)
    assert parents.read(0).place is None


@pytest.mark.parametrize(
    ("place", "one_place"), [(0, 0), (3, 3), (AT_ONCE, None), (NO_PLACE, None)]
)
def test_samples_that_are_made_at_once_are_no_one_sample(backing, parents, place, one_place):
    worker = Journal(backing, 3, seat=0)
    worker.begin(1, 0, 0)
    worker.at(place)
    assert parents.read(0).one_place == one_place


def test_a_lease_that_is_over_leaves_nothing(backing, parents):
    worker = Journal(backing, 3, seat=0)
    worker.begin(1, 0, 0)
    worker.at(5)
    worker.end()
    assert parents.read(0) is None


def test_a_new_worker_is_not_at_what_the_one_before_it_has_left(backing, parents):
    for seat in (0, 1):
        Journal(backing, 3, seat=seat).begin(1, seat, 0)
    parents.clear(0)
    assert parents.read(0) is None
    assert parents.read(1).key == (1, 1, 0)


def test_what_a_killed_worker_was_at_is_all_there(backing, parents):
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        worker = Journal(backing, 3, seat=1)
        worker.begin(4, 5, 6)
        worker.at(7)
        os.write(writer, b".")
        signal.pause()
    os.read(reader, 1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reader)
    os.close(writer)
    entry = parents.read(1)
    assert entry.key == (4, 5, 6)
    # One clock for all processes.
    assert entry.place == 7
    assert 0 <= time.monotonic() - entry.since_s < 60
