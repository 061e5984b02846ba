"""What follows from deaths: which batch was to blame, when it is searched, what is set aside."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.schedule import MAX_DEATHS_PER_BATCH, Death, Fill, Inquest, Lease, Scheduler
from penstock.schedule.hunt import DEATHS_BY_OTHERS
from tests.schedule.roles import DROP, ask, asked_about, complete, given, issued, refilling

CRASH = Death(by_itself=True)
KILLED = Death()


def searching(**options: Any) -> Inquest:
    return Inquest(killed=lambda index: f"kills at {index}", **options)


def die(scheduler: Scheduler[str], death: Death, seat: int = 0) -> list[Lease]:
    """A worker dies and is replaced; what is lent then."""
    scheduler.commands()
    scheduler.remove_worker(seat, death)
    scheduler.add_worker(seat)
    scheduler.fill()
    return issued(scheduler)


def probed(scheduler: Scheduler[str], lease: Lease) -> list[Lease]:
    """A probe does no harm; what is lent then."""
    assert scheduler.probed(lease.seat, lease.batch, lease.attempt)
    scheduler.fill()
    return issued(scheduler)


def test_a_crash_is_searched_for_at_once():
    scheduler = given([10, 11, 12, 13], inquest=searching())
    (lease,) = die(scheduler, CRASH)
    assert lease.probe == (0, 1)


def test_a_death_that_anybody_may_have_caused_is_searched_for_when_it_comes_again():
    scheduler = given([10, 11], inquest=searching())
    for _ in range(DEATHS_BY_OTHERS - 1):
        (lease,) = die(scheduler, KILLED)
        assert lease.probe == ()
    (lease,) = die(scheduler, KILLED)
    assert lease.probe == (0,)


def test_a_probe_is_the_first_lease_of_the_worker_that_came():
    scheduler = given([0, 1], [2, 3], seats=2, inquest=searching())
    leases = die(scheduler, Death((1, 0), by_itself=True), seat=1)
    assert [(lease.batch, lease.seat, lease.probe) for lease in leases] == [(1, 1, (0,))]


def test_what_is_found_is_reported_in_its_place_and_the_rest_is_made():
    scheduler = given([10, 11], inquest=searching())
    die(scheduler, Death((0, 0), place=1, by_itself=True))
    (lease,) = die(scheduler, CRASH)
    assert lease.probe == ()
    assert lease.fills == {1: Fill("bad", "kills at 11")}
    assert complete(scheduler, lease)


def test_a_search_without_a_find_ends_and_the_batch_is_made_as_a_whole():
    scheduler = given([10, 11, 12], inquest=searching())
    leases = die(scheduler, CRASH)
    probes = []
    while leases[0].probe:
        probes.append(leases[0].probe)
        leases = probed(scheduler, leases[0])
    assert probes == [(0, 1), (2,)]
    assert complete(scheduler, leases[0])


def test_a_batch_that_kills_only_as_a_whole_is_given_up():
    scheduler = given([10, 11], inquest=searching(given_up=lambda lease: RuntimeError("as one")))
    deaths = 0
    (lease,) = issued(scheduler)
    while deaths < MAX_DEATHS_PER_BATCH:
        if lease.probe:
            (lease,) = probed(scheduler, lease)
            continue
        deaths += 1
        (lease, *_) = die(scheduler, CRASH) or [lease]
    delivery = scheduler.pop()
    assert delivery is not None
    assert str(delivery.error) == "as one"


def test_a_sample_that_took_too_long_is_set_aside_without_another_try():
    scheduler = given([10, 11], inquest=searching())
    (lease,) = die(scheduler, Death((0, 0), place=0, overdue=True))
    assert (lease.probe, lease.fills) == ((), {0: Fill("bad", "kills at 10")})


def test_a_batch_that_took_too_long_as_a_whole_is_searched():
    scheduler = given([10, 11], inquest=searching())
    (lease,) = die(scheduler, Death((0, 0), overdue=True))
    assert lease.probe == (0,)


def test_what_was_set_aside_is_not_made_again_wherever_it_comes_up():
    quarantine: dict[object, object] = {11: "kills at 11"}
    scheduler = given([10, 11], [[11]], [11], inquest=searching(quarantine=quarantine))
    fills = [lease.fills for lease in issued(scheduler)]
    assert fills == [{1: Fill("bad", "kills at 11")}, {}, {0: Fill("bad", "kills at 11")}]


def test_what_is_found_stays_in_quarantine():
    quarantine: dict[object, object] = {}
    scheduler = given([10, 11], [11], inquest=searching(quarantine=quarantine), window=1)
    die(scheduler, Death((0, 0), place=1, by_itself=True))
    (lease,) = die(scheduler, CRASH)
    assert quarantine == {11: "kills at 11"}
    complete(scheduler, lease)
    scheduler.pop()
    scheduler.fill()
    assert issued(scheduler)[0].fills == {0: Fill("bad", "kills at 11")}


def test_a_donor_in_quarantine_is_reported_and_not_made():
    scheduler = refilling(4, 2, window=1, inquest=searching(quarantine={3: "kills at 3"}))
    (lease,) = issued(scheduler)
    ask(scheduler, lease, 0)
    assert asked_about(scheduler) == 0
    scheduler.resolve(0, {0: DROP})
    (amend,) = scheduler.commands()
    assert amend.fills == {0: Fill("bad", "kills at 3")}  # type: ignore[union-attr]


def test_places_that_were_settled_are_not_searched():
    scheduler = given([10, 11, 12], inquest=searching())
    (lease,) = issued(scheduler)
    ask(scheduler, lease, 0)
    assert asked_about(scheduler) == 0
    scheduler.resolve(0, {0: DROP})
    scheduler.commands()
    (lease,) = die(scheduler, CRASH)
    assert lease.probe == (1,)


def test_a_worker_that_had_nothing_to_do_leaves_no_suspect():
    scheduler = given([10], inquest=searching())
    for _ in range(MAX_DEATHS_PER_BATCH * 2):
        scheduler.remove_worker(0, Death(idle=True, by_itself=True))
        scheduler.add_worker(0)
        scheduler.fill()
    assert all(lease.probe == () for lease in issued(scheduler))


def test_the_lease_that_a_worker_told_of_is_to_blame():
    scheduler = given([10], [11], inquest=searching())
    assert scheduler.remove_worker(0, Death((1, 0))).batch == 1  # type: ignore[union-attr]


def test_a_lease_that_was_answered_is_not_to_blame():
    scheduler = given([10], [11], inquest=searching())
    complete(scheduler, issued(scheduler)[0])
    assert scheduler.remove_worker(0, Death((0, 0))) is None


@pytest.mark.parametrize("death", [CRASH, KILLED])
def test_without_a_description_nothing_is_searched_for(death):
    scheduler = given([10, 11])
    for _ in range(MAX_DEATHS_PER_BATCH):
        (lease,) = die(scheduler, death)
        assert lease.probe == ()
