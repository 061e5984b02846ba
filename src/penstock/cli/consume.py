"""The epoch of a run: a dataset, a loader, and a consumer that keeps account."""

from __future__ import annotations

import contextlib
import multiprocessing
import select
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, cast

from penstock.cli.report import Report
from penstock.cli.request import Request
from penstock.cli.screen import Screen
from penstock.datasets import ImageDataset, ResizeCrop
from penstock.engines.launch import interrupts_held
from penstock.epoch import EpochRun
from penstock.loader import DataLoader
from penstock.observe.progress import Progress, RecentRate

# How often the screen is brought up to date: smooth to the eye, and no work to speak of.
TICK_S = 0.1


def consume(request: Request, report: Report, screen: Screen) -> None:
    """Reads every picture of the source once.

    Args:
        request: what was asked for.
        report: is filled in, also where this raises.
        screen: is kept up to date.

    Raises:
        OptionError: an argument cannot be used, such as a folder without pictures.
        Exception: whatever ended the epoch.
    """
    # One label for all: sub-folders are then no classes, and any tree of pictures will do.
    dataset = ImageDataset(request.source, ResizeCrop(request.size), labels=lambda _: 0)
    report.total = len(dataset)
    with interrupts_held(request.start_method or multiprocessing.get_start_method()):
        loader = DataLoader(
            dataset,
            batch_size=request.batch_size,
            shuffle=request.shuffle,
            num_workers=request.workers,
            multiprocessing_context=request.start_method if request.workers else None,
            in_order=request.in_order,
            seed=request.seed,
            on_error=request.on_error,
            max_skipped=request.max_skipped,
        )
        account = _Account(report, loader)
        report.begun = True
        epoch = cast(EpochRun, iter(loader))
    try:
        for _, _, indices in _batches(epoch, tick=lambda: screen.show(account.progress())):
            account.enter(indices.tolist())
    finally:
        with _uninterrupted():
            epoch.close()
            account.settle()
            rate = report.samples_per_s
            screen.end(replace(account.progress(), samples_per_s=rate, over=True))


class _Account:
    """Who arrived, and when there was nobody."""

    def __init__(self, report: Report, loader: DataLoader[Any]) -> None:
        self._report = report
        self._loader = loader
        self._seen = bytearray(report.total)
        self._rate = RecentRate()
        self._at_work_s = 0.0

    def enter(self, indices: Iterable[int]) -> None:
        """A batch of these arrived."""
        began = time.perf_counter()
        for index in indices:
            self._report.samples += 1
            self._mark(index)
        self._at_work_s += time.perf_counter() - began

    def progress(self) -> Progress:
        """How far it is."""
        statistics = self._loader.statistics()
        done = self._report.samples + statistics.skipped
        return Progress(
            done=done,
            total=self._report.total,
            errors=statistics.skipped,
            samples_per_s=self._rate.at(self._report.samples),
            busy_share=statistics.busy_share,
            workers=statistics.workers,
        )

    def settle(self) -> None:
        """The epoch is over: adds up."""
        report = self._report
        report.skipped = sorted(self._loader.skipped, key=lambda error: cast(int, error.index))
        report.statistics = self._loader.statistics()
        for error in report.skipped:
            self._mark(cast(int, error.index))
        report.missing = self._seen.count(0)
        elapsed_s = report.statistics.elapsed_s
        report.wait_share = max(0.0, 1 - self._at_work_s / elapsed_s) if elapsed_s else 0.0

    def _mark(self, index: int) -> None:
        self._report.repeated += self._seen[index]
        self._seen[index] = 1


def _batches(epoch: EpochRun, *, tick: Callable[[], None]) -> Iterator[Any]:
    """Yields the batches, and calls `tick` at least every `TICK_S` while it waits for one.

    Without workers the waiting is the work itself, and `tick` has its turn between batches.
    """
    due = time.monotonic()
    while True:
        while not epoch.ready() and (handles := epoch.wait_handles()):
            _wait_for_any(handles, TICK_S)
            if time.monotonic() >= due:
                tick()
                due = time.monotonic() + TICK_S
        try:
            batch = next(epoch)
        except StopIteration:
            return
        if time.monotonic() >= due:
            tick()
            due = time.monotonic() + TICK_S
        yield batch


def _wait_for_any(handles: list[int], timeout_s: float) -> None:
    """Waits until one of the pipe ends can be read, or written."""
    poll = select.poll()
    for handle in handles:
        poll.register(handle, select.POLLIN | select.POLLOUT)
    poll.poll(timeout_s * 1000)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """A second Ctrl-C must not leave workers behind; what is done here takes no longer than 1 s."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
