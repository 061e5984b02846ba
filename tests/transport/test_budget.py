"""The limit that slots and private copies keep to together."""

from __future__ import annotations

import contextlib
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import MemoryBudgetError
from penstock.transport import budget
from penstock.transport.arena import SHARES, Arena
from penstock.transport.backing import GROWTH_STEP_BYTES, Bytes
from penstock.transport.budget import RESERVE_BYTES, Budget
from penstock.transport.writer import SlotWriter

MIB = 1 << 20
TOTAL = 16 * MIB


class Machine:
    """A machine with so much memory available."""

    def __init__(self) -> None:
        self.available = RESERVE_BYTES + 64 * MIB
        self.looks = 0

    def available_bytes(self) -> int:
        self.looks += 1
        return self.available


@pytest.fixture
def machine(monkeypatch):
    machine = Machine()
    monkeypatch.setattr(budget, "available_bytes", machine.available_bytes)
    return machine


@pytest.fixture
def arena():
    arena = Arena(most_lent=2, budget=Budget(TOTAL))
    yield arena
    arena.close()


class Worker:
    """A worker's part in this process: it asks before it takes what it was not promised."""

    def __init__(self, arena: Arena, seat: int = 0) -> None:
        self.arena = arena
        self.slot, capacity, limit = arena.acquire(seat)
        self.writer = SlotWriter(arena.descriptor, arena.stride)
        self.writer.begin(self.slot, capacity, limit)
        self.writer.ask = self._ask

    def _ask(self, needed: int) -> int:
        self.arena.note_capacity(self.slot, self.writer.capacity)
        limit = self.arena.grant(self.slot, needed)
        if not limit:
            raise MemoryBudgetError(self.arena.refusal(self.slot, needed))
        return limit

    def write(self, size: int, value: int = 1) -> Worker:
        self.writer.allocate(size)[:] = value
        return self

    def hand_over(self) -> Bytes:
        self.arena.note_capacity(self.slot, self.writer.capacity)
        return self.arena.lend(self.slot, self.writer.used)

    def give_up(self) -> None:
        self.arena.note_capacity(self.slot, self.writer.capacity)
        self.arena.release(self.slot)


def batch(arena: Arena, size: int, value: int = 1) -> Bytes:
    """The user's view of a batch of so many bytes."""
    return Worker(arena).write(size, value).hand_over()


def held_by_file(arena: Arena) -> int:
    return os.fstat(arena.descriptor).st_blocks * 512


def is_full_of(view: Bytes, value: int) -> bool:
    return bool((np.asarray(view) == value).all())


# The limit itself.


def test_with_a_budget_what_is_left_of_it_may_be_taken():
    assert Budget(100 * MIB).left(0) == 100 * MIB
    assert Budget(100 * MIB).left(30 * MIB) == 70 * MIB
    assert Budget(100 * MIB).left(101 * MIB) == 0


def test_a_budget_beyond_the_machines_memory_is_bounded_by_that(machine):
    assert Budget(1 << 50).left(5 * MIB) == 64 * MIB


@pytest.mark.parametrize("total", [None, TOTAL])
def test_some_memory_is_left_to_the_rest_of_the_machine(machine, total):
    machine.available = RESERVE_BYTES - 1
    assert Budget(total).left(0) == 0


def test_without_a_budget_the_machines_memory_is_the_limit(machine):
    assert Budget().left(1 << 50) == 64 * MIB


def test_a_glimpse_is_not_a_look_each_time(machine):
    limit = Budget()
    for _ in range(50):
        assert limit.left_roughly() == 64 * MIB
    assert machine.looks == 1


def test_a_glimpse_becomes_old(machine, monkeypatch):
    monkeypatch.setattr(budget, "_GLIMPSE_S", 0.0)
    limit = Budget()
    limit.left_roughly()
    machine.available = RESERVE_BYTES + 1
    assert limit.left_roughly() == 1


def test_with_a_budget_nothing_is_taken_without_asking(machine):
    assert Budget(TOTAL).left_roughly() == 0
    assert machine.looks == 0


def test_the_limit_is_named_as_the_user_has_set_it():
    assert str(Budget(12345678)) == "memory_budget=12,345,678 bytes"
    assert str(Budget()) == "what the machine has left"


# Slots.


def test_without_a_budget_a_lease_may_take_a_share_of_what_is_left(machine):
    arena = Arena(most_lent=2)
    try:
        assert arena.acquire(0) == (0, 0, 64 * MIB // SHARES)
    finally:
        arena.close()


def test_with_a_budget_a_lease_may_take_what_its_slot_has(arena):
    assert arena.acquire(0) == (0, 0, 0)
    arena.release(0)
    worker = Worker(arena).write(3 * MIB)
    worker.give_up()
    slot, capacity, limit = arena.acquire(0)
    assert slot == worker.slot
    assert capacity == limit == arena.capacity_bytes
    assert capacity >= 3 * MIB


def test_what_is_granted_is_enough_and_a_step_more(arena):
    slot, _, _ = arena.acquire(0)
    needed = 5 * MIB
    assert arena.grant(slot, needed) == needed + needed // 8 + GROWTH_STEP_BYTES


def test_no_more_is_granted_than_there_is(arena):
    slot, _, _ = arena.acquire(0)
    assert arena.grant(slot, TOTAL) == TOTAL
    assert arena.grant(slot, TOTAL + 1) == 0


def test_what_is_granted_to_one_is_not_granted_to_another(arena):
    first, second = arena.acquire(0)[0], arena.acquire(1)[0]
    limit = arena.grant(first, 8 * MIB)
    assert arena.grant(second, TOTAL - limit + 1) == 0
    assert arena.grant(second, TOTAL - limit) == TOTAL - limit


def test_what_was_granted_and_not_taken_may_be_granted_again(arena):
    worker = Worker(arena)
    arena.grant(worker.slot, TOTAL)
    worker.write(MIB).give_up()
    other, capacity, _ = arena.acquire(1)
    assert arena.grant(other, TOTAL - arena.capacity_bytes + capacity) > 0


def test_a_slot_that_was_refused_keeps_what_it_has(arena):
    worker = Worker(arena).write(4 * MIB)
    with pytest.raises(MemoryBudgetError):
        worker.write(TOTAL)
    assert is_full_of(worker.hand_over()[: 4 * MIB], 1)


def test_room_is_made_by_free_slots(arena):
    workers = [Worker(arena, seat).write(4 * MIB) for seat in range(3)]
    for worker in workers:
        worker.give_up()
    assert arena.capacity_bytes >= 12 * MIB
    view = Worker(arena, 0).write(14 * MIB, 7).hand_over()
    assert arena.capacity_bytes <= TOTAL
    assert held_by_file(arena) <= TOTAL
    assert is_full_of(view, 7)


def test_room_is_made_by_batches_that_the_user_drops_meanwhile(arena):
    kept = batch(arena, 10 * MIB)
    worker = Worker(arena)
    assert arena.grant(worker.slot, 10 * MIB) == 0
    del kept
    assert arena.grant(worker.slot, 10 * MIB) > 0


def test_making_room_touches_no_batch_that_is_kept(arena):
    kept = [batch(arena, 3 * MIB, 1), batch(arena, 3 * MIB, 2)]
    Worker(arena).write(4 * MIB).give_up()
    for size in (5 * MIB, 6 * MIB, 7 * MIB):
        Worker(arena, size).write(size, 9).give_up()
    assert [is_full_of(view, 1 + number) for number, view in enumerate(kept)] == [True, True]
    assert arena.capacity_bytes <= TOTAL


def test_slots_and_copies_together_keep_to_the_budget_whatever_is_asked(arena):
    generator = np.random.default_rng(1)
    kept: list[tuple[Bytes, int]] = []
    refused = 0
    for turn in range(120):
        try:
            kept.append((batch(arena, int(generator.integers(1, 6 * MIB)), turn), turn))
        except MemoryBudgetError:
            refused += 1
        if len(kept) > 3 or (kept and generator.random() < 0.3):
            kept.pop(int(generator.integers(len(kept))))
        copies = sum(view.nbytes for view, _ in kept if view.flags.owndata)
        assert held_by_file(arena) + copies <= TOTAL
        assert all(is_full_of(view, value) for view, value in kept)
    assert 0 < refused < 120


STEPS = st.lists(
    st.tuples(st.sampled_from(["lease", "give up", "hand over", "die", "drop"]), st.integers(0, 9)),
    max_size=40,
)


@given(STEPS)
def test_what_workers_may_take_keeps_to_the_budget_whatever_becomes_of_their_slots(steps):
    arena = Arena(most_lent=2, budget=Budget(TOTAL))
    try:
        play(arena, steps)
        # And nothing is counted that nobody has.
        slot, _, _ = arena.acquire(0)
        assert arena.grant(slot, TOTAL) == TOTAL
    finally:
        arena.close()


def play(arena: Arena, steps: list[tuple[str, int]]) -> None:
    """What may become of slots; each step is followed by a look at what all may take."""
    working: list[Worker] = []
    kept: list[Bytes] = []
    for step, number in steps:
        if step == "lease":
            working.append(Worker(arena, number % 3))
            with contextlib.suppress(MemoryBudgetError):
                working[-1].write((number + 1) * MIB)
        elif step == "drop" and kept:
            kept.pop(number % len(kept))
        elif step != "drop" and working:
            worker = working.pop(number % len(working))
            if step == "die":
                arena.release_lost(worker.slot)
            elif step == "give up" or not worker.writer.used:
                worker.give_up()
            else:
                with contextlib.suppress(MemoryBudgetError):
                    kept.append(worker.hand_over())
        copies = sum(view.nbytes for view in kept if view.flags.owndata)
        more = sum(
            max(0, arena.limit_of(worker.slot) - worker.writer.capacity) for worker in working
        )
        assert held_by_file(arena) + more + copies <= TOTAL
    for worker in working:
        worker.give_up()


def test_how_many_batches_fit_counts_all_but_what_the_user_keeps(arena):
    assert arena.fits(4 * MIB) == 4
    Worker(arena).write(4 * MIB).give_up()
    worker = Worker(arena, 1).write(4 * MIB)
    assert arena.fits(4 * MIB) == 4, "what workers have, they will be done with"
    kept = worker.hand_over()
    assert arena.fits(4 * MIB) == 2
    del kept
    assert arena.fits(4 * MIB) == 4


@pytest.mark.parametrize("size", [TOTAL + 1, 1 << 50, 0])
def test_at_least_one_batch_is_tried(arena, size):
    assert arena.fits(size) >= 1


def test_a_refusal_says_both_numbers_and_what_the_program_keeps(arena):
    kept = batch(arena, 10 * MIB)
    worker = Worker(arena)
    with pytest.raises(MemoryBudgetError) as caught:
        worker.write(9 * MIB)
    message = str(caught.value)
    assert f"{9 * MIB:,} bytes" in message
    assert f"{TOTAL - arena.capacity_bytes:,} are left of memory_budget={TOTAL:,}" in message
    assert f"{arena.capacity_bytes:,} taken by batches that the program keeps" in message
    assert message.endswith("keep fewer, raise memory_budget, or lower a DataLoader's batch_size")
    assert is_full_of(kept, 1)


# Slots of workers that died.


@pytest.mark.parametrize("total", [None, TOTAL])
def test_what_a_lost_worker_took_and_nobody_knows_of_is_given_back(total):
    arena = Arena(most_lent=2, budget=Budget(total))
    try:
        worker = Worker(arena).write(10 * MIB)
        assert held_by_file(arena) >= 10 * MIB
        arena.release_lost(worker.slot)
        assert held_by_file(arena) == 0
        assert arena.capacity_bytes == 0
        assert is_full_of(batch(arena, 14 * MIB, 3), 3)
    finally:
        arena.close()


def test_a_lost_slot_between_others_takes_nothing_of_theirs(arena):
    first = batch(arena, 3 * MIB, 1)
    lost = Worker(arena).write(3 * MIB, 9)
    third = batch(arena, 3 * MIB, 3)
    arena.release_lost(lost.slot)
    assert is_full_of(first, 1)
    assert is_full_of(third, 3)


def test_a_slot_that_was_lost_with_no_more_than_is_known_stays_as_it_is(arena):
    Worker(arena).write(3 * MIB).give_up()
    slot, capacity, _ = arena.acquire(0)
    arena.release_lost(slot)
    assert arena.acquire(0)[:2] == (slot, capacity)


def test_what_was_promised_to_a_lost_worker_may_be_granted_again(arena):
    lost, other = arena.acquire(0)[0], arena.acquire(1)[0]
    assert arena.grant(lost, TOTAL)
    arena.release_lost(lost)
    assert arena.grant(other, TOTAL) == TOTAL


# Copies of what the user keeps.


def keep_two(arena: Arena, size: int) -> list[Bytes]:
    """As many batches as may be lent: others are copies."""
    return [batch(arena, size, value) for value in (1, 2)]


def test_copies_count_and_are_given_back_when_they_are_dropped(arena):
    kept = keep_two(arena, MIB)
    free = arena.fits(1)
    copy = batch(arena, 2 * MIB, 3)
    assert free - arena.fits(1) == 2 * MIB
    view = copy[5:]
    del copy
    assert free - arena.fits(1) == 2 * MIB, "a view keeps all of it"
    del view
    assert arena.fits(1) == free
    assert len(kept) == 2


def test_a_copy_past_the_budget_is_refused_and_its_slot_is_free_again(arena):
    kept = keep_two(arena, 3 * MIB)
    worker = Worker(arena).write(5 * MIB, 3)
    with pytest.raises(MemoryBudgetError) as caught:
        worker.hand_over()
    assert f"take {5 * MIB:,} bytes with this one" in str(caught.value)
    assert f"memory_budget={TOTAL:,} bytes" in str(caught.value)
    assert "keep fewer" in str(caught.value)
    assert [is_full_of(view, 1 + number) for number, view in enumerate(kept)] == [True, True]
    assert arena.acquire(0)[0] == worker.slot
    arena.release(worker.slot)
    kept.pop()
    assert is_full_of(batch(arena, 5 * MIB, 4), 4)


def test_a_copy_is_made_where_free_slots_make_room_for_it(arena):
    Worker(arena, 8).write(4 * MIB).give_up()
    kept = keep_two(arena, MIB)
    others = [Worker(arena, seat).write(3 * MIB, 3) for seat in (1, 2)]
    others.pop().give_up()
    copy = others.pop().hand_over()
    assert is_full_of(copy, 3)
    assert is_full_of(kept[0], 1)
    assert is_full_of(kept[1], 2)
    assert arena.capacity_bytes + copy.nbytes <= TOTAL


def test_without_a_budget_a_large_copy_is_refused_where_the_machine_has_no_memory(machine):
    arena = Arena(most_lent=0)
    try:
        worker = Worker(arena).write(10 * MIB)
        machine.available = RESERVE_BYTES
        with pytest.raises(MemoryBudgetError, match="0 are left of what the machine has left"):
            worker.hand_over()
    finally:
        arena.close()
