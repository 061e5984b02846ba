"""What is known of batches before they are handed over, and the marks they leave when they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from penstock.checkpoint.progress import Mark, StreamMark


class Marks:
    """Collects, for one epoch, what its batches will add to the progress.

    Args:
        in_order: whether batches are handed over in the plan's order; those that turned out to
            hold nothing are then passed by in their turn.
    """

    def __init__(self, *, in_order: bool) -> None:
        self._in_order = in_order
        self._done: list[Mark] = []
        self._skips: dict[int, int] = {}
        self._streams: dict[int, StreamMark] = {}
        self._copies: dict[int, tuple[int, Any]] = {}
        self._emptied: list[int] = []

    def note_skip(self, batch: int) -> None:
        """A sample is left out of a batch."""
        self._skips[batch] = self._skips.get(batch, 0) + 1

    def note_stream(self, batch: int, mark: StreamMark) -> None:
        """This is where its stream stands behind a batch."""
        self._streams[batch] = mark

    def note_snapshot(self, batch: int, seat: int, snapshot: bytes) -> None:
        """This is the state of the dataset, or of a seat's copy of it, behind a batch, packed."""
        mark = self._streams.get(batch)
        if mark is not None:
            self._streams[batch] = replace(mark, snapshot=snapshot)
        else:
            self._copies[batch] = seat, snapshot

    def note_emptied(self, batches: Iterable[int]) -> None:
        """These have turned out to hold nothing."""
        self._emptied += batches

    def pass_by(self, before: int | None) -> None:
        """Passes by what holds nothing: in order, what lies before a batch; None: all of it.

        Out of order, the end of a stream waits for the end of the epoch: it may be known before
        the stream's last batches are handed over.
        """
        if not self._emptied:
            return
        passed, self._emptied = sorted(self._emptied), []
        for batch in passed:
            if before is not None and (
                batch > before if self._in_order else batch in self._streams
            ):
                self._emptied.append(batch)
            else:
                self.hand_over(batch)

    def hand_over(
        self, batch: int, read: int = 0, donated: Sequence[int] = (), sampler: Any = None
    ) -> None:
        """A batch is handed over, or its error; see `Mark`."""
        self._done.append(
            Mark(
                batch,
                # Nearly always there is nothing of these.
                self._skips.pop(batch, 0) if self._skips else 0,
                read,
                donated,
                self._streams.pop(batch, None) if self._streams else None,
                sampler,
                self._copies.pop(batch, None) if self._copies else None,
            )
        )

    def collect(self) -> list[Mark]:
        """The marks since the last call."""
        done, self._done = self._done, []
        return done
