"""Rows 1 to 4: samples that are in memory, so that the loader is all that costs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch.utils.data import DataLoader as TorchDataLoader

import penstock
from benchmarks.limits import copy_s
from benchmarks.row import (
    LEAST_ROUNDS,
    LIMIT,
    MS_A_BATCH,
    PENSTOCK,
    TORCH,
    Case,
    Contestant,
    Part,
    Row,
    Setting,
    at_least,
)
from benchmarks.timing import BATCH_SIZE, seconds_a_batch
from benchmarks.workloads.in_memory import Pictures, Records, Scalars, Tensors, keep

# 256 MB in samples of 3×224×224 float32: 255.9 MB.
LARGE_BATCH_SIZE = 425


def epochs(
    case: Case, make: Callable[[], Any], full: int, quick: int, **loader: Any
) -> Callable[[Setting], contextlib.AbstractContextManager[Mapping[str, Contestant]]]:
    """Whole epochs of both loaders; against the copy rate of one core, if the case asks for it.

    Args:
        case: what is measured.
        make: makes the dataset.
        full: batches in a full run.
        quick: batches in quick mode.
        loader: further arguments of both loaders.
    """

    @contextlib.contextmanager
    def prepare(setting: Setting) -> Iterator[Mapping[str, Contestant]]:
        dataset, batches = make(), setting.size(full, quick)

        def contestant(loader_class: Callable[..., Any]) -> Contestant:
            return lambda: {case.name: seconds_a_batch(loader_class, dataset, batches, **loader)}

        contestants = {
            TORCH: contestant(TorchDataLoader),
            PENSTOCK: contestant(penstock.DataLoader),
        }
        if case.limit:
            batch_bytes = dataset.sample_bytes * loader.get("batch_size", BATCH_SIZE)
            contestants[LIMIT] = lambda: {case.name: copy_s(batch_bytes, batches)}
        yield contestants

    return prepare


def _part(
    case: Case,
    make: Callable[[], Any],
    *,
    full: int,
    quick: int,
    quick_rounds: int = LEAST_ROUNDS,
    **loader: Any,
) -> Part:
    prepare = epochs(case, make, full, quick, **loader)
    return Part((case,), prepare, quick_rounds=quick_rounds)


_LIMIT = "The limit is the copy rate of one core: a batch, from one warm buffer to another."

SCALARS = Row(
    1,
    "scalar samples",
    "What does a loader cost where samples cost nothing?",
    "Ints, collated to a tensor.",
    (_part(Case("", MS_A_BATCH, at_least(20)), Scalars, full=3000, quick=800),),
)
UINT8 = Row(
    2,
    "uint8 3×224×224",
    "How fast do decoded images come across?",
    f"Tensors in memory, stacked. {_LIMIT}",
    (
        _part(
            Case("", MS_A_BATCH, at_least(6), at_least(0.7)),
            lambda: Tensors(torch.uint8),
            full=300,
            quick=60,
        ),
    ),
)
FLOAT32 = Row(
    3,
    "float32 3×224×224",
    "How fast do large batches come across?",
    f"Tensors in memory, stacked: in batches of 64, and in batches of 256 MB. {_LIMIT}",
    (
        _part(
            Case("batches of 64", MS_A_BATCH, at_least(3.5), at_least(0.7)),
            lambda: Tensors(torch.float32),
            full=150,
            quick=24,
        ),
        _part(
            Case("batches of 256 MB", MS_A_BATCH, at_least(3.5), at_least(0.7)),
            lambda: Tensors(torch.float32),
            full=24,
            quick=4,
            quick_rounds=3,
            batch_size=LARGE_BATCH_SIZE,
        ),
    ),
)
STRUCTURES = Row(
    4,
    "structures",
    "How fast do samples come across that are no tensors?",
    "Dicts of NumPy arrays, strings and ints, collated by the default function; and PIL images of "
    "224×224, which the user's collate function leaves as they are.",
    (
        _part(
            Case("dicts", MS_A_BATCH, at_least(4)),
            Records,
            full=300,
            quick=80,
        ),
        _part(
            Case("PIL images", MS_A_BATCH, at_least(4)),
            Pictures,
            full=150,
            quick=24,
            collate_fn=keep,
        ),
    ),
)
