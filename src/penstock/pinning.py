"""Batches in page-locked memory, copied there by a thread while the training loop computes.

    EpochRun ──batches that are ready──> thread: slot → pinned buffer ──> next()

The slot is free again as soon as its batch is copied. The thread does nothing else: workers
are heard, and given work, in the training loop's own thread, as without pinning.
"""

from __future__ import annotations

import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data._utils.pin_memory import pin_memory

from penstock.checkpoint import Mark, Progress
from penstock.epoch import EpochRun
from penstock.errors import ClosedError
from penstock.observe import StatisticsRecorder

# One that the training loop takes next, and one that is copied meanwhile.
COPIES_AHEAD = 2

# A batch, or the error in its place: before the copy, and after it.
_Item = tuple[Any, BaseException | None]


class PinnedRun(Iterator[Any]):
    """An `EpochRun` whose batches arrive in page-locked memory.

    What is pinned, and how, is as in torch: tensors, the collections it knows, and any
    object with a method `pin_memory`.

    Args:
        run: gives the batches.
        device: torch's name of the device type; empty for the current accelerator.
        pin: copies one batch; torch's function unless given.
    """

    def __init__(
        self, run: EpochRun, device: str = "", *, pin: Callable[[Any, Any], Any] = pin_memory
    ) -> None:
        self._run = run
        self._to_pin: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._pinned: queue.SimpleQueue[_Item] = queue.SimpleQueue()
        self._in_flight = 0
        # What each batch in flight adds to the progress, once it is handed over.
        self._marks: deque[list[Mark]] = deque()
        self._over = False
        self._closed = False
        self._thread = threading.Thread(
            target=_copy, args=(self._to_pin, self._pinned, pin, device or None),
            name="penstock-pin-memory", daemon=True,
        )  # fmt: skip
        self._thread.start()
        # The thread holds the queues alone, so that it does not keep a dropped iterator alive.
        self._end = weakref.finalize(self, self._to_pin.put, None)

    def __iter__(self) -> PinnedRun:
        return self

    def __next__(self) -> Any:
        """The next batch, pinned; raises what `EpochRun.__next__` does."""
        if self._closed:
            raise ClosedError("this iterator was closed; iterate the loader again")
        began, waited_s = time.perf_counter(), self.recorder.waited_s
        self._send_ready()
        if not self._in_flight:
            self._send()
        if not self._in_flight:
            self.progress.add(self._run.collect_marks())
            self.progress.finished = True
            raise StopIteration
        batch, error = self._pinned.get()
        self._in_flight -= 1
        self.progress.add(self._marks.popleft())
        if error is not None:
            raise error
        self._send_ready()
        # The run counts its own part of this wait; the whole of it is what the loop felt.
        self.recorder.waited_s = waited_s + time.perf_counter() - began
        return batch

    def __len__(self) -> int:
        """See `EpochRun.__len__`."""
        return len(self._run)

    def ready(self) -> bool:
        """Whether `next()` would return, or raise, without waiting for a worker."""
        return self._in_flight > 0 or self._run.ready()

    def look_ahead(self) -> bool:
        """See `EpochRun.look_ahead`."""
        return self._in_flight > 0 or self._run.look_ahead()

    def wait_handles(self) -> list[int]:
        """See `EpochRun.wait_handles`."""
        return self._run.wait_handles()

    def left_s(self, began: float) -> float | None:
        """See `EpochRun.left_s`."""
        return self._run.left_s(began)

    @property
    def skipped(self) -> list[Any]:
        """See `EpochRun.skipped`."""
        return self._run.skipped

    @property
    def progress(self) -> Progress:
        """What of the epoch was handed over."""
        return self._run.progress

    @property
    def recorder(self) -> StatisticsRecorder:
        """Counts and times of the epoch."""
        return self._run.recorder

    def close(self) -> None:
        """Gives up what is left of the epoch; see `EpochRun.close`."""
        self._closed = True
        self._run.close()
        self._end()
        self._thread.join()

    def _send_ready(self) -> None:
        """Gives the thread what has arrived, without waiting for more."""
        while self._in_flight < COPIES_AHEAD and not self._over and self._run.ready():
            self._send()

    def _send(self) -> None:
        """Gives the thread the next batch, or the error in its place, to come in its turn."""
        item: _Item
        try:
            item = self._run.take(), None
        except StopIteration:
            self._over = True
            return
        except Exception as error:
            item = None, error
        self._marks.append(self._run.collect_marks())
        self._to_pin.put(item)
        self._in_flight += 1


def _copy(
    to_pin: queue.SimpleQueue[_Item | None],
    pinned: queue.SimpleQueue[_Item],
    pin: Callable[[Any, Any], Any],
    device: str | None,
) -> None:
    """The thread."""
    while (item := to_pin.get()) is not None:
        batch, error = item
        if error is None:
            try:
                batch = pin(batch, device)
            except BaseException as failed:
                # Whatever it is, somebody waits for an answer.
                batch, error = None, failed
        pinned.put((batch, error))
        # Nothing may keep the slot while this thread waits for its next batch.
        del item, batch, error
