"""A scheduler in the state that a test begins with, and short words for what happens to it."""

from __future__ import annotations

from typing import Any

from penstock.plan import GivenBatches, RefillingBatches
from penstock.schedule import Fill, Issue, Lease, Scheduler, Window
from tests.schedule.simulation import sample_error

DROP = Fill("drop")


def schedule(
    plan: Any, *, seats: int = 1, window: int | Window = 4, **options: Any
) -> Scheduler[str]:
    """A scheduler with its workers, and the first leases lent."""
    if isinstance(window, int):
        window = Window(window)
    scheduler: Scheduler[str] = Scheduler(plan, window=window, **options)
    for seat in range(seats):
        scheduler.add_worker(seat)
    scheduler.fill()
    return scheduler


def given(*batches: list[Any], **options: Any) -> Scheduler[str]:
    return schedule(GivenBatches(batches, batched=True), **options)


def refilling(samples: int, size: int, *, drop_last: bool = False, **options: Any):
    plan = RefillingBatches(range(samples), size, drop_last=drop_last)
    return schedule(plan, donors=plan, **options)


def issued(scheduler: Scheduler[str]) -> list[Lease]:
    """The leases of all commands, which have to be `Issue`."""
    commands = scheduler.commands()
    leases = [command.lease for command in commands if isinstance(command, Issue)]
    assert len(leases) == len(commands)
    return leases


def lent(scheduler: Scheduler[str]) -> list[int]:
    """The batches that are lent now and were not before."""
    return [lease.batch for lease in issued(scheduler)]


def seats_of(scheduler: Scheduler[str]) -> list[int]:
    return [lease.seat for lease in issued(scheduler)]


def ask(scheduler: Scheduler[str], lease: Lease, *places: int) -> bool:
    """The lease's worker cannot make the samples in these places."""
    failures = [(place, sample_error(f"in place {place}")) for place in places]
    return scheduler.withheld(lease.seat, lease.batch, lease.attempt, failures)


def complete(scheduler: Scheduler[str], lease: Lease, result: str = "batch") -> bool:
    return scheduler.completed(lease.seat, lease.batch, lease.attempt, result)


def asked_about(scheduler: Scheduler[str]) -> int | None:
    question = scheduler.open_batch()
    return question[0] if question is not None else None


def numbers(scheduler: Scheduler[str]) -> list[int | None]:
    """The batches of all that can be delivered now."""
    deliveries = []
    while (delivery := scheduler.pop()) is not None:
        deliveries.append(delivery.batch)
    return deliveries
