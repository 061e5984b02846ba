"""How a worker's C library keeps memory for the next sample."""

from __future__ import annotations

import ctypes

# Parameters of `mallopt` (mallopt(3)).
_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3
# The largest that glibc takes on 64-bit machines; a decoded picture is far below it.
FROM_HEAP_BELOW_BYTES = 32 << 20
# Freed memory at the end of the heap beyond this goes back to the system.
KEPT_BYTES = 128 << 20


def keep_freed_memory() -> None:
    """Lets the memory of one sample be used again for the next.

    By default glibc takes each array above 128 KiB from the system and gives it back when it is
    freed, so that each sample faults its pages in anew: for photographs that cost 5 % of the time.
    With another C library nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, FROM_HEAP_BELOW_BYTES)
        mallopt(_TRIM_THRESHOLD, KEPT_BYTES)
