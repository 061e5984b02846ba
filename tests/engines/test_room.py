"""Who gets memory first, who waits, and when nobody can go on."""

from __future__ import annotations

import pytest

from penstock.engines.crew import LeasedSeat
from penstock.engines.outbox import Outbox
from penstock.engines.resumption import Key
from penstock.engines.room import Room
from penstock.transport.backing import Bytes
from penstock.transport.frames import FrameReader, Kind
from penstock.transport.writer import SlotWriter
from tests.engines.driving import job_of
from tests.engines.seated import EPOCH, Office

MIB = 1 << 20
TOTAL = 16 * MIB


@pytest.fixture
def office():
    office = Office(job_of(list(range(9)), seats=3), TOTAL)
    yield office
    office.close()


class Answers(Outbox):
    """What waiting workers are told: their leases, how much they may have, and why no more."""

    def __init__(self, office: Office) -> None:
        super().__init__(office.crew)
        self._answers: list[tuple[Key, int, str]] = []

    def put(self, seat: LeasedSeat, frame: bytes) -> None:
        (told,) = FrameReader().feed(frame)
        assert told.kind == Kind.GRANT
        key = (told.epoch, told.batch, told.attempt)
        assert key in seat.lent, "it is told of a lease that another has"
        self._answers.append((key, told.used, bytes(told.body).decode()))

    def taken(self) -> list[tuple[Key, int, str]]:
        """Those since the last call."""
        answers, self._answers = self._answers, []
        return answers


@pytest.fixture
def answers(office):
    return Answers(office)


@pytest.fixture
def room(office, answers):
    return Room(office.crew, answers, is_stream=False)


@pytest.fixture
def served(room, answers):
    """Serves, and says who was."""

    def serve() -> list[Key]:
        room.serve()
        return [key for key, _, _ in answers.taken()]

    return serve


def ask(office: Office, room: Room, seat: int, batch: int, needed: int):
    """A worker that has a lease waits for memory for it."""
    office.lend(seat, batch, batch)
    room.note(office.seats[seat], (EPOCH, batch, 0), needed)
    return EPOCH, batch, 0


def done(office: Office, seat: int, batch: int) -> int:
    """A lease is over, and its slot stays with the test."""
    return office.seats[seat].lent.pop((EPOCH, batch, 0))[0]


def take_all(office: Office) -> Bytes:
    """The program keeps a batch that takes all of the budget."""
    arena = office.arena
    slot, capacity, _ = arena.acquire(0)
    writer = SlotWriter(arena.descriptor, arena.stride)
    writer.begin(slot, capacity, arena.grant(slot, TOTAL))
    writer.allocate(TOTAL)
    arena.note_capacity(slot, writer.capacity)
    return arena.lend(slot, writer.used)


def test_nobody_waits_at_first(room, served):
    assert not room
    assert served() == []
    assert room.stuck() is None


def test_who_waits_is_served_where_there_is_room(office, room, answers):
    key = ask(office, room, 0, 0, 2 * MIB)
    assert room
    room.serve()
    ((served, limit, _),) = answers.taken()
    assert served == key
    assert limit >= 2 * MIB
    assert not room
    room.serve()
    assert answers.taken() == []


def test_the_first_batch_is_served_first_whoever_asked_first(office, room, served):
    keys = [ask(office, room, seat, batch, MIB) for seat, batch in ((0, 5), (1, 1), (2, 3))]
    assert served() == sorted(keys)


def test_a_later_batch_that_would_fit_waits_behind_the_first_that_does_not(office, room, served):
    kept = ask(office, room, 0, 0, 10 * MIB)
    assert served() == [kept]
    ask(office, room, 1, 1, 10 * MIB)
    ask(office, room, 2, 2, 1)
    assert served() == []
    assert room


def test_memory_that_comes_back_serves_who_waits(office, room, served):
    batch = take_all(office)
    key = ask(office, room, 1, 1, MIB)
    assert served() == []
    del batch
    assert served() == [key]


def test_where_somebody_works_nobody_is_stuck(office, room):
    kept = take_all(office)
    ask(office, room, 0, 0, MIB)
    office.lend(1, 1, 1)
    assert room.stuck() is None
    done(office, 1, 1)
    stuck = room.stuck()
    assert stuck is not None
    assert stuck.lease.batch == 0
    assert kept.size == TOTAL


def test_who_waits_for_a_decision_does_not_work(office, room):
    kept = take_all(office)
    ask(office, room, 0, 0, MIB)
    office.lend(1, 1, 1)
    office.seats[1].withheld.add((EPOCH, 1, 0))
    assert room.stuck() is not None
    office.lend(1, 2, 2)
    assert room.stuck() is None, "it has another lease to go on with"
    assert kept.size == TOTAL


def test_behind_a_decision_a_stream_does_not_go_on_with_what_else_its_worker_has(office, answers):
    room = Room(office.crew, answers, is_stream=True)
    kept = take_all(office)
    ask(office, room, 0, 0, MIB)
    office.lend(1, 1, 1, 0)
    office.lend(1, 3, 1, 1)
    assert room.stuck() is None
    office.seats[1].withheld.add((EPOCH, 1, 0))
    assert room.stuck() is not None
    assert kept.size == TOTAL


def test_nobody_is_stuck_while_what_was_taken_back_may_give_room(office, room):
    kept = take_all(office)
    ask(office, room, 0, 0, MIB)
    office.lend(0, 1, 1)
    assert room.stuck() is not None
    office.seats[0].recalled.add((EPOCH, 1, 0))
    assert room.stuck() is None
    office.seats[0].recalled.clear()
    assert room.stuck() is not None
    assert kept.size == TOTAL


def test_the_first_of_those_who_wait_is_stuck_with_how_many_of_its_size_fit(office, room):
    kept = take_all(office)
    ask(office, room, 0, 4, MIB)
    ask(office, room, 1, 2, 5 * MIB)
    stuck = room.stuck()
    assert stuck is not None
    assert (stuck.lease.batch, stuck.fits) == (2, 1)
    del kept
    assert room.stuck().fits == 3  # type: ignore[union-attr]


@pytest.mark.parametrize("end", ["withdraw", "clear", "refuse"])
def test_who_does_not_wait_any_more_is_not_served(office, room, served, answers, end):
    kept = take_all(office)
    key = ask(office, room, 0, 0, MIB)
    if end == "clear":
        room.clear()
    else:
        getattr(room, end)(key)
    answers.taken()
    del kept
    assert not room
    assert served() == []
    assert room.stuck() is None


def test_who_never_waited_is_withdrawn_without_harm(room, answers):
    room.withdraw((EPOCH, 0, 0))
    room.refuse((EPOCH, 0, 0))
    assert answers.taken() == []


def test_a_refusal_says_what_was_needed_and_what_there_is(office, room, answers):
    kept = take_all(office)
    key = ask(office, room, 0, 0, 3 * MIB)
    room.refuse(key)
    ((refused, limit, why),) = answers.taken()
    assert (refused, limit) == (key, 0)
    assert f"{3 * MIB:,} bytes" in why
    assert f"memory_budget={TOTAL:,}" in why
    assert f"{TOTAL:,} taken by batches that the program keeps" in why
    assert kept.size == TOTAL
