"""The workers of one loader: started for an epoch, or kept for all of them."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

from torch.utils.data import DataLoader as TorchDataLoader

from penstock.engines.crew import Crew
from penstock.engines.inline import InlineEngine
from penstock.engines.job import Job
from penstock.engines.launch import forks
from penstock.engines.process import ProcessEngine
from penstock.engines.protocol import Engine
from penstock.engines.shared_lists import FoundList, SharedLists
from penstock.engines.vitals import has_opened
from penstock.epoch import EpochRun
from penstock.schedule import Pace


class Workers:
    """Starts the engine of each epoch of one loader, and keeps that of persistent workers.

    Attributes:
        pace: what batches have cost them.
        watches: whether to look at what they have open at the end of each epoch.
    """

    def __init__(self) -> None:
        self.pace = Pace()
        self.watches = False
        self._found: list[bool] = []
        self._engine: ProcessEngine | None = None
        self._end: Callable[[], object] = _nothing
        self._run: weakref.ref[EpochRun] | None = None
        # For the next epoch, so that what is still as it was need not be packed again.
        self._lists: list[FoundList] = []

    @property
    def run(self) -> EpochRun | None:
        """The epoch that was begun last, if it is still held; workers that live on serve no two."""
        return self._run() if self._run is not None else None

    @run.setter
    def run(self, run: EpochRun) -> None:
        self._run = weakref.ref(run)

    def engine_for(
        self,
        loader: TorchDataLoader[Any],
        seed: int,
        job: Job,
        *,
        memory_budget: int | None = None,
        share_dataset: bool,
        anew: bool,
    ) -> tuple[Engine, Callable[[], None]]:
        """An engine for an epoch.

        Args:
            loader: whose workers end with it.
            seed: see `ProcessEngine`.
            job: see `ProcessEngine`; workers that live on have theirs already, unless it is for
                another number of them.
            memory_budget: see `ProcessEngine`; engines that live on keep theirs.
            share_dataset: whether workers have large lists of the dataset together.
            anew: whether the copies of the dataset in workers that live on are out of date.

        Returns:
            It, started, and what to call when the epoch is over.
        """
        if self._engine is not None and not self._engine.is_ours:
            # This process was forked since: its parent goes on with these workers.
            self._engine = None
        if self._engine is not None:
            previous = self.run
            if previous is not None:
                previous.close()
            if self._engine.seats == job.seats and not anew:
                return self._engine, self._parting(self._engine.crew, _nothing)
            self._end()
            self._engine = None
        if not loader.num_workers:
            self._lists = []
            inline = InlineEngine(job, seed=seed)
            return inline, inline.close
        lists = (
            SharedLists(job, forks=forks(loader.multiprocessing_context)) if share_dataset else None
        )
        self._lists = [] if lists is None else lists.found
        engine = ProcessEngine(
            job,
            context=loader.multiprocessing_context,
            seed=seed,
            memory_budget=memory_budget,
            lists=lists,
        )
        engine.start()
        if not loader.persistent_workers:
            return engine, self._parting(engine.crew, engine.crew.close)
        self._engine = engine
        self._end = weakref.finalize(loader, engine.crew.close)
        return engine, self._parting(engine.crew, _nothing)

    @property
    def has_opened(self) -> bool:
        """Whether watched workers had a file or a socket open: the dataset's, most likely."""
        return any(self._found)

    def _parting(self, crew: Crew, end: Callable[[], object]) -> Callable[[], None]:
        return partial(_part, crew, self._found if self.watches else None, end)


def _part(crew: Crew, found: list[bool] | None, end: Callable[[], object]) -> None:
    """An epoch is over.

    It must hold no engine, nor what holds one: with that a dataset, whose functions may hold the
    loader, would never be given up.

    Args:
        crew: its workers.
        found: takes whether they have something open; None: nobody asks.
        end: ends those that do not outlive it.
    """
    try:
        if found is not None and crew.is_ours:
            pids = [seat.pid for seat in crew.seats if seat.process is not None]
            found.append(any(map(has_opened, pids)))
    finally:
        end()


def _nothing() -> None:
    """Persistent workers outlive the epoch."""
