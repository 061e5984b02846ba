"""How much memory is left before the kernel starts to kill."""

from __future__ import annotations

from pathlib import Path

import psutil

# cgroup v2, then v1: (limit, usage). The usage counts cached files, which could be dropped.
_CGROUP_FILES = (
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)
_CGROUP_ROOT = Path("/sys/fs/cgroup")


def available_bytes() -> int:
    """Memory that can be taken without swapping or being killed, in bytes.

    The smaller of what the machine has available and what the control group (the limit of a
    container) leaves. Shared memory counts against both.
    """
    available = int(psutil.virtual_memory().available)
    left = _cgroup_left_bytes()
    return available if left is None else min(available, left)


def _cgroup_left_bytes() -> int | None:
    for limit_name, usage_name in _CGROUP_FILES:
        try:
            limit = (_CGROUP_ROOT / limit_name).read_text().strip()
            usage = (_CGROUP_ROOT / usage_name).read_text().strip()
        except OSError:
            continue
        if limit.isdigit():
            return max(0, int(limit) - int(usage))
    return None
