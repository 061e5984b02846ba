"""Workers of a test's own making in the seats of a crew: real processes that do as it says."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from penstock.engines.crew import Crew, LeasedSeat
from penstock.engines.job import Job
from penstock.engines.last_words import LastWords, record
from penstock.engines.lifeline import Lifeline
from penstock.schedule import Lease
from penstock.transport import memory
from penstock.transport.arena import Arena
from penstock.transport.budget import Budget
from penstock.transport.channel import Channel
from penstock.transport.journal import Journal, journal_bytes

TIMEOUT_S = 30.0
EPOCH = 3


class Office:
    """An engine's parts without the engine.

    Args:
        job: what its workers are said to do.
        memory_budget: of the arena.
    """

    def __init__(self, job: Job, memory_budget: int | None = None) -> None:
        self.arena = Arena(
            most_lent=4, head_bytes=journal_bytes(job.seats), budget=Budget(memory_budget)
        )
        self.journal = Journal(self.arena.descriptor, job.seats)
        self.crew = Crew([LeasedSeat(job, number) for number in range(job.seats)], self.arena)
        for number in range(job.seats):
            self.journal.clear(number)

    @property
    def seats(self) -> list[LeasedSeat]:
        return self.crew.seats

    def notes_of(self, seat: int) -> Journal:
        """The journal as the worker of a seat writes it."""
        return Journal(self.arena.descriptor, len(self.seats), seat)

    def lend(self, seat: int, batch: int, *indices: object, attempt: int = 0, **options) -> Lease:
        """A lease that a worker has."""
        slot, _, _ = self.arena.acquire(seat)
        lease = Lease(batch, attempt, seat, list(indices), **options)
        self.seats[seat].lent[EPOCH, batch, attempt] = slot, lease
        return lease

    def hire(self, seat: int, run: Callable[[], object] = signal.pause) -> int:
        """Forks a worker that runs something, and returns its process id when it is about to."""
        context = multiprocessing.get_context("fork")
        lease_reader, lease_writer = context.Pipe(duplex=False)
        reply_reader, reply_writer = context.Pipe(duplex=False)
        words = LastWords.open()
        begun, begins = os.pipe()
        process: BaseProcess = context.Process(
            target=_work, args=(run, words.descriptor, begins), daemon=True
        )
        process.start()
        lease_reader.close()
        reply_writer.close()
        os.close(begins)
        assert os.read(begun, 1) == b"."
        os.close(begun)
        channel = Channel(reply_reader, lease_writer, blocking=False)
        self.seats[seat].take(process, channel, words, Lifeline(context))
        return self.seats[seat].pid

    def close(self) -> None:
        for seat in self.seats:
            seat.kill()
        self.crew.close()


class CountedKills:
    """The kernel's count of processes that were killed for memory.

    Args:
        monkeypatch: puts it in the place of the machine's own.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count: int | None = 5
        monkeypatch.setattr(memory, "out_of_memory_kills", self._counts)

    def _counts(self) -> dict[Path, int]:
        return {} if self.count is None else {Path("events"): self.count}


def _work(run: Callable[[], object], descriptor: int, begins: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    record(descriptor)
    os.write(begins, b".")
    os.close(begins)
    run()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def wait_for_death(pid: int) -> None:
    """Until a child has ended; its exit code stays to be taken."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
