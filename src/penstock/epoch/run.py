"""One epoch, as the training loop iterates it.

next() ──> the next batch, from workers (`Incoming`) or made here (`Here`) ──> the batch, or an
       error; and what the progress shows from then on
"""

from __future__ import annotations

import time
import warnings
import weakref
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from typing import Any

from penstock.checkpoint import Mark, Marks, Progress
from penstock.engines.inline import InlineEngine
from penstock.engines.protocol import Engine, EpochStart, Guess, Opened, Result
from penstock.epoch import texts
from penstock.epoch.here import Here
from penstock.epoch.incoming import Incoming, time_left_s
from penstock.epoch.settings import EpochSettings
from penstock.epoch.starts import starts_of
from penstock.errors import ClosedError, SampleError
from penstock.observe import StatisticsRecorder
from penstock.plan import EpochPlan
from penstock.schedule import DonorPlan, Ledger
from penstock.transport.arena import Arena


class EpochRun(Iterator[Any]):
    """Iterates the batches of one epoch.

    Args:
        engine: started.
        plan: where batches come from.
        settings: how to run it.
        workers: worker processes, for the statistics.
        donors: the plan again, if it can fill skipped places.
        release: called once when the epoch is over or given up.
        began: `time.perf_counter()` when the epoch was asked for, before its workers started.
        progress: how far the epoch has come before; the plan begins behind that.
        quarantine: samples that end whoever makes them, by index, with their descriptions; those
            that are found are added.
        sized: what has as many elements as the epoch has batches, if that is known.
        foresee: says what the epoch behind this one will begin with; None: nobody can.

    Attributes:
        recorder: counts and times of the epoch.
        progress: what of the epoch was handed over.
    """

    def __init__(
        self,
        engine: Engine,
        plan: EpochPlan,
        settings: EpochSettings,
        *,
        workers: int,
        donors: DonorPlan | None = None,
        release: Callable[[], None],
        began: float,
        progress: Progress | None = None,
        quarantine: MutableMapping[object, object] | None = None,
        sized: Any = None,
        foresee: Callable[[], Guess | None] | None = None,
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._sized = sized
        self.progress = Progress() if progress is None else progress
        self._ledger = Ledger(
            settings.policy,
            settings.planned,
            read=self.progress.read,
            skipped_before=self.progress.skipped,
        )
        self._marks = Marks(in_order=settings.in_order)
        self.recorder = StatisticsRecorder(workers, began)
        self._claim_broken = False
        # With fewer at once, other workers may be lent a batch than those that have begun it.
        apart = quarantine or settings.window < engine.anticipated
        begun = engine.begin_epoch(
            EpochStart(settings.seed, starts_of(self.progress, engine.seats), settings.number),
            () if apart else plan.peek(engine.anticipated),
        )
        self._closed = False
        self._exhausted = False
        # What `ready` has found, for `next()` to hand over.
        self._ahead: Opened | None = None
        self._error_ahead: Exception | None = None
        simple = donors is None and not (plan.is_stream or settings.policy.tolerant or quarantine)
        self._source: Here | Incoming
        if isinstance(engine, InlineEngine) and simple:
            self._source = Here(engine, plan, self.progress, self._marks, self.recorder)
        else:
            self._source = Incoming(
                engine,
                plan,
                settings,
                workers=workers,
                begun=begun,
                donors=donors,
                progress=self.progress,
                quarantine=quarantine,
                ledger=self._ledger,
                marks=self._marks,
                recorder=self.recorder,
                foresee=foresee,
            )
        # A dropped iterator frees what it has, as `close` does.
        self._release = weakref.finalize(self, _end, self._source.abandon, self.recorder, release)

    def __iter__(self) -> EpochRun:
        return self

    def __len__(self) -> int:
        """Batches in the whole epoch, as of torch's iterators; a `TypeError` if that is unknown."""
        return len(self._sized)

    def __next__(self) -> Any:
        """The next batch; see `take`. The progress shows it."""
        try:
            batch = self.take()
        except StopIteration:
            self.progress.add(self._marks.collect())
            self.progress.finished = True
            raise
        except Exception:
            self.progress.add(self._marks.collect())
            raise
        # Not behind Ctrl-C, with which the loop has not been given the batch.
        self.progress.add(self._marks.collect())
        return batch

    def collect_marks(self) -> list[Mark]:
        """What `take` has handed over, and passed by, since the last call."""
        return self._marks.collect()

    def take(self) -> Any:
        """The next batch, for somebody who hands it on later and keeps the progress himself.

        Raises:
            StopIteration: the epoch is over.
            ClosedError: `close` was called, or Ctrl-C has ended a call before.
            Exception: what a sample, the collate function or the sampler raised; the
                epoch may be continued behind it.
        """
        if self._error_ahead is not None:
            error, self._error_ahead = self._error_ahead, None
            raise error
        if self._exhausted:
            raise StopIteration
        if self._closed:
            raise ClosedError("this iterator was closed; iterate the loader again")
        try:
            return self._advance(time.perf_counter())
        except Exception:
            self._end_with_source()
            raise
        except BaseException:
            # Ctrl-C, at any point of what follows: what was half done is given up.
            self.close()
            raise

    def _advance(self, began: float) -> Any:
        """Hands over the next batch, waiting for it since `began`."""
        opened, self._ahead = self._ahead, None
        if opened is not None:
            # Which refuses a process that was forked since.
            self._engine.flush()
        else:
            opened = self._source.take(began)
        if opened is None:
            self._exhausted = True
            self.close()
            raise StopIteration
        self.recorder.delivered(opened.samples, began)
        self._check_claim()
        return opened.value

    def ready(self) -> bool:
        """Whether `next()` would return, or raise, without waiting; never waits itself."""
        if self._closed or self._ahead is not None or self._error_ahead is not None:
            return True
        try:
            self._ahead = self._source.look()
        except Exception as error:
            self._end_with_source()
            self._error_ahead = error
            return True
        except BaseException:
            self.close()
            raise
        return self._ahead is not None or self._source.finished

    def look_ahead(self) -> bool:
        """Whether `next()` would return, or raise, something else than the end.

        Waits until that is known. What is found is not handed over yet: a state does not count it.

        Raises:
            BatchTimeoutError: as `take` does.
        """
        began = time.perf_counter()
        try:
            while not self.ready():
                self._source.wait(began)
        except Exception:
            self._end_with_source()
            raise
        except BaseException:
            self.close()
            raise
        return self._ahead is not None or self._error_ahead is not None

    def wait_handles(self) -> list[int]:
        """Descriptors of which one can be read, or written, when `ready()` may have changed.

        Each is an end of a pipe. One to write to is among them while an order for a worker
        waits for room in its pipe.
        """
        return [] if self._closed else self._engine.wait_handles()

    def left_s(self, began: float) -> float | None:
        """How much longer a wait may last; see `time_left_s`."""
        return time_left_s(self._settings.timeout_s, began)

    @property
    def is_over(self) -> bool:
        """Whether nothing more is made for it."""
        return self._closed

    @property
    def arena(self) -> Arena | None:
        """The shared memory that its batches come in, if it has any."""
        return self._engine.arena

    @property
    def skipped(self) -> list[SampleError]:
        """The samples that were left out so far, in delivery order."""
        return self._ledger.skipped

    def close(self) -> None:
        """Gives up what is left of the epoch and frees what it used. Twice does no harm."""
        self._closed = True
        self._ahead = None
        self._source.close()
        self._release()

    def _end_with_source(self) -> None:
        """Behind some errors there is no more."""
        if self._source.is_over:
            self.close()

    def _check_claim(self) -> None:
        length, samples = self._settings.claimed_samples, self.recorder.samples
        if length is not None and samples > length and not self._claim_broken:
            self._claim_broken = True
            warnings.warn(texts.longer_than_claimed(length, samples), stacklevel=3)


def _end(
    abandon: Sequence[Callable[[], list[Result]]],
    recorder: StatisticsRecorder,
    release: Callable[[], None],
) -> None:
    recorder.ended()
    for result in [result for each in abandon for result in each()]:
        result.discard()
    release()
