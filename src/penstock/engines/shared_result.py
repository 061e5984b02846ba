"""A worker's batch in the parent, until it is opened."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from penstock.engines.failure import Failure, sample_error
from penstock.engines.protocol import Failures, Opened
from penstock.transport.arena import Arena
from penstock.transport.codec import decode


@dataclass
class SharedResult:
    """A batch that lies in a slot, or in the message itself.

    Attributes:
        arena: whose slot it is.
        body: the message, behind its header.
        slot: the slot's number.
        used: bytes of it that the batch takes; with 0 the slot is not its own any more.
    """

    arena: Arena
    body: memoryview
    slot: int
    used: int

    def open(self) -> Opened:
        """See `penstock.engines.protocol.Result`."""
        root = self.arena.lend(self.slot, self.used) if self.used else None
        value, samples, failures, snapshot = decode(self.body, root)
        return Opened(value, samples, placed(failures) if failures else (), snapshot)

    def discard(self) -> None:
        """See `penstock.engines.protocol.Result`."""
        if self.used:
            self.arena.release(self.slot)


def placed(failures: Iterable[Failure]) -> Failures:
    """Bad samples as a worker has described them, with their places in the batch."""
    return [(failure.place, sample_error(failure)) for failure in failures]
