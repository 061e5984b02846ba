"""Row 13: what the loader takes of the training process."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.data import DataLoader as TorchDataLoader

import penstock
from benchmarks.row import (
    MS_A_BATCH,
    PENSTOCK,
    TORCH,
    Case,
    Contest,
    Contestant,
    Part,
    Row,
    Setting,
    at_most,
)
from benchmarks.timing import warm_loader
from benchmarks.workloads.in_memory import Records, Tensors


def processor_s_a_batch(loader_class: Callable[..., Any], dataset: Any, batches: int) -> float:
    """Seconds of processor time, in this process and all of its threads, for each batch."""
    loader, _ = warm_loader(loader_class, dataset, batches)
    began = time.process_time()
    for _ in loader:
        pass
    return (time.process_time() - began) / batches


def _part(case: Case, make: Callable[[], Any], *, full: int, quick: int) -> Part:
    def prepare(setting: Setting) -> Contest:
        dataset, batches = make(), setting.size(full, quick)

        def contestant(loader_class: Callable[..., Any]) -> Contestant:
            return lambda: {case.name: processor_s_a_batch(loader_class, dataset, batches)}

        return contextlib.nullcontext(
            {TORCH: contestant(TorchDataLoader), PENSTOCK: contestant(penstock.DataLoader)}
        )

    return Part((case,), prepare)


ROW = Row(
    13,
    "processor time of the training process",
    "How much of the training process's own time does the loader take?",
    "Processor time of the process that iterates, all its threads included and its workers not, "
    "over an epoch whose batches it drops.",
    (
        _part(
            Case("uint8 3×224×224", MS_A_BATCH, at_most(1 / 3)),
            lambda: Tensors(torch.uint8),
            full=300,
            quick=60,
        ),
        _part(Case("dicts", MS_A_BATCH, at_most(1 / 3)), Records, full=300, quick=60),
    ),
)
