"""What is to be done with a dataset: the same for every engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from penstock.collate import add_functions, programs_functions
from penstock.options import SampleErrorMode


@dataclass(frozen=True)
class Job:
    """All that a worker needs to know for its life; it travels there once.

    Attributes:
        dataset: map-style, or an iterable if `stream`.
        seats: how many workers share the work; 0 for the training process itself.
        stream: whether the dataset is iterated rather than indexed.
        streams: how many streams it is then read in, which is how many workers it is told of: 0
            for one stream without a worker, None for one for each seat.
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
        sample_timeout_s: how long one sample may take; None: any time.
        snapshot_every: of how many batches one has the state of a dataset that can tell it sent
            along; 0 for none.
        own_randomness: whether each sample has random numbers of its own; if not, a
            worker has one sequence, seeded as torch does.
    """

    dataset: Any
    seats: int
    stream: bool = False
    streams: int | None = None
    collate: Callable[[Any], Any] | None = None
    default_collate: bool = False
    batched: bool = True
    batch_size: int = 1
    drop_last: bool = False
    worker_init_fn: Callable[[int], object] | None = None
    sample_errors: SampleErrorMode = "raise"
    none_is_error: bool = True
    own_randomness: bool = True
    snapshot_every: int = 0
    sample_timeout_s: float | None = None

    def __getstate__(self) -> dict[str, Any]:
        """What a worker that inherits nothing does not have: also the program's collate map."""
        return {"job": self.__dict__, "collate_functions": programs_functions()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        add_functions(state["collate_functions"])
        self.__dict__.update(state["job"])

    @property
    def stream_count(self) -> int:
        """Streams by number of worker; 0: one stream, and no worker."""
        return self.seats if self.streams is None else self.streams

    def streams_of(self, seat: int | None) -> list[int]:
        """The streams that a seat reads; None: the training process reads all of them."""
        every = max(1, self.seats) if seat is not None else 1
        return list(range(seat or 0, max(1, self.stream_count), every))

    def owns_stream(self, seat: int) -> bool:
        """Whether a worker reads the stream that bears its number, and no other."""
        return self.stream_count > 0 and self.streams_of(seat) == [seat]
