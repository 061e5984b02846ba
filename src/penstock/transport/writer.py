"""A worker's side of a slot: room for the parts of one batch."""

from __future__ import annotations

from collections.abc import Callable

from penstock.errors import MemoryBudgetError
from penstock.transport.backing import (
    GROWTH_STEP_BYTES,
    MOST_MAPPED_SLOTS,
    Bytes,
    grow_slot,
    map_slot,
    read_slot,
    slot_offset,
)

# What arrays are aligned to: a cache line, and enough for every vector instruction.
ALIGNMENT_BYTES = 64


class SlotWriter:
    """Hands out room in the slot of the batch that is being made.

    A worker has one for its life. `begin` opens a slot for a batch; then `allocate` may be
    called any number of times; `used` says how far the batch reaches.

    Args:
        descriptor: the arena's file.
        stride: the distance between slots in bytes.

    Attributes:
        ask: asks for so many bytes more of memory, at least, for the slot; returns how many it may
            have in all. Raises `MemoryBudgetError` if there are not so many.
    """

    def __init__(self, descriptor: int, stride: int) -> None:
        self.ask: Callable[[int], int] | None = None
        self._descriptor = descriptor
        self._stride = stride
        self._mapped: dict[int, Bytes] = {}
        # With each mapping itself: once unmapped, its addresses could become another array's.
        self._ranges: list[tuple[int, int, Bytes]] = []
        self._slot = -1
        self._capacity = 0
        self._memory: Bytes | None = None
        # How far a batch may reach that takes neither more memory nor another mapping.
        self._within = -1
        self.used = 0

    @property
    def capacity(self) -> int:
        """Bytes of memory that the slot has now."""
        return self._capacity

    def begin(
        self,
        slot: int,
        capacity: int,
        limit: int | None = None,
        step: int = GROWTH_STEP_BYTES,
    ) -> None:
        """Starts a batch.

        Args:
            slot: the slot's number.
            capacity: bytes of memory that it has.
            limit: how many it may be given without asking; None: any number.
            step: see `grow_slot`.
        """
        self._slot = slot
        self._limit = self._stride if limit is None else limit
        self._step = step
        self._capacity = capacity
        self._memory = None
        self._within = -1
        self._ranges.clear()
        self.used = 0

    def allocate(self, size: int) -> Bytes:
        """Room for `size` bytes, aligned to `ALIGNMENT_BYTES`.

        Raises:
            MemoryBudgetError: there is not that much memory.
        """
        start = -(-self.used // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        end = start + size
        memory = self._memory
        if memory is None or end > self._within:
            memory = self._reach(end)
        self.used = end
        return memory[start:end]

    def copy_of(self, slot: int, used: int) -> Bytes:
        """What lies in the first `used` bytes of another slot, in memory of its own."""
        return read_slot(self._descriptor, slot_offset(slot, self._stride), used)

    def offset_of(self, address: int, size: int) -> int | None:
        """Where in the slot an array lies that was made in it; None if it was not."""
        for start, end, _ in self._ranges:
            if start <= address and address + size <= end:
                return address - start
        return None

    def _reach(self, end: int) -> Bytes:
        offset = slot_offset(self._slot, self._stride)
        if end > self._capacity:
            self._grow(offset, end)
        memory = self._mapped.get(self._slot)
        if memory is None or memory.size < end:
            # Arrays made in the smaller mapping stay valid: it shows the same pages, and lives
            # until they die.
            memory = map_slot(self._descriptor, offset, self._capacity, all_at_once=True)
            self._mapped.pop(self._slot, None)
            self._mapped[self._slot] = memory
            if len(self._mapped) > MOST_MAPPED_SLOTS:
                del self._mapped[next(iter(self._mapped))]
        self._memory = memory
        # A mapping of before may be larger than what the slot still has.
        self._within = min(memory.size, self._capacity)
        address = int(memory.__array_interface__["data"][0])
        self._ranges.append((address, address + memory.size, memory))
        return memory

    def _grow(self, offset: int, end: int) -> None:
        asked = self.ask is None
        while True:
            if end > self._limit and not asked:
                self._limit = self._ask(end)
                asked = True
            try:
                self._capacity = grow_slot(
                    self._descriptor,
                    offset,
                    self._stride,
                    self._capacity,
                    end,
                    self._limit,
                    self._step,
                )
            except MemoryBudgetError:
                # The machine may have less by now than the parent knew.
                if asked or end > self._stride:
                    raise
                self._limit = self._ask(end)
                asked = True
            else:
                return

    def _ask(self, end: int) -> int:
        if self.ask is None:
            return self._stride
        # Where that is refused, the slot has been promised no more than it has.
        self._limit = self._capacity
        return self.ask(end)
