"""Leases of whole batches that become leases of parts; see also tests/epoch/test_splitting.py."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.schedule import (
    FIRST_PART,
    Death,
    Discard,
    Fill,
    Issue,
    Lease,
    Pace,
    Recall,
    Splitting,
)
from tests.epoch.simulation import PartsOf


class Scene:
    """A splitting, and the workers that the scheduler knows of."""

    def __init__(self, *, seats: int = 2, part: int = 2, whole: int = 0) -> None:
        self.workers: dict[int, dict[int, Lease]] = {seat: {} for seat in range(seats)}
        self.pace = PartsOf(part)
        self.splitting: Splitting[str] = Splitting(self.workers, self.pace, whole=whole)

    def lend(self, batch: int, count: int, seat: int = 0, **more: Any) -> list[Lease]:
        """What the engine is told of a lease of the scheduler's."""
        lease = Lease(batch, more.pop("attempt", 0), seat, list(range(count)), **more)
        self.workers[seat][batch] = lease
        return issued(self.splitting.carry([Issue(lease)]))

    def arrive(self, part: Lease, result: str = "part") -> list[Any]:
        return list(self.splitting.add_part(part.seat, part.batch, part.attempt, result, 1.0, 100))

    def turn(self) -> list[Any]:
        return list(self.splitting.carry([]))


def issued(commands: Any) -> list[Lease]:
    assert all(isinstance(command, Issue) for command in commands)
    return [command.lease for command in commands]


def places(leases: list[Lease]) -> list[list[int]]:
    return [list(lease.part or ()) for lease in leases]


def test_a_lease_is_shared_out_among_all_workers():
    parts = Scene(seats=2, part=2).lend(0, 5)
    assert places(parts) == [[0, 1], [2, 3], [4]]
    assert [part.seat for part in parts] == [0, 1, 0]
    assert all(part.batch == 0 and part.attempt >= FIRST_PART for part in parts)
    assert len({part.attempt for part in parts}) == 3
    assert all(part.indices == [0, 1, 2, 3, 4] for part in parts)


def test_the_last_part_has_all_put_together_in_order():
    scene = Scene()
    first, second = scene.lend(0, 4)
    assert scene.arrive(second, "second") == []
    (gathering,) = issued(scene.arrive(first, "first"))
    assert gathering.pieces == ("first", "second")
    assert gathering.part is None
    done = scene.splitting.gathered(gathering.seat, 0, gathering.attempt)
    assert done == (scene.workers[0][0], 2.0, 200)
    assert scene.splitting.gathered(gathering.seat, 0, gathering.attempt) is None


@pytest.mark.parametrize(
    "trouble", [{"attempt": 1}, {"fills": {0: Fill("drop")}}, {"batch": 2}], ids=str
)
def test_what_had_trouble_and_what_was_begun_early_stays_whole(trouble):
    scene = Scene(whole=3)
    (lease,) = scene.lend(trouble.pop("batch", 5), 4, **trouble)
    assert lease.part is None
    assert lease.attempt < FIRST_PART


def test_without_a_pace_nothing_is_split():
    lease = Issue(Lease(0, 0, 0, [1, 2]))
    assert list(Splitting({0: {}, 1: {}}, None).carry([lease])) == [lease]


def test_whoever_has_nothing_left_takes_over_what_waits_behind_another():
    scene = Scene()
    parts = [*scene.lend(0, 4), *scene.lend(1, 4), *scene.lend(2, 4)]
    behind = [part for part in parts if part.seat == 0]
    assert scene.turn() == []
    for part in parts:
        if part.seat == 1:
            scene.arrive(part)
    recall, again = scene.turn()[:2]
    # The first of those that cannot be under way.
    assert recall == Recall(behind[1])
    assert isinstance(again, Issue)
    assert (again.lease.seat, again.lease.part) == (1, behind[1].part)
    assert scene.arrive(behind[1]) == [Discard("part")]
    assert scene.arrive(again.lease) != [Discard("part")]


def test_whoever_makes_a_whole_batch_is_given_fewer_parts():
    scene = Scene(whole=1)
    scene.lend(0, 4, seat=0)
    assert {part.seat for part in scene.lend(1, 4, seat=1)} == {1}


def test_a_part_that_fails_has_the_batch_made_whole():
    scene = Scene()
    first, second = scene.lend(0, 4)
    scene.arrive(first)
    commands = scene.splitting.failed(second.seat, 0, second.attempt)
    assert list(commands) == [Discard("part"), Issue(scene.workers[0][0])]
    assert list(scene.splitting.failed(second.seat, 0, second.attempt)) == []


def test_what_is_taken_back_is_so_in_all_parts():
    scene = Scene()
    first, second = scene.lend(0, 4)
    scene.arrive(first)
    commands = scene.splitting.carry([Recall(scene.workers[0][0])])
    assert list(commands) == [Recall(second), Discard("part")]
    assert scene.arrive(second) == [Discard("part")]


def test_where_memory_is_short_all_that_follows_is_whole():
    scene = Scene()
    first, second = scene.lend(0, 4)
    commands = scene.splitting.make_whole(0)
    assert list(commands) == [Recall(first), Recall(second), Issue(scene.workers[0][0])]
    assert list(scene.splitting.make_whole(0)) == []
    (lease,) = scene.lend(1, 4)
    assert lease.part is None


def at(part: Lease) -> Death:
    return Death((part.batch, part.attempt))


def test_the_batch_that_a_worker_has_died_at_is_lost():
    scene = Scene(seats=4)
    first, second = scene.lend(0, 4, seat=2)
    moved, commands = scene.splitting.remove_worker(first.seat, at(first))
    assert moved == [(scene.workers[2][0], first.seat)]
    assert list(commands) == [Recall(second)]
    assert scene.arrive(second) == [Discard("part")]


def test_a_death_of_which_nothing_is_known_is_laid_to_all_that_the_worker_had():
    scene = Scene(seats=3)
    first, second = scene.lend(0, 4)
    moved, _ = scene.splitting.remove_worker(first.seat, Death())
    assert moved == [(first_lease(scene), first.seat)]
    assert scene.arrive(second) == [Discard("part")]


def first_lease(scene: Scene) -> Lease:
    return scene.workers[0][0]


@pytest.mark.parametrize("known", [True, False])
def test_parts_of_other_batches_are_made_by_other_workers(known):
    scene = Scene(seats=2)
    guilty = scene.lend(0, 4)
    parts = scene.lend(1, 4)
    lost = next(part for part in parts if part.seat == 0)
    kept = next(part for part in parts if part.seat == 1)
    scene.arrive(kept, "kept")
    death = at(next(part for part in guilty if part.seat == 0)) if known else Death(idle=True)
    moved, commands = scene.splitting.remove_worker(0, death)
    # It was lent in the name of the one that is gone.
    assert (scene.workers[0][1], 1) in moved
    assert len(commands) == known
    del scene.workers[0]
    again = next(part for part in issued(scene.turn()) if part.batch == 1)
    assert (again.seat, again.part) == (1, lost.part)
    (gathering,) = issued(scene.arrive(again, "again"))
    assert sorted(gathering.pieces) == ["again", "kept"]
    whole, *_ = scene.splitting.gathered(1, 1, gathering.attempt) or (None,)
    assert whole is not None
    assert (whole.batch, whole.attempt, whole.seat) == (1, 0, 1)


def test_with_the_last_worker_all_is_lost():
    scene = Scene(seats=1, part=1)
    scene.lend(0, 2)
    moved, _ = scene.splitting.remove_worker(0, Death(idle=True))
    assert moved == [(first_lease(scene), 0)]


def test_a_worker_that_had_no_part_takes_nothing_with_it():
    scene = Scene(seats=4)
    scene.lend(0, 4)
    assert scene.splitting.remove_worker(3, Death(idle=True)) == ([], [])


def test_who_is_to_put_a_batch_together_takes_it_along():
    scene = Scene(seats=3)
    first, second = scene.lend(0, 4, seat=2)
    scene.arrive(first)
    (gathering,) = issued(scene.arrive(second))
    moved, commands = scene.splitting.remove_worker(gathering.seat, Death(idle=True))
    assert (moved, list(commands)) == ([(scene.workers[2][0], gathering.seat)], [])


def test_only_who_was_asked_to_has_put_a_batch_together():
    scene = Scene()
    first, second = scene.lend(0, 4)
    scene.arrive(first)
    assert scene.splitting.gathered(second.seat, 0, second.attempt) is None
    (gathering,) = issued(scene.arrive(second))
    assert scene.splitting.gathered(gathering.seat, 0, first.attempt) is None
    assert scene.splitting.gathered(1 - gathering.seat, 0, gathering.attempt) is None
    assert scene.splitting.gathered(gathering.seat, 0, gathering.attempt) is not None


def test_what_has_arrived_is_given_up_with_the_epoch():
    scene = Scene()
    first, _ = scene.lend(0, 4)
    scene.arrive(first)
    assert scene.splitting.abandon() == ["part"]
    assert scene.splitting.abandon() == []


def test_what_a_worker_is_at_is_not_taken_from_it():
    scene = Scene(seats=2, part=1)
    later = scene.lend(1, 2)
    for part in scene.lend(0, 2):
        # It comes before what each is at.
        assert part.attempt > max(other.attempt for other in later)
    for part in later:
        if part.seat == 1:
            scene.arrive(part)
    begun = next(part for part in later if part.seat == 0)
    for command in scene.turn():
        assert command.lease.attempt != begun.attempt


def test_who_has_nothing_to_give_is_passed_by():
    scene = Scene(seats=4, part=1, whole=1)
    scene.lend(0, 9, seat=0)
    parts = scene.lend(1, 12, seat=1)
    assert {part.seat for part in parts} == {1, 2, 3}
    for part in parts:
        if part.seat != 1:
            scene.arrive(part)
    helped = [command.lease.seat for command in scene.turn() if isinstance(command, Issue)]
    assert sorted(helped) == [2, 3]


@pytest.mark.parametrize("more", [0, 6])
def test_a_batch_is_put_together_by_who_has_nothing_to_do_or_was_heard_last(more):
    scene = Scene(seats=3, part=1)
    parts = scene.lend(0, 3)
    if more:
        scene.lend(1, more)
    busy = parts[0]
    scene.workers[busy.seat][7] = Lease(7, 0, busy.seat, [1])
    for part in parts[1:]:
        scene.arrive(part)
    (gathering,) = issued(scene.arrive(busy))
    assert (gathering.seat == busy.seat) == bool(more)


def test_too_little_memory_is_remembered():
    scene = Scene()
    pace = Pace()
    pace.note(64.0, 64, 0)
    scene.splitting = Splitting(scene.workers, pace)
    scene.splitting.make_whole(0)
    pace.note_parts(made=True)
    pace.note(64.0, 64, 0)
    assert not pace.pays
