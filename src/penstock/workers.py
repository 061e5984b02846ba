"""The workers of one loader: started for an epoch, or kept for all of them."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch.utils.data import DataLoader as TorchDataLoader

from penstock.engines.chooser import Chooser
from penstock.engines.choosing import ChoosingEngine
from penstock.engines.inline import InlineEngine
from penstock.engines.job import Job
from penstock.engines.process import ProcessEngine
from penstock.engines.protocol import Engine
from penstock.engines.shared_lists import FoundList
from penstock.epoch import EpochRun
from penstock.errors import SerializationError
from penstock.observe import StatisticsRecorder
from penstock.schedule import Pace


class Workers:
    """Starts the engine of each epoch of one loader, and keeps that of persistent workers.

    Attributes:
        pace: what batches have cost them.
    """

    def __init__(self) -> None:
        self.pace = Pace()
        self._engine: ProcessEngine | ChoosingEngine | None = None
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
        chooser: Chooser | None = None,
        memory_budget: int | None = None,
        share_dataset: bool,
        anew: bool,
    ) -> tuple[Engine, Callable[[], None]]:
        """An engine for an epoch.

        Args:
            loader: whose workers end with it.
            seed: see `ProcessEngine`.
            job: see `ProcessEngine`; workers that live on have theirs already.
            chooser: how many workers there are to be; None: as many as the loader says.
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
        count = loader.num_workers if chooser is None else chooser.begin_epoch()
        if self._engine is not None:
            if not anew and count and _workers_of(self._engine) == count:
                return self._engine, _nothing
            self._end()
            self._engine = None
        settings: dict[str, Any] = {
            "context": loader.multiprocessing_context,
            "seed": seed,
            "memory_budget": memory_budget,
            "share_dataset": share_dataset,
        }
        engine, release = start_engine(job, count, chooser, settings)
        self._lists = [] if isinstance(engine, InlineEngine) else engine.shared_lists
        if isinstance(engine, InlineEngine) or not loader.persistent_workers:
            return engine, release
        self._engine = engine
        self._end = weakref.finalize(loader, release)
        return engine, _nothing


def start_engine(
    job: Job, count: int, chooser: Chooser | None, settings: Mapping[str, Any]
) -> tuple[ProcessEngine | ChoosingEngine | InlineEngine, Callable[[], None]]:
    """Starts an engine.

    Args:
        job: see `ProcessEngine`.
        count: how many worker processes there are to be.
        chooser: what has said so, if anything has.
        settings: the other arguments of a `ProcessEngine`.

    Returns:
        It, and what ends its workers without holding it.
    """
    if not count:
        inline = InlineEngine(job, seed=settings["seed"])
        return inline, inline.close
    if chooser is None or chooser.is_bound:
        engine = ProcessEngine(job if job.stream else replace(job, seats=count), **settings)
        engine.start()
        return engine, engine.crew.close
    choosing = ChoosingEngine(job, count, **settings)
    try:
        choosing.start()
    except SerializationError as error:
        chooser.bind(f"the dataset cannot be sent to workers: {error}", 0)
        return start_engine(job, chooser.begin_epoch(), chooser, settings)
    return choosing, choosing.release


def watch_epoch(chooser: Chooser | None, engine: Engine, recorder: StatisticsRecorder) -> None:
    """Has the one that chooses look at an epoch that has just begun."""
    if chooser is None:
        return
    watch = chooser.watch(recorder)
    if isinstance(engine, ChoosingEngine):
        engine.watch = watch


def _workers_of(engine: ProcessEngine | ChoosingEngine) -> int:
    return engine.workers if isinstance(engine, ChoosingEngine) else engine.seats


def _nothing() -> None:
    """Persistent workers outlive the epoch."""
