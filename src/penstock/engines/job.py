"""What is to be done with a dataset: the same for every engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from penstock.options import SampleErrorMode


@dataclass(frozen=True)
class Job:
    """All that a worker needs to know for its life; it travels there once.

    Attributes:
        dataset: map-style, or an iterable if `stream`.
        seats: how many workers share the work; 0 for the training process itself.
        stream: whether the dataset is iterated rather than indexed.
        collate: makes a batch of a list of samples; where not `batched`, it gets the single
            sample. None keeps the list as it is.
        default_collate: whether `collate` is torch's, so that the batch can be made in
            its slot at once.
        batched: whether a lease is a list of samples to collate, or a single one.
        batch_size: samples a batch of a stream.
        drop_last: whether an incomplete last batch of a stream is left out.
        worker_init_fn: called in each worker with its number, once.
        sample_errors: what to do about a bad sample.
        none_is_error: whether a sample None is a bad one.
        own_randomness: whether each sample has random numbers of its own; if not, a
            worker has one sequence, seeded as torch does.
    """

    dataset: Any
    seats: int
    stream: bool = False
    collate: Callable[[Any], Any] | None = None
    default_collate: bool = False
    batched: bool = True
    batch_size: int = 1
    drop_last: bool = False
    worker_init_fn: Callable[[int], object] | None = None
    sample_errors: SampleErrorMode = "raise"
    none_is_error: bool = True
    own_randomness: bool = True
