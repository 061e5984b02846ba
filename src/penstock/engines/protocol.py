"""What every engine does, and what it reports.

One run of a dataset (`penstock.epoch`) drives one engine from one thread::

    start()                       once; workers begin to get ready
    begin_epoch(start, first)     before the first lease of each epoch; what is left of the
                                  epoch before is dropped, and its replies never come up
    anticipate(guess)             when all of an epoch is made: workers begin the next
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

from penstock.certificate import DeathCertificate
from penstock.errors import SampleError
from penstock.schedule import Death, Fill, Lease
from penstock.transport.arena import Arena

ROUND_S = 0.25
"""How long one may wait at `Engine.wait_handles` before `Engine.poll` has to be asked again."""

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
        seen: what the last sample that was taken looks like; see `likeness`.
        earlier: whether the snapshot is no place in this epoch, but how one has left the dataset.
    """

    pulled: int = 0
    snapshot: bytes | None = None
    snapshot_at: int = 0
    random: bytes | None = None
    seen: int = 0
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
class Guess:
    """What the next epoch is expected to begin with.

    Attributes:
        start: see `EpochStart`.
        batches: the indices of its first batches.
    """

    start: EpochStart
    batches: Sequence[Sequence[object]]


@dataclass(slots=True)
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

    @property
    def size(self) -> int:
        """Bytes of shared memory that it takes."""

    def open(self) -> Opened:
        """The batch. Call it, or `discard`, once."""

    @property
    def count(self) -> int:
        """How many batches it is, of those that were lent together; 0: it is one by itself."""

    def open_all(self) -> list[Opened | Exception]:
        """Those batches, or why one of them cannot be had. Call it instead of `open`."""

    def discard(self) -> None:
        """Gives its memory back unread; once it was opened or discarded, does nothing."""


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
class PartDone(Report):
    """Some samples of a batch are there, to be put together with the others."""

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
class Probed(Report):
    """The samples of a probe were made without harm, and given up."""


@dataclass(slots=True)
class Cramped:
    """No worker can go on: this batch is the first of those that wait for more memory.

    Attributes:
        lease: of it.
        fits: how many batches of its size there is room for.
    """

    lease: Lease
    fits: int


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
        certificate: what is known of it.
        death: what of that the scheduler goes by.
    """

    seat: int
    certificate: DeathCertificate
    death: Death = Death()  # noqa: RUF009 - frozen


Event: TypeAlias = (
    Done | PartDone | Withheld | Failed | Ended | Probed | Cramped | Started | StartFailed | Died
)


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

    def begin_epoch(self, start: EpochStart, first: Sequence[Sequence[object]] = ()) -> int:
        """Opens an epoch.

        Args:
            start: what it begins with.
            first: the indices of its first batches, as many as were anticipated.

        Returns:
            How many of these workers have begun already.
        """

    def anticipate(self, guess: Guess) -> None:
        """Has workers that have nothing to do begin the next epoch, as it is expected to be."""

    @property
    def anticipated(self) -> int:
        """Batches of the next epoch that workers have begun; 0: it has not been anticipated."""

    def ready_seats(self) -> list[int]:
        """Workers that have their dataset since an epoch before; of others comes a `Started`."""

    def submit(self, lease: Lease) -> None:
        """Sends a lease to its worker."""

    def amend(self, lease: Lease, fills: Mapping[int, Fill]) -> None:
        """Answers a `Withheld`."""

    def recall(self, lease: Lease) -> None:
        """Takes a lease back; nothing is reported of it from now on."""

    def rewind(self, seat: int) -> None:
        """Has a worker begin its streams again, behind what was handed over of them.

        It has nothing any more that it was lent. Call it before what has arrived and is not to be
        handed over is discarded.
        """

    def refuse_room(self, lease: Lease) -> None:
        """Tells a worker that waits for memory that there is none: its batch fails."""

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
