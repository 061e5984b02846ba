"""Workers that live on between the epochs of a loader, and the one iterator of all of them."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import DataLoader as TorchDataLoader

from penstock.engines.inline import InlineEngine
from penstock.engines.job import Job
from penstock.engines.process import ProcessEngine
from penstock.engines.protocol import Engine
from penstock.epoch import EpochRun
from penstock.pinning import PinnedRun


class KeptWorkers:
    """Starts the engine of each epoch of one loader, and keeps that of persistent workers."""

    def __init__(self) -> None:
        self._engine: ProcessEngine | None = None
        self._end: Callable[[], object] = _nothing
        self._run: weakref.ref[EpochRun] | None = None

    @property
    def run(self) -> EpochRun | None:
        """The epoch that was begun last, if it is still held; workers that live on serve no two."""
        return self._run() if self._run is not None else None

    @run.setter
    def run(self, run: EpochRun) -> None:
        self._run = weakref.ref(run)

    def engine_for(
        self, loader: TorchDataLoader[Any], seed: int, job: Job, *, anew: bool
    ) -> tuple[Engine, Callable[[], None]]:
        """An engine for an epoch.

        Args:
            loader: whose workers end with it.
            seed: see `ProcessEngine`.
            job: see `ProcessEngine`; workers that live on have theirs already.
            anew: whether the copies of the dataset in workers that live on are out of date.

        Returns:
            It, started, and what to call when the epoch is over.
        """
        if not loader.num_workers:
            inline = InlineEngine(job, seed=seed)
            return inline, inline.close
        if self._engine is not None and not self._engine.is_ours:
            # This process was forked since: its parent goes on with these workers.
            self._engine = None
        if self._engine is not None:
            previous = self.run
            if previous is not None:
                previous.close()
            if not anew:
                return self._engine, _nothing
            self._end()
            self._engine = None
        engine = ProcessEngine(job, context=loader.multiprocessing_context, seed=seed)
        engine.start()
        if not loader.persistent_workers:
            return engine, engine.close
        self._engine = engine
        self._end = weakref.finalize(loader, engine.close)
        return engine, _nothing


def _nothing() -> None:
    """Persistent workers outlive the epoch."""


class RenewedRun(Iterator[Any]):
    """Iterates the epoch that was begun last; who holds it goes on with each new epoch.

    Args:
        run: the first epoch's.
        loader: whose workers end with it; a program may keep this iterator alone.
    """

    def __init__(self, run: EpochRun | PinnedRun, loader: object) -> None:
        self._run = run
        self._loader = loader

    def renew(self, run: EpochRun | PinnedRun) -> None:
        """Goes on with another epoch; what is left of the one before is given up."""
        self._run = run

    def __iter__(self) -> RenewedRun:
        return self

    def __next__(self) -> Any:
        """The next batch of the epoch; see `EpochRun.__next__`."""
        return next(self._run)

    def __len__(self) -> int:
        """See `EpochRun.__len__`."""
        return len(self._run)

    def ready(self) -> bool:
        """See `EpochRun.ready`."""
        return self._run.ready()

    def look_ahead(self) -> bool:
        """See `EpochRun.look_ahead`."""
        return self._run.look_ahead()

    def wait_handles(self) -> list[int]:
        """See `EpochRun.wait_handles`."""
        return self._run.wait_handles()

    def left_s(self, began: float) -> float | None:
        """See `EpochRun.left_s`."""
        return self._run.left_s(began)

    def close(self) -> None:
        """Gives up what is left of the epoch; see `EpochRun.close`."""
        self._run.close()
