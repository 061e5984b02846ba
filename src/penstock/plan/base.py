"""What the run of an epoch, and its scheduler, ask of a plan."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar


class EpochPlan(ABC):
    """A plan that an epoch can be run by; answers as one that keeps nothing besides its batches.

    Attributes:
        is_stream: whether its batches are taken from streams: see `stream_of`.
    """

    is_stream: ClassVar[bool] = False

    @abstractmethod
    def take(self) -> tuple[Sequence[object], int | None] | None:
        """The next batch's indices, and its worker if only one will do; None at the end."""

    def peek(self, count: int) -> Sequence[Sequence[object]]:
        """The indices of the next batches, up to so many, which `take` will give."""
        return ()

    def donated(self, batch: int) -> Sequence[int]:
        """The places in the order whose samples `batch` was given; asked for once."""
        return ()

    def snapshot(self, batch: int) -> bytes | None:
        """The sampler's state behind a batch, packed, once; None if none was kept."""
        return None

    def end_stream(self, stream: int) -> None:
        """Takes no more turns for a stream; only asked of plans of streams."""
        raise NotImplementedError(f"{type(self).__name__} has no stream {stream}")
