"""How many processors this process may use, and why as many."""

from __future__ import annotations

import math
import os
from pathlib import Path

from penstock.transport.groups import Version, control_groups, read_file


def processors_of_rank() -> tuple[int, str]:
    """Return how many of its processors fall to this process, of those that train together.

    torchrun, and Accelerate, tell each process by `LOCAL_WORLD_SIZE` how many there are on its
    machine: https://docs.pytorch.org/docs/stable/elastic/run.html. They divide what all of them may
    use, unless each has been bound to some processors of its own, which shows in that its parent,
    the launcher, may use more.

    Returns:
        The number, at least 1, and what it follows from, as the end of a sentence.
    """
    count = usable_processors()
    plural = "" if count == 1 else "s"
    told = os.environ.get("LOCAL_WORLD_SIZE", "")
    ranks = int(told) if told.isdigit() else 1
    if ranks <= 1 or _is_bound_by_itself():
        return count, f"this process may use {count} processor{plural}"
    return max(1, count // ranks), f"{ranks} processes share {count} processor{plural}"


def _is_bound_by_itself() -> bool:
    if not hasattr(os, "sched_getaffinity"):
        return False
    try:
        return os.sched_getaffinity(0) < os.sched_getaffinity(os.getppid())
    except OSError:
        # The launcher is gone, or hidden.
        return False


def usable_processors() -> int:
    """How many processes of this program can compute at once; at least 1.

    The smaller of the processors that the scheduler may put this process on, and the time that
    its control groups (the limit of a container) allow it. A part of a processor counts as one:
    somebody has to work there.
    """
    count = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    share = group_share()
    return max(1, count if share is None else min(count, math.ceil(share)))


def group_share() -> float | None:
    """Processors that the control groups allow, by the tightest of them; None: all there are."""
    shares = [_share(folder, version) for folder, version in control_groups("cpu")]
    return min((share for share in shares if share is not None), default=None)


def _share(folder: Path, version: Version) -> float | None:
    try:
        if version == 1:
            quota = read_file(folder / "cpu.cfs_quota_us")
            period = read_file(folder / "cpu.cfs_period_us")
        else:
            quota, _, period = read_file(folder / "cpu.max").partition(" ")
    except OSError:
        # The root of v2 has no such file.
        return None
    # Without a limit v1 says -1, and v2 a word.
    if not quota.isdigit() or not period.isdigit() or not int(quota) or not int(period):
        return None
    return int(quota) / int(period)
