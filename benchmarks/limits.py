"""What the machine can do at all, with no loader."""

from __future__ import annotations

import heapq
import statistics
import time
from collections.abc import Sequence
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch

from benchmarks.timing import BATCH_SIZE, WORKERS


def independent_processes_s(
    dataset: Any, batches: int, collate: Any = None, workers: int = WORKERS
) -> float:
    """Seconds a batch where as many processes each do their share and hand nothing over.

    The share is every `workers`-th batch. The processes wait for each other before they begin; the
    time is that from there to the end of the last one's work.

    Args:
        dataset: makes the samples.
        batches: of BATCH_SIZE samples each.
        collate: the user's own work on a list of samples; None: samples are dropped one by one.
        workers: how many processes.
    """
    context = get_context("fork")
    start, times = context.Barrier(workers), context.SimpleQueue()
    processes = [
        context.Process(
            target=_do_share, args=(dataset, range(part, batches, workers), collate, start, times)
        )
        for part in range(workers)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise RuntimeError("a process of the limit failed; its traceback is above")
    # The monotonic clock is one for all processes of a machine.
    began, ended = zip(*(times.get() for _ in processes), strict=True)
    took_s: float = max(ended) - min(began)
    return took_s / batches


def _do_share(dataset: Any, share: Sequence[int], collate: Any, start: Any, times: Any) -> None:
    torch.set_num_threads(1)
    # What the first sample imports and allocates is not the work.
    dataset[0]
    start.wait()
    began = time.perf_counter()
    for batch in share:
        indices = range(batch * BATCH_SIZE, (batch + 1) * BATCH_SIZE)
        if collate is None:
            for index in indices:
                dataset[index]
        else:
            collate([dataset[index] for index in indices])
    times.put((began, time.perf_counter()))


def copy_s(batch_bytes: int, batches: int) -> float:
    """Seconds in which one core copies a batch from one warm buffer to another."""
    source = np.ones(batch_bytes, np.uint8)
    target = np.zeros(batch_bytes, np.uint8)
    np.copyto(target, source)
    began = time.perf_counter()
    for _ in range(batches):
        np.copyto(target, source)
    return (time.perf_counter() - began) / batches


def one_by_one_s(durations_s: Sequence[float], workers: int) -> float:
    """The time in which workers do jobs, each taking the next one as soon as it has nothing to do.

    Nobody who does not know beforehand how long each takes can do better, but by luck: at the end
    some wait for the last ones (list scheduling; Graham 1966, "Bounds for certain multiprocessing
    anomalies").
    """
    free_at = [0.0] * workers
    for duration_s in durations_s:
        heapq.heapreplace(free_at, free_at[0] + duration_s)
    return max(free_at)


def sleep_s(asked_s: float, times: int) -> float:
    """How long a sleep of `asked_s` takes here: a timer is never early, and always a bit late."""
    took = []
    for _ in range(times):
        began = time.perf_counter()
        time.sleep(asked_s)
        took.append(time.perf_counter() - began)
    return statistics.mean(took)
