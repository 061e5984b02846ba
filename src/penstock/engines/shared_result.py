"""A worker's batch in the parent, until it is opened."""

from __future__ import annotations

import contextlib

from penstock.engines.bundles import split
from penstock.engines.failure import placed
from penstock.engines.protocol import Opened
from penstock.errors import ClosedError, WireError
from penstock.transport.arena import Arena
from penstock.transport.backing import Bytes
from penstock.transport.codec import decode


class SharedResult:
    """A batch that lies in a slot, or in the message itself.

    Args:
        arena: whose slot it is.
        body: the message, behind its header.
        slot: the slot's number.
        used: bytes of it that the batch takes; with 0 the slot is not its own any more.
        count: see `penstock.engines.protocol.Result`.

    Attributes:
        settled: whether it was opened or discarded.
        random: with a snapshot, the states of its worker's generators, packed, or None.
    """

    __slots__ = (
        "_arena",
        "_body",
        "_era",
        "_slot",
        "_snapshot",
        "_used",
        "count",
        "random",
        "settled",
    )

    def __init__(
        self, arena: Arena, body: memoryview, slot: int, used: int, count: int = 0
    ) -> None:
        self._arena = arena
        # Between two epochs the arena takes back what nobody has come for, this one's slot too.
        self._era = arena.era
        self._body = body
        self._slot = slot
        self._used = used
        self.count = count
        self._snapshot: bytes | None = None
        self.random: bytes | None = None
        self.settled = False

    @property
    def size(self) -> int:
        """See `penstock.engines.protocol.Result`."""
        return self._used

    @property
    def slot(self) -> int | None:
        """The slot that it lies in; None if in the message, or if it was opened or discarded."""
        return self._slot if self._used and not self.settled else None

    def carry_over(self) -> None:
        """Has it belong to the epoch that begins, for which its slot is kept."""
        self._era = self._arena.era

    def open(self) -> Opened:
        """See `penstock.engines.protocol.Result`."""
        self.settled = True
        root = self._arena.lend(self._in_its_era(), self._used) if self._used else None
        opened = self._decode(self._body, root)
        self._snapshot = opened.snapshot
        return opened

    def open_all(self) -> list[Opened | Exception]:
        """See `penstock.engines.protocol.Result`.

        Each has memory of its own: whoever keeps one would keep them all.
        """
        memory = self._arena.peek(self._in_its_era(), self._used) if self._used else None
        opened: list[Opened | Exception] = []
        try:
            for body in split(self._body, self.count):
                try:
                    opened.append(self._decode(body, memory, copies=True))
                except Exception as error:
                    opened.append(error)
        except WireError as error:
            opened = [error] * self.count
        self.discard()
        return opened

    def discard(self) -> None:
        """See `penstock.engines.protocol.Result`."""
        if self.settled:
            return
        self.settled = True
        if self._used and self._era == self._arena.era:
            self._arena.release(self._slot)

    def hand_on(self) -> tuple[int, int, bytes]:
        """Where it lies, for another worker to read it: the slot, bytes of it, and the message.

        From here on the slot is the caller's.
        """
        slot = self._in_its_era() if self._used else -1
        self.settled = True
        return slot, self._used, bytes(self._body)

    def snapshot(self) -> bytes | None:
        """The dataset's state behind the batch; None without one, or if given up unread."""
        if not self.settled and self._snapshot is None:
            # What is wrong with the batch is told where it is opened. It is not lent for this: it
            # would count as one that the program keeps.
            with contextlib.suppress(Exception):
                root = self._arena.peek(self._in_its_era(), self._used) if self._used else None
                self._snapshot = self._decode(self._body, root).snapshot
        return self._snapshot

    def _in_its_era(self) -> int:
        """The slot, which is its own as long as its epoch lasts."""
        if self._era != self._arena.era:
            raise ClosedError("this batch is of an epoch that was closed; iterate it again")
        return self._slot

    def _decode(self, body: memoryview, root: Bytes | None, *, copies: bool = False) -> Opened:
        made = decode(body, root, copies=copies)
        try:
            value, samples, failures, snapshot, self.random = made
            return Opened(value, int(samples), placed(failures) if failures else (), snapshot)
        except (TypeError, ValueError, AttributeError) as error:
            raise WireError(f"a worker sent {type(made).__name__} where a batch belongs") from error
