"""What the user is told of an epoch: what happened, the likely cause, and what to change."""

from __future__ import annotations

from penstock.engines.protocol import Died
from penstock.schedule import MAX_DEATHS_PER_BATCH, Lease


def died_too_often(death: Died, lease: Lease, *, is_stream: bool) -> str:
    """A batch is given up, since so many workers have died while they worked on it."""
    where = f"batch {lease.batch} with samples {list(lease.indices)!r:.200}"
    if is_stream:
        stream, number = lease.indices
        where = f"batch {number} of the stream of worker {stream}"
    return (
        f"{_in_torchs_words(death)}, the {MAX_DEATHS_PER_BATCH}th to die at {where}. Either "
        "a sample in it crashes it: fetch each in a process of its own, as with python -X "
        "faulthandler. Or the machine runs out of memory: lower num_workers, prefetch_factor or "
        "batch_size"
    )


def never_ready(death: Died, failed_starts: int) -> str:
    """One worker after another dies before it has its dataset."""
    return (
        f"{_in_torchs_words(death)} before its dataset was ready, as did the "
        f"{failed_starts - 1} started before it; try the dataset "
        "with num_workers=0 to see why"
    )


def crash_loop(death: Died, deaths: int, most: int) -> str:
    """More workers have died than are replaced."""
    return (
        f"{_in_torchs_words(death)}; it was the {deaths}th worker to die "
        f"in this epoch, and {most} are replaced at most"
    )


def timed_out(timeout_s: float) -> str:
    """No batch came in time."""
    return (
        f"DataLoader timed out after {timeout_s:g} seconds: no batch came from the "
        "workers. One sample may take that long, or hang; raise timeout, or look at "
        "what the workers do"
    )


def longer_than_claimed(length: int, samples: int) -> str:
    """An iterable dataset gives more than its `__len__` says.

    Begins with the words that torch's loader warns with, which programs match on.
    """
    return (
        f"Length of IterableDataset by its __len__ was reported to be {length} (when "
        f"accessing len(dataloader)), but {samples} samples have been fetched. If the "
        "dataset does not split itself over workers, every worker yields all of it; if it "
        "does, its __len__ must count the samples of all workers"
    )


def _in_torchs_words(death: Died) -> str:
    """A worker's death, as programs look for it that were written for torch's loader."""
    return f"DataLoader worker (pid(s) {death.pid}) exited unexpectedly: {death.cause}"
