"""A worker's batch in the parent, until it is opened."""

from __future__ import annotations

from penstock.engines.failure import placed
from penstock.engines.protocol import Opened
from penstock.transport.arena import Arena
from penstock.transport.codec import decode


class SharedResult:
    """A batch that lies in a slot, or in the message itself.

    Args:
        arena: whose slot it is.
        body: the message, behind its header.
        slot: the slot's number.
        used: bytes of it that the batch takes; with 0 the slot is not its own any more.

    Attributes:
        settled: whether it was opened or discarded.
        random: with a snapshot, the states of its worker's generators, packed, or None.
    """

    __slots__ = ("_arena", "_body", "_decoded", "_slot", "_snapshot", "_used", "random", "settled")

    def __init__(self, arena: Arena, body: memoryview, slot: int, used: int) -> None:
        self._arena = arena
        self._body = body
        self._slot = slot
        self._used = used
        # What a look at its snapshot has found, for `open`: a slot can be lent only once.
        self._decoded: Opened | Exception | None = None
        self._snapshot: bytes | None = None
        self.random: bytes | None = None
        self.settled = False

    def open(self) -> Opened:
        """See `penstock.engines.protocol.Result`."""
        self.settled = True
        decoded, self._decoded = self._decoded, None
        if decoded is None:
            decoded = self._decode()
        elif isinstance(decoded, Exception):
            raise decoded
        self._snapshot = decoded.snapshot
        return decoded

    def discard(self) -> None:
        """See `penstock.engines.protocol.Result`."""
        self.settled = True
        if self._decoded is None and self._used:
            self._arena.release(self._slot)
        self._decoded = None

    def snapshot(self) -> bytes | None:
        """The dataset's state behind the batch; None without one, or if given up unread."""
        if not self.settled and self._decoded is None:
            try:
                self._decoded = self._decode()
                self._snapshot = self._decoded.snapshot
            except Exception as error:
                self._decoded = error
        return self._snapshot

    def _decode(self) -> Opened:
        root = self._arena.lend(self._slot, self._used) if self._used else None
        value, samples, failures, snapshot, self.random = decode(self._body, root)
        return Opened(value, samples, placed(failures) if failures else (), snapshot)
