"""What every engine does, and what it reports.

One run of a dataset (`penstock.epoch`) drives one engine from one thread::

    start()                       once; workers begin to get ready
    begin_epoch(start)            before the first lease of each epoch; what is left of the
                                  epoch before is dropped, and its replies never come up
    submit / amend / recall       never wait, and may keep the order back until flush()
    flush()                       sends what was kept back, without waiting
    poll(timeout_s)               what was reported since; waits for a first report if asked to,
                                  and then flushes first
    restart(seat)                 after a `Died`; the new worker gets the epoch by itself
    close()                       any time, twice too; afterwards no process is left

A call that fails leaves nothing behind that `close()` would not clear away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from penstock.errors import SampleError
from penstock.schedule import Fill, Lease
from penstock.transport.arena import Arena

Failures: TypeAlias = Sequence[tuple[int, SampleError]]
"""Bad samples with their places in the batch."""


class NothingLeft:
    """Stands for a batch all of whose samples were left out."""

    def __reduce__(self) -> str:
        # By its name, so that it is the same object in every process.
        return "NOTHING_LEFT"


NOTHING_LEFT = NothingLeft()


@dataclass(frozen=True, slots=True)
class StreamStart:
    """Where a stream begins; of a map-style dataset, the state of one copy.

    Attributes:
        pulled: samples to have been taken from it.
        snapshot: the state of its dataset at that place or an earlier one, packed, or None.
        snapshot_at: samples that had been taken from it there.
        random: the states of the process's generators there, packed, or None: as they are.
        earlier: whether the snapshot is no place in this epoch, but how one has left the dataset.
    """

    pulled: int = 0
    snapshot: bytes | None = None
    snapshot_at: int = 0
    random: bytes | None = None
    earlier: bool = False


@dataclass(frozen=True, slots=True)
class EpochStart:
    """What an epoch begins with.

    Attributes:
        seed: what the random numbers of its samples are derived from.
        starts: where streams begin, by number; those that are not in it at their beginning.
            For a map-style dataset the states of its copies, by seat.
        number: the epoch's, for datasets that have `set_epoch`; None: they are not told.
    """

    seed: int
    starts: Mapping[int, StreamStart] = field(default_factory=dict)
    number: int | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """A batch, ready for use.

    Attributes:
        value: the batch, or `NOTHING_LEFT`.
        samples: how many samples are in it.
        failures: the samples that were left out of it.
        snapshot: the state of the copy of the dataset that made it behind it, if that was kept.
    """

    value: Any
    samples: int
    failures: Failures
    snapshot: bytes | None = None


class Result(Protocol):
    """A batch that has arrived and was not opened yet."""

    def open(self) -> Opened:
        """The batch. Call it, or `discard`, once."""

    def discard(self) -> None:
        """Gives its memory back unread."""


@dataclass(slots=True)
class Report:
    """Something that concerns one lease.

    Attributes:
        seat: the worker.
        batch: which lease, with `attempt`.
        attempt: see `batch`.
        busy_s: seconds that the worker worked on it.
        pulled: samples that were taken from its stream up to here, if it is of one.
    """

    seat: int
    batch: int
    attempt: int
    busy_s: float
    pulled: int


@dataclass(slots=True)
class Done(Report):
    """The batch is there."""

    result: Result


@dataclass(slots=True)
class Withheld(Report):
    """The worker keeps the batch until it is told what goes in the places of `failures`.

    Reported once for each time that it comes to that.
    """

    failures: Failures


@dataclass(slots=True)
class Failed(Report):
    """The batch cannot be made."""

    error: BaseException


@dataclass(slots=True)
class Ended(Report):
    """The worker's stream has no more batches."""


@dataclass(slots=True)
class Started:
    """A worker has its dataset ready."""

    seat: int


@dataclass(slots=True)
class StartFailed:
    """A worker could not get its dataset ready, and will not come up."""

    seat: int
    error: BaseException


@dataclass(slots=True)
class Died:
    """A worker is gone, with all that was lent to it.

    Attributes:
        seat: its number.
        cause: its exit code or signal, in words.
        pid: its process id; 0 if that is not known.
    """

    seat: int
    cause: str
    pid: int = 0


Event: TypeAlias = Done | Withheld | Failed | Ended | Started | StartFailed | Died


class Engine(Protocol):
    """Runs leases; see the module's text for who calls what and when."""

    @property
    def seats(self) -> int:
        """How many leases can run at once."""

    @property
    def arena(self) -> Arena | None:
        """The shared memory that batches come in, if it has any."""

    def start(self) -> None:
        """Starts the workers, and waits for none of them."""

    def begin_epoch(self, start: EpochStart) -> None:
        """Opens an epoch."""

    def ready_seats(self) -> list[int]:
        """Workers that have their dataset since an epoch before; of others comes a `Started`."""

    def submit(self, lease: Lease) -> None:
        """Sends a lease to its worker."""

    def amend(self, lease: Lease, fills: Mapping[int, Fill]) -> None:
        """Answers a `Withheld`."""

    def recall(self, lease: Lease) -> None:
        """Takes a lease back; nothing is reported of it from now on."""

    def flush(self) -> None:
        """Sends the orders that were kept back, several to a worker in one message."""

    def poll(self, timeout_s: float | None) -> list[Event]:
        """Reports since the last call.

        Args:
            timeout_s: how long to wait for the first one; 0 not at all, None for ever.
        """

    def wait_handles(self) -> list[int]:
        """Descriptors of which one can be read when `poll` has something to report.

        While an order waits for room in a pipe, one that can be written to is among them.
        """

    def restart(self, seat: int) -> None:
        """Starts a new worker in the place of one that died."""

    def close(self) -> None:
        """Ends all workers and gives all memory back that the user does not hold."""
