"""Row 8: samples of which a few take a hundred times as long as the others."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch.utils.data import DataLoader as TorchDataLoader

import penstock
from benchmarks.limits import one_by_one_s, sleep_s
from benchmarks.row import (
    LIMIT,
    MS_A_BATCH,
    PENSTOCK,
    TORCH,
    Case,
    Contest,
    Contestant,
    Part,
    Row,
    Setting,
    at_least,
    at_most,
)
from benchmarks.timing import BATCH_SIZE, seconds_a_batch, warm_loader
from benchmarks.workloads.sleeping import SLOW_S, USUAL_S, Stragglers

WORKERS = 8
# How much longer than a batch takes on average the step of the second consumer is.
STEP = 1.25

RATE = Case("a consumer that never waits", MS_A_BATCH, at_least(1.2), at_least(0.95))
LOST = Case("time lost waiting, with a step of 1.25 × the mean", MS_A_BATCH, at_most(1 / 4))


def ideal_s(dataset: Stragglers) -> float:
    """Seconds for all samples by eight workers that hand nothing over: see `one_by_one_s`.

    The durations are those that the two sleeps have here, not those that they are asked for.
    """
    usual, slow = sleep_s(USUAL_S, 100), sleep_s(SLOW_S, 2)
    return one_by_one_s([slow if it else usual for it in dataset.is_slow], WORKERS)


def lost_s_a_batch(
    loader_class: Callable[..., Any], dataset: Any, batches: int, step_s: float
) -> float:
    """Seconds that a training loop waits in `next()` for each batch, with steps of `step_s`."""
    loader, _ = warm_loader(loader_class, dataset, batches, num_workers=WORKERS)
    waited = 0.0
    began = time.perf_counter()
    for _ in loader:
        waited += time.perf_counter() - began
        time.sleep(step_s)
        began = time.perf_counter()
    return waited / batches


def _rate(setting: Setting) -> Contest:
    batches = setting.size(256, 24)
    dataset = Stragglers(batches * BATCH_SIZE)

    def contestant(loader_class: Callable[..., Any]) -> Contestant:
        return lambda: {
            RATE.name: seconds_a_batch(loader_class, dataset, batches, num_workers=WORKERS)
        }

    return contextlib.nullcontext(
        {
            TORCH: contestant(TorchDataLoader),
            PENSTOCK: contestant(penstock.DataLoader),
            LIMIT: lambda: {RATE.name: ideal_s(dataset) / batches},
        }
    )


@contextlib.contextmanager
def _lost(setting: Setting) -> Iterator[Mapping[str, Contestant]]:
    batches = setting.size(1024, 24)
    dataset = Stragglers(batches * BATCH_SIZE)
    step_s = STEP * ideal_s(dataset) / batches

    def contestant(loader_class: Callable[..., Any]) -> Contestant:
        return lambda: {LOST.name: lost_s_a_batch(loader_class, dataset, batches, step_s)}

    yield {TORCH: contestant(TorchDataLoader), PENSTOCK: contestant(penstock.DataLoader)}


ROW = Row(
    8,
    "stragglers",
    "Does one slow sample hold up the others?",
    f"{WORKERS} workers; a sample sleeps 1 ms, and one in a hundred 100 ms. Order is kept and "
    f"prefetch_factor left unset. (a) The loop only takes batches; the limit is {WORKERS} that "
    "take the next sample as soon as they have none, with sleeps as long as they are here. (b) Its "
    "step sleeps 1.25 times as long as that is for a batch, and what counts is the time in next().",
    # The first batch has a slow sample, and of few batches that is most of what is lost.
    (Part((RATE,), _rate), Part((LOST,), _lost, judged_in_quick=False)),
)
