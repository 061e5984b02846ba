"""Batches that several workers make: what may be, and what travels from one to another."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from penstock.checkpoint import has_state
from penstock.engines.job import Job

# What reads the same in every process, and is no more than it shows.
_PLAIN = frozenset({int, float, complex, bool, str, bytes, type(None)})
_DEPTH = 8


def may_split(job: Job) -> bool:
    """Whether the samples of one batch may come from several workers.

    That must not show. A stream's come one behind another, as do random numbers in one sequence;
    a dataset with a state is left otherwise by other samples; and one that fetches many at once is
    to be asked once.
    """
    return (
        not job.stream
        and job.batched
        and job.seats > 1
        and job.own_randomness
        and not has_state(job.dataset)
        and getattr(job.dataset, "__getitems__", None) is None
    )


def is_plain(sample: Any, depth: int = _DEPTH) -> bool:
    """Whether a sample is the same behind a pipe, for whatever collates it."""
    kind = type(sample)
    if kind in _PLAIN:
        return True
    if kind is torch.Tensor:
        return (
            sample.layout is torch.strided
            and sample.device.type == "cpu"
            and not (sample.requires_grad or sample.is_quantized or sample.is_nested)
            # What a program has hung on it would stay behind.
            and not sample.__dict__
        )
    if kind is np.ndarray:
        return not sample.dtype.hasobject
    if isinstance(sample, np.generic):
        return not isinstance(sample, (np.object_, np.void))
    if depth == 0:
        return False
    if kind in (list, tuple):
        return all(is_plain(part, depth - 1) for part in sample)
    return kind is dict and all(
        type(key) in _PLAIN and is_plain(part, depth - 1) for key, part in sample.items()
    )
