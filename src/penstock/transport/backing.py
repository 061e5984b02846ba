"""The file that slots lie in: made, grown, mapped, and given back in parts.

On Linux it is a memfd, elsewhere (or when asked for) a temporary file that is unlinked at once. It
has no name, so nothing is left behind when every process is killed, and a small /dev/shm does not
matter. Workers inherit the descriptor.
"""

from __future__ import annotations

import errno
import mmap
import os
import tempfile
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from penstock.certificate import LESS_MEMORY
from penstock.errors import MemoryBudgetError, WireError
from penstock.transport.budget import RESERVE_BYTES
from penstock.transport.memory import available_bytes

Bytes: TypeAlias = npt.NDArray[np.uint8]

# The distance between slots: an upper bound of one batch. A memfd has the whole range of
# file offsets; file systems end sooner (ext4 at 16 TiB).
MEMFD_STRIDE_BYTES = 1 << 40
FILE_STRIDE_BYTES = 1 << 34

# Slots grow in steps, so that batches a little larger than the last one find room. Those that some
# samples of a batch lie in, of which there are many, grow in small ones.
GROWTH_STEP_BYTES = 1 << 20
SMALL_STEP_BYTES = 1 << 16
# Below this, asking how much memory is left costs more than it can save.
CHECKED_GROWTH_BYTES = 8 << 20
# A mapping holds a descriptor, of which a process has about a thousand. In the usual case there
# are fewer slots than this, and each is mapped once.
MOST_MAPPED_SLOTS = 64


def open_backing(*, portable: bool = False) -> tuple[int, int]:
    """Makes the nameless file.

    Args:
        portable: whether to use a temporary file where a memfd could be had.

    Returns:
        The descriptor, and the distance between slots in bytes.
    """
    if not portable and hasattr(os, "memfd_create"):
        try:
            return os.memfd_create("penstock", os.MFD_CLOEXEC), MEMFD_STRIDE_BYTES
        except OSError as error:
            # What old kernels say, and sandboxes that filter calls of the system.
            if error.errno not in (errno.ENOSYS, errno.EPERM):
                raise
    descriptor, path = tempfile.mkstemp(prefix="penstock-")
    os.unlink(path)
    return descriptor, FILE_STRIDE_BYTES


def slot_offset(number: int, stride: int) -> int:
    """Where in the file a slot begins."""
    return (number + 1) * stride


def grow_slot(
    descriptor: int,
    offset: int,
    stride: int,
    held: int,
    needed: int,
    limit: int | None = None,
    step: int = GROWTH_STEP_BYTES,
) -> int:
    """Gives a slot real memory, before anybody writes to it.

    Writing to a page that cannot be had ends a process with SIGBUS, and past the limit of
    the control group with SIGKILL, so the room is claimed, and an error raised, beforehand.

    Args:
        descriptor: the arena's file.
        offset: where the slot begins.
        stride: the most that it can hold.
        held: bytes it has already.
        needed: bytes it has to have.
        limit: bytes it may have, at most; None: as many as it can hold.
        step: what its size is a multiple of, as far as `limit` allows.

    Returns:
        The bytes it has now.

    Raises:
        MemoryBudgetError: there is not that much.
    """
    # An eighth more than asked: batches of images differ by a few percent.
    capacity = -(-(needed + needed // 8) // step) * step
    if needed > stride:
        raise MemoryBudgetError(
            f"one batch needs {needed:,} bytes, and a slot holds at most {stride:,}; "
            "make the batches smaller"
        )
    capacity = max(needed, min(capacity, stride if limit is None else limit))
    if capacity - held >= CHECKED_GROWTH_BYTES:
        left = available_bytes() - RESERVE_BYTES
        if capacity - held > left:
            capacity = needed
        if capacity - held > left:
            raise MemoryBudgetError(
                f"a batch needs {needed - held:,} bytes more of shared memory, and "
                f"{max(0, left):,} are left; {LESS_MEMORY}"
            )
    try:
        claim(descriptor, offset, capacity)
    except OSError as error:
        raise MemoryBudgetError(
            f"{capacity:,} bytes of shared memory for one batch could not be had ({error}); "
            + LESS_MEMORY
        ) from error
    return capacity


def claim(descriptor: int, offset: int, size: int) -> None:
    """Gives a part of the file real memory; an `OSError` if there is none."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, offset, size)
    elif os.fstat(descriptor).st_size < offset + size:  # macOS
        os.ftruncate(descriptor, offset + size)


def read_slot(descriptor: int, offset: int, size: int) -> Bytes:
    """A copy of the first `size` bytes of a slot."""
    copy: Bytes = np.empty(size, np.uint8)
    done = 0
    while done < size:
        read = os.preadv(descriptor, [copy[done:].data], offset + done)
        if not read:
            raise WireError(f"the file ends at {offset + done}, before a batch that it is to hold")
        done += read
    return copy


def map_slot(descriptor: int, offset: int, size: int, *, all_at_once: bool = False) -> Bytes:
    """The first `size` bytes of a slot as an array; unmapped when its last view dies.

    Args:
        descriptor: the arena's file.
        offset: where the slot begins.
        size: bytes to map.
        all_at_once: whether to set up all pages now: it takes a third of the time
            that the faults take by which they would be set up one by one.
    """
    flags = mmap.MAP_SHARED | (getattr(mmap, "MAP_POPULATE", 0) if all_at_once else 0)
    return np.frombuffer(mmap.mmap(descriptor, size, flags=flags, offset=offset), np.uint8)


def empty_slot(descriptor: int, offset: int, size: int) -> bool:
    """Gives the memory of a slot back to the system.

    Args:
        descriptor: the arena's file.
        offset: where the slot begins.
        size: bytes that may have memory.

    Returns:
        Whether the system took it.
    """
    if not hasattr(mmap, "MADV_REMOVE"):
        return False
    try:
        # What lies behind the end of the file, where the last slot may grow to, cannot be mapped.
        length = max(0, min(size, os.fstat(descriptor).st_size - offset))
        with mmap.mmap(descriptor, length, offset=offset) as memory:
            memory.madvise(mmap.MADV_REMOVE)
    except (OSError, ValueError):
        return False
    return True
