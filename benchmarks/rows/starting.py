"""Rows 9 and 10: how long the loop waits at the beginning of a program, and of an epoch."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable
from typing import Any

from torch.utils.data import DataLoader as TorchDataLoader

import penstock
from benchmarks.programs.running import run
from benchmarks.row import (
    MS,
    PENSTOCK,
    TORCH,
    Case,
    Contest,
    Contestant,
    Figures,
    Part,
    Required,
    Row,
    Setting,
    at_most,
)
from benchmarks.timing import WORKERS
from benchmarks.workloads.sleeping import USUAL_S, Waiting

MANY_PATHS, FEW_PATHS = 1_000_000, 100
# How the library is used is the first argument of the program.
WARMED_UP = "penstock.warm_up()"


def _first_batches(
    method: str,
    paths: int,
    first: Required | None,
    later: Required | None = None,
    *,
    package: str = PENSTOCK,
    in_quick: bool = True,
) -> Part:
    """Time to the first batch: of the first loader of a program, and of those after it."""
    which = f"{method}, {paths:,} paths"
    used = "" if package == PENSTOCK else f", with {package}"
    first_case = Case(f"{which}, first loader{used}", MS, first)
    later_case = Case(f"{which}, later loaders", MS, later)

    def contestant(package: str, loaders: int) -> Contestant:
        def measure() -> Figures:
            first_s, *later_s = run("first_batch", package, method, paths, loaders, count=loaders)
            if later is None:
                return {first_case.name: first_s}
            return {first_case.name: first_s, later_case.name: statistics.median(later_s)}

        return measure

    def prepare(setting: Setting) -> Contest:
        loaders = 1 if later is None else setting.size(4, 2)
        return contextlib.nullcontext(
            {TORCH: contestant(TORCH, loaders), PENSTOCK: contestant(package, loaders)}
        )

    cases = (first_case,) if later is None else (first_case, later_case)
    # Under fork a program takes a second or two, else several.
    quick_rounds = 3 if method == "fork" else 1
    return Part(cases, prepare, quick_rounds=quick_rounds, warms_up=False, in_quick=in_quick)


FIRST_BATCH = Row(
    9,
    "time to the first batch",
    "How long does a loop wait for its first batch?",
    "A program of its own for each figure: from the making of the loader to its first batch of 64, "
    "where the dataset holds paths in a list. Imports before that do not count.",
    (
        _first_batches("fork", MANY_PATHS, at_most(1)),
        _first_batches("spawn", MANY_PATHS, at_most(0.8)),
        _first_batches("forkserver", MANY_PATHS, at_most(0.5), at_most(0.1)),
        _first_batches("fork", FEW_PATHS, at_most(1), in_quick=False),
        _first_batches("spawn", FEW_PATHS, at_most(1), in_quick=False),
        # The first loader waits for one import of torch, as torch's own workers do side by side:
        # docs/decisions/0004. No figure is required of it, unless it was told beforehand.
        _first_batches("forkserver", FEW_PATHS, None, at_most(0.1), in_quick=False),
        _first_batches("forkserver", FEW_PATHS, at_most(0.5), package=WARMED_UP, in_quick=False),
    ),
)


BETWEEN = Case("", MS, at_most(1 / 10))
# Workers are ahead of such a step, as they are where training is not held up by its data.
STEP = 1.25


def wait_between_epochs_s(
    loader_class: Callable[..., Any], batch_size: int, batches: int, epochs: int, **settings: Any
) -> float:
    """Seconds from the end of a step at an epoch's last batch to the next one's first batch."""
    loader = loader_class(
        Waiting(batches * batch_size),
        batch_size=batch_size,
        shuffle=True,
        num_workers=WORKERS,
        persistent_workers=True,
        **settings,
    )
    step_s = STEP * batch_size * USUAL_S / WORKERS
    waits = []
    ended = 0.0
    for epoch in range(epochs + 1):
        is_first = True
        for _ in loader:
            if is_first and epoch:
                waits.append(time.perf_counter() - ended)
            is_first = False
            time.sleep(step_s)
            ended = time.perf_counter()
    return statistics.median(waits)


def _between(setting: Setting) -> Contest:
    batch_size, batches, epochs = setting.size(64, 16), setting.size(12, 8), 4

    def contestant(loader_class: Callable[..., Any], **settings: Any) -> Contestant:
        return lambda: {
            BETWEEN.name: wait_between_epochs_s(
                loader_class, batch_size, batches, epochs, **settings
            )
        }

    return contextlib.nullcontext(
        {
            TORCH: contestant(TorchDataLoader),
            # With a seed the next epoch's order is known while this one still runs.
            PENSTOCK: contestant(penstock.DataLoader, seed=0),
        }
    )


BETWEEN_EPOCHS = Row(
    10,
    "wait between two epochs",
    "Does training stand still where one epoch ends and the next begins?",
    "Persistent workers, shuffled, samples that sleep 1 ms, and steps of 1.25 times the time for a "
    "batch, so that workers are ahead; the time from the end of an epoch's last step to the next "
    "epoch's first batch, the median of four. Penstock with seed=.",
    (Part((BETWEEN,), _between),),
)
