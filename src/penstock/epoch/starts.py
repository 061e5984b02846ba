"""Where an epoch begins that may have been begun before."""

from __future__ import annotations

from penstock.checkpoint import Progress
from penstock.engines.protocol import StreamStart


def starts_of(progress: Progress, seats: int) -> dict[int, StreamStart]:
    """Where the streams of an epoch go on, or in which states copies of a map-style dataset do.

    Args:
        progress: how far the epoch has come before.
        seats: workers there are now.
    """
    if progress.copies:
        # There may be other workers now. Which samples came from whom is not the same either.
        states = [progress.copies[seat % len(progress.copies)] for seat in range(seats)]
        return {seat: StreamStart(snapshot=state) for seat, state in enumerate(states)}
    return {
        number: StreamStart(stream.pulled, stream.snapshot, stream.snapshot_at)
        for number, stream in enumerate(progress.streams)
        if stream.pulled and not stream.ended
    }
