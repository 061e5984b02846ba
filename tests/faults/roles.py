"""Datasets that break, each in one way, and what happens to the worker that meets it.

All of this travels to workers under every start method. What is to happen once happens in the first
process that comes to it: a file says that it has.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import random
import resource
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset, IterableDataset

from penstock.collate import Rows
from penstock.transport.channel import Channel
from penstock.transport.journal import Journal
from tests.support.split import own_part

Action = Callable[[], object]

# Four of these make a batch that travels in a slot.
ELEMENTS = 1 << 14


def whole(index: int) -> torch.Tensor:
    """The sample of an index: that number, all over."""
    return torch.full((ELEMENTS,), index, dtype=torch.int32)


class Numbers(Dataset[torch.Tensor]):
    """Gives each index back.

    Args:
        length: how many samples.
        at: what happens before a sample is made, by its index.
        pause_s: how long each takes.
    """

    def __init__(
        self, length: int, at: Mapping[int, Action] | None = None, *, pause_s: float = 0.0
    ) -> None:
        self.length = length
        self.at = dict(at or {})
        self.pause_s = pause_s

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> torch.Tensor:
        if self.pause_s:
            time.sleep(self.pause_s)
        if index in self.at:
            self.at[index]()
        return whole(index)


class NumbersAtOnce(Numbers):
    """Makes all samples of a batch in one call, so that nobody can tell which one it is at."""

    def __getitems__(self, indices: list[int]) -> list[torch.Tensor]:
        return [self[index] for index in indices]


class Large(Numbers):
    """Its samples are large enough for a batch to lie in a slot."""

    def __getitem__(self, index: int) -> torch.Tensor:
        super().__getitem__(index)
        return torch.full((1 << 15,), index, dtype=torch.int32)


class Noise(Numbers):
    """Its samples are random, and follow from the epoch's seed and their index."""

    def __getitem__(self, index: int) -> torch.Tensor:
        noise = torch.rand(ELEMENTS)
        super().__getitem__(index)
        return torch.cat([torch.tensor([float(index)]), noise, torch.rand(8)])


class Epochs(Numbers):
    """Says with each index in which epoch it was asked for."""

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.full((ELEMENTS,), self.epoch * self.length + index, dtype=torch.int32)


class Stream(IterableDataset[torch.Tensor]):
    """The numbers, divided among the workers; see `Numbers`."""

    def __init__(self, length: int, at: Mapping[int, Action] | None = None) -> None:
        self.length = length
        self.at = dict(at or {})

    def __iter__(self) -> Iterator[torch.Tensor]:
        for index in own_part(self.length):
            if index in self.at:
                self.at[index]()
            yield whole(index)


class ShorterEachTime(IterableDataset[torch.Tensor]):
    """Gives fewer numbers each time that it is read.

    Args:
        path: where to count the times.
        lengths: how many numbers it has, the first time, the second, and so on.
        at: see `Numbers`.
    """

    def __init__(self, path: Path, lengths: list[int], at: Mapping[int, Action]) -> None:
        self.log = Log(path)
        self.lengths = lengths
        self.at = dict(at)

    def __iter__(self) -> Iterator[torch.Tensor]:
        self.log("read")
        for index in range(self.lengths[len(self.log.lines()) - 1]):
            if index in self.at:
                self.at[index]()
            yield whole(index)


class ShuffledAnew(IterableDataset[torch.Tensor]):
    """Gives numbers in an order of its own each time that it is read, which follows from no seed.

    Args:
        length: how many.
        at: what happens before one is given, by its place.
    """

    def __init__(self, length: int, at: Mapping[int, Action]) -> None:
        self.length = length
        self.at = dict(at)

    def __iter__(self) -> Iterator[torch.Tensor]:
        # Of so many that hardly ever the same one has the same place twice.
        numbers = random.SystemRandom().sample(range(1 << 30), self.length)
        for place, number in enumerate(numbers):
            if place in self.at:
                self.at[place]()
            yield whole(number)


# What happens.


class Log:
    """Lines of a file, written by any process."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def __call__(self, line: object) -> None:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(descriptor, f"{line}\n".encode())
        os.close(descriptor)

    def lines(self) -> list[str]:
        return self.path.read_text().splitlines() if self.path.exists() else []


class Once:
    """Does something in one process, the first that comes to it, and never again.

    Args:
        folder: where to note it.
        action: what to do.
        name: tells it from others in that folder.
    """

    def __init__(self, folder: Path, action: Action, name: object = "happened") -> None:
        self.path = Path(folder) / f"once-{name}"
        self.action = action

    def __call__(self) -> None:
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return
        os.write(descriptor, str(os.getpid()).encode())
        os.close(descriptor)
        self.action()

    @property
    def pid(self) -> int:
        """The process that did it; 0 before."""
        return int(self.path.read_text() or 0) if self.path.exists() else 0


def be_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def crash() -> None:
    """Reads what is not there, in C."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.string_at(0)


def hang() -> None:
    """Never comes back from C, and lets no other thread run Python meanwhile."""
    ctypes.PyDLL(None).pause()


def wait_for_ever() -> None:
    """Waits as Python does: a signal does not end it."""
    while True:
        time.sleep(3600)


class Leave:
    """Ends the process without a word."""

    def __init__(self, code: int) -> None:
        self.code = code

    def __call__(self) -> None:
        os._exit(self.code)


class StartProcess:
    """Starts a process that waits, and returns when it does.

    Args:
        method: the start method; "os.fork": without multiprocessing.
        log: where to note its number.
    """

    def __init__(self, method: str, log: Log) -> None:
        self.method = method
        self.log = log

    def __call__(self) -> None:
        if self.method == "os.fork":
            if not os.fork():
                note_and_wait(self.log, None)
                os._exit(0)
            return
        context: Any = multiprocessing.get_context(self.method)
        reader, writer = context.Pipe(duplex=False)
        context.Process(target=note_and_wait, args=(self.log, writer), daemon=True).start()
        reader.recv()


def note_and_wait(log: Log, told: Any) -> None:
    log(os.getpid())
    if told is not None:
        told.send(None)
    wait_for_ever()


class Raise:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __call__(self) -> None:
        raise self.error


def tear_slot() -> None:
    """Has this worker be killed with the next batch partly written to its slot."""
    place = Rows.place

    def half(tensors: list[torch.Tensor], dim: int = 0, *, out: torch.Tensor) -> None:
        out[: len(tensors) // 2] = -1
        be_killed()

    def one(rows: Rows, sample: Any) -> None:
        place(rows, sample)
        be_killed()

    # Samples that take their time go to their rows one by one, others are stacked there.
    torch.stack = half
    Rows.place = one  # type: ignore[assignment,method-assign]


class TearReply:
    """Has this worker be killed with the next reply partly sent.

    Args:
        sent: bytes of it that are; negative: all but so many.
    """

    def __init__(self, sent: int) -> None:
        self.sent = sent

    def __call__(self) -> None:
        def send_some(channel: Channel, frame: bytes) -> None:
            os.write(channel.write_fd, frame[: self.sent])
            be_killed()

        Channel.send_all = send_some  # type: ignore[method-assign]


def scribble() -> None:
    """Has this worker's next reply be none, as if the dataset wrote to its pipe."""

    def write_garbage(channel: Channel, frame: bytes) -> None:
        os.write(channel.write_fd, b"garbage" * 20)
        signal.pause()

    Channel.send_all = write_garbage  # type: ignore[method-assign]


def die_behind_reply() -> None:
    """Has this worker be killed right after its next reply, before it notes that it has none."""
    send_all = Channel.send_all

    def send(channel: Channel, frame: bytes) -> None:
        send_all(channel, frame)
        be_killed()

    Channel.send_all = send  # type: ignore[method-assign]


def die_between_leases() -> None:
    """Has this worker be killed once it has noted that its next reply is sent."""
    end = Journal.end

    def note(journal: Journal) -> None:
        end(journal)
        be_killed()

    Journal.end = note  # type: ignore[method-assign]
