"""The shared memory of a loader, in slots that are used again and again.

One sparse file holds all slots at fixed distances, so that a slot can grow where it is::

    0         STRIDE         2·STRIDE
    |head|    |slot 0 ....|  |slot 1 .......|          |slot 2 ..|      file offsets
               ^ pages exist only where a batch has been written

The head is for what is not of a batch: see `journal.py`.

The life of a slot, all in the parent, which alone owns the list of free slots::

    free ──acquire──> with a worker ──lend──> with the user ──(last view dies)──> free
                            └───────────────release──────────────────────────────^
"""

from __future__ import annotations

import errno
import os
import weakref
from collections import deque
from collections.abc import Container
from typing import Any

import numpy as np

from penstock.errors import MemoryBudgetError, WireError
from penstock.transport.backing import (
    CHECKED_GROWTH_BYTES,
    GROWTH_STEP_BYTES,
    MOST_MAPPED_SLOTS,
    Bytes,
    claim,
    empty_slot,
    map_slot,
    open_backing,
    read_slot,
    slot_offset,
)
from penstock.transport.budget import Budget
from penstock.transport.closing import Closing

# Where nobody has set a limit, a lease may take this share of what is left without asking.
SHARES = 16


class _Slot:
    """The parent's record of one slot."""

    __slots__ = ("capacity", "guard", "limit", "memory", "seat")

    def __init__(self) -> None:
        self.capacity = 0
        # While it is with a worker: how far the worker may grow it.
        self.limit = 0
        self.seat = -1
        self.memory: Bytes | None = None
        self.guard: weakref.ref[Bytes] | None = None


class Arena:
    """The slots of one loader, as the parent sees them.

    Args:
        most_lent: how many slots may be in the user's hands at once.
        head_bytes: what the head takes.
        budget: how much memory all slots may take, and the copies of what the user keeps.
        portable: see `open_backing`.
    """

    def __init__(
        self,
        *,
        most_lent: int,
        head_bytes: int = 0,
        budget: Budget | None = None,
        portable: bool = False,
    ) -> None:
        self.budget = Budget() if budget is None else budget
        self.descriptor, self.stride = open_backing(portable=portable)
        self._close_file = Closing(self, self.descriptor)
        if head_bytes:
            try:
                claim(self.descriptor, 0, head_bytes)
            except OSError:
                self._close_file()
                raise
        self._most_lent = most_lent
        self._slots: list[_Slot] = []
        self._free: list[int] = []
        self._lent = 0
        self._mapped: deque[int] = deque()
        # Filled by finalizers, which may run inside the garbage collector, at any moment and in
        # any thread: appending to a deque is all that they do, and it takes no lock.
        self._came_back: deque[int] = deque()
        self._copies_gone: deque[int] = deque()
        # Which of the times between two `recover`s it is.
        self.era = 0
        # Bytes of memory that slots have, that workers may give them besides, and of copies.
        self._capacity = 0
        self._promised = 0
        self._copied = 0

    def acquire(self, seat: int) -> tuple[int, int, int]:
        """Takes a free slot for a worker, if possible one that the worker has mapped already.

        Returns:
            The slot's number, the bytes of memory it has, and how many the worker may give it.
        """
        self._collect()
        if not self._free:
            self._slots.append(_Slot())
            self._free.append(len(self._slots) - 1)
        slots = self._slots
        # The one that came back last: most of it may be in a cache.
        own = (number for number in reversed(self._free) if slots[number].seat == seat)
        number = next(own, self._free[-1])
        self._free.remove(number)
        slot = self._slots[number]
        slot.seat = seat
        self._promise(slot, slot.capacity + self.budget.left_roughly() // SHARES)
        return number, slot.capacity, slot.limit

    def limit_of(self, number: int) -> int:
        """How far the worker that has a slot may grow it, in bytes."""
        return self._slots[number].limit

    def grant(self, number: int, needed: int, *, spare: int = 0) -> int:
        """Lets a worker give its slot more memory, if there is so much.

        Args:
            number: the slot.
            needed: bytes that its batch takes, at least.
            spare: bytes that are to be left for others.

        Returns:
            The bytes that it may have now; 0: fewer than are needed.
        """
        slot = self._slots[number]
        self._promise(slot, slot.capacity)
        wanted = needed - slot.capacity + spare
        if wanted > self.budget.left(self._taken):
            self._collect()
            for free in self._free:
                self._empty(free)
        left = self.budget.left(self._taken)
        if wanted > left:
            return 0
        # As much more as a growing slot takes in one step.
        self._promise(
            slot, min(slot.capacity + left - spare, needed + needed // 8 + GROWTH_STEP_BYTES)
        )
        return slot.limit

    def fits(self, size: int) -> int:
        """How many batches of a size there is room for, besides what the user keeps; at least 1."""
        self._collect()
        kept = self._copied + sum(slot.capacity for slot in self._slots if slot.guard is not None)
        whole = self.budget.left(self._taken) + self._taken - kept
        return max(1, whole // max(1, size))

    def can_spare(self, slots: int) -> bool:
        """Whether a limit leaves room for a batch beside so many slots that are taken for later.

        Each batch that is handed over may need as much for a copy, and then gives its slot back.
        """
        if self.budget.total is None:
            return True
        self._collect()
        # Any of the free ones may be taken, and nothing is given to them without asking.
        free = sorted(self._slots[number].capacity for number in self._free)
        left = self.budget.left(self._taken) + sum(free[: max(0, len(free) - slots)])
        return left >= max((slot.capacity for slot in self._slots), default=0)

    def refusal(self, number: int, needed: int) -> str:
        """Why a slot cannot have what its batch needs."""
        self._collect()
        kept = self._copied + sum(slot.capacity for slot in self._slots if slot.guard is not None)
        left = self.budget.left(self._taken) + self._slots[number].capacity
        return (
            f"one batch needs {needed:,} bytes of shared memory, at least, and {left:,} are left "
            f"of {self.budget}, with {kept:,} taken by batches that the program keeps (loops keep "
            "one until it has the next); keep fewer, raise memory_budget, or lower a DataLoader's "
            "batch_size"
        )

    def release(self, number: int) -> None:
        """Takes back a slot that was not lent to the user."""
        self._free.append(number)

    def release_lost(self, number: int) -> None:
        """Takes back a slot of a worker that died: how much memory it has is not known."""
        self._reset(number)
        self._free.append(number)

    def _reset(self, number: int) -> None:
        slot = self._slots[number]
        limit = slot.limit
        self._promise(slot, slot.capacity)
        if limit > slot.capacity:
            self._empty(number, limit)

    def recover(self, with_workers: Container[int]) -> None:
        """Takes back the slots that nobody has, between two epochs.

        Ctrl-C may end anything between two steps: a slot is then with nobody, or not counted as it
        is. Only a slot that a worker may write to, or that the user has, is none that is free.

        Args:
            with_workers: slots that workers may write to.
        """
        self._collect()
        self.era += 1
        known = set(self._free)
        self._free = [
            number
            for number, slot in enumerate(self._slots)
            if slot.guard is None and number not in with_workers
        ]
        self._lent = sum(slot.guard is not None for slot in self._slots)
        self._capacity = sum(slot.capacity for slot in self._slots)
        self._promised = sum(max(0, slot.limit - slot.capacity) for slot in self._slots)
        for number in self._free:
            if number not in known:
                self._reset(number)

    def note_capacity(self, number: int, capacity: int) -> None:
        """A worker has given its slot so much memory, and will ask before it gives it more.

        Raises:
            WireError: more than it may. Whoever believed that would read memory that is not there.
        """
        slot = self._slots[number]
        if capacity > max(slot.capacity, slot.limit):
            raise WireError(f"it says slot {number} has {capacity} bytes, which it cannot have")
        self._promise(slot, slot.capacity)
        if capacity > slot.capacity:
            self._capacity += capacity - slot.capacity
            slot.capacity = capacity

    def _promise(self, slot: _Slot, limit: int) -> None:
        """Sets how far the worker that has a slot may grow it."""
        self._promised += max(0, limit - slot.capacity) - max(0, slot.limit - slot.capacity)
        slot.limit = limit

    @property
    def _taken(self) -> int:
        """Bytes that are taken, or may be at any moment."""
        return self._capacity + self._promised + self._copied

    def _empty(self, number: int, size: int = 0) -> None:
        """Gives the memory of a free slot back to the system, where the system takes it."""
        slot = self._slots[number]
        size = max(size, slot.capacity)
        if size and empty_slot(self.descriptor, slot_offset(number, self.stride), size):
            self._capacity -= slot.capacity
            slot.capacity = slot.limit = 0
            slot.memory = None

    def lend(self, number: int, used: int) -> Bytes:
        """The user's view of a filled slot, which comes back by itself when its last view dies.

        While the user keeps as many slots as may be lent, a private copy is handed out in its
        place and the slot is free at once: never overwritten, never waited for.

        The slot's life hangs on the returned array, the root of all views: a finalizer on a
        tensor would fire too early, since `.detach()`, `.numpy()` or a view made under
        `inference_mode` outlive the tensor object and share only this array with it.

        Args:
            number: the slot.
            used: bytes that the batch takes.
        """
        slot = self._slots[number]
        memory = slot.memory
        if memory is None or memory.size < used:
            offset = slot_offset(number, self.stride)
            try:
                memory = map_slot(self.descriptor, offset, slot.capacity)
            except OSError as error:
                try:
                    if error.errno not in (errno.EMFILE, errno.ENFILE):
                        raise
                    # A mapping of Python's keeps a descriptor of its own, of which the program may
                    # have too few; a copy does without.
                    return self._keep_count(read_slot(self.descriptor, offset, used))
                finally:
                    self._free.append(number)
            except ValueError as error:
                # What may be so large need not be: the worker has said what is not true.
                self._free.append(number)
                raise WireError(f"slot {number} is smaller than a worker said: {error}") from error
            slot.memory = memory
            self._mapped.append(number)
            if len(self._mapped) > MOST_MAPPED_SLOTS:
                # Views keep their mapping; a slot without any is mapped again when it is used.
                self._slots[self._mapped.popleft()].memory = None
        self._collect()
        if self._lent >= self._most_lent:
            try:
                return self._copy(memory, used)
            finally:
                # Only now: the memory of free slots may be given back.
                self._free.append(number)
        # A new object each time, over the mapping itself: numpy hands views the nearest base
        # that is an array, which has to be this one.
        root: Bytes = np.frombuffer(memory.base, np.uint8, count=used)  # type: ignore[arg-type]
        came_back, owner = self._came_back.append, os.getpid()

        def on_last_view_gone(_: weakref.ref[Any]) -> None:
            if os.getpid() == owner:
                came_back(number)

        slot.guard = weakref.ref(root, on_last_view_gone)
        self._lent += 1
        return root

    def peek(self, number: int, used: int) -> Bytes:
        """A view of a filled slot that nobody keeps: it is good until the slot is lent, or free."""
        slot = self._slots[number]
        if slot.memory is not None and slot.memory.size >= used:
            return slot.memory[:used]
        return map_slot(self.descriptor, slot_offset(number, self.stride), used)

    def _copy(self, memory: Bytes, used: int) -> Bytes:
        if used >= CHECKED_GROWTH_BYTES or self.budget.total is not None:
            self._check_copy(used)
        return self._keep_count(memory[:used].copy())

    def _keep_count(self, copy: Bytes) -> Bytes:
        """Counts a private copy for as long as it lives."""
        self._copied += copy.size
        gone = weakref.finalize(copy, self._copies_gone.append, copy.size)
        gone.atexit = False
        return copy

    def _check_copy(self, used: int) -> None:
        if used <= self.budget.left(self._taken):
            return
        for free in self._free:
            self._empty(free)
        left = self.budget.left(self._taken)
        if used > left:
            raise MemoryBudgetError(
                f"the batches that the program keeps take {self._copied + used:,} bytes with this "
                f"one, and {left:,} are left of {self.budget}; keep fewer, or what you need of them"
            )

    @property
    def lent(self) -> int:
        """Slots that are in the user's hands."""
        self._collect()
        return self._lent

    @property
    def capacity_bytes(self) -> int:
        """Shared memory that the slots have taken."""
        return self._capacity

    def close(self) -> None:
        """Gives the memory back, save for what the user still holds."""
        self._close_file()
        self.descriptor = -1
        for slot in self._slots:
            slot.memory = None

    def _collect(self) -> None:
        while self._came_back:
            # From here on it is not the user's, and found by `recover` if this is broken off.
            self._slots[self._came_back[0]].guard = None
            number = self._came_back.popleft()
            self._free.append(number)
            self._lent -= 1
        while self._copies_gone:
            self._copied -= self._copies_gone.popleft()
