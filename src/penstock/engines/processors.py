"""How many processors this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

from penstock.transport.groups import Version, control_groups, read_file


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
