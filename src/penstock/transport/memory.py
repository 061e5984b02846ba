"""How much memory there is, how much is left, and whether the kernel has killed for want of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil

from penstock.transport.groups import control_groups, read_file


class _Names(NamedTuple):
    """How a version of control groups calls things."""

    limit: str
    usage: str
    # What the usage consists of. Files that were read stay cached as long as nobody needs the
    # memory, so that reading a dataset fills any group up to its limit: they are no usage.
    stat: str
    cached: tuple[str, str]
    # Where the kernel says how often it has killed for the limit.
    events: str


_V2 = _Names(
    limit="memory.max",
    usage="memory.current",
    stat="memory.stat",
    cached=("inactive_file", "active_file"),
    events="memory.events",
)
_V1 = _Names(
    limit="memory.limit_in_bytes",
    usage="memory.usage_in_bytes",
    stat="memory.stat",
    # Without the prefix it is what the group itself has, without the groups within.
    cached=("total_inactive_file", "total_active_file"),
    events="memory.oom_control",
)
_MACHINES_EVENTS = Path("/proc/vmstat")


def available_bytes() -> int:
    """Memory that can be taken without swapping or being killed, in bytes.

    The smaller of what the machine has available and what the control group (the limit of a
    container) leaves. Shared memory counts against both.
    """
    available = int(psutil.virtual_memory().available)
    level = group_level()
    return available if level is None else min(available, max(0, level[1] - level[0]))


def memory_level() -> tuple[int, int]:
    """Bytes used and bytes that there are: of the control group, or else of the machine."""
    level = group_level()
    if level is not None:
        return level
    machine = psutil.virtual_memory()
    return int(machine.total - machine.available), int(machine.total)


def group_level() -> tuple[int, int] | None:
    """Bytes used and allowed in the control group that has the least left; None: no limit.

    Cached files do not count as used.
    """
    tightest: tuple[int, int] | None = None
    for folder, names in _groups():
        try:
            limit, usage = read_file(folder / names.limit), read_file(folder / names.usage)
        except OSError:
            continue
        # v1 writes a number beyond any memory where there is no limit, v2 a word.
        if not limit.isdigit() or int(limit) >= 1 << 60:
            continue
        cached = sum(_counted(folder / names.stat, name) or 0 for name in names.cached)
        level = max(0, int(usage) - cached), int(limit)
        if tightest is None or level[1] - level[0] < tightest[1] - tightest[0]:
            tightest = level
    return tightest


def out_of_memory_kills() -> dict[Path, int]:
    """How many processes the kernel has killed for want of memory, by each file that counts them.

    Those of the control groups that this process is in, and of the whole machine. One kill is
    counted by its group, by those above, and by the machine, or by some of them, as the kernel's
    version has it.
    """
    files = [folder / names.events for folder, names in _groups()]
    counts = {file: _counted(file, "oom_kill") for file in [*files, _MACHINES_EVENTS]}
    return {file: count for file, count in counts.items() if count is not None}


class RecentKills:
    """The kernel's kills for want of memory that a death just now may have been one of.

    A kill is counted a moment before the process is gone. So one is recent until the second look
    after it that has found all workers alive.
    """

    def __init__(self) -> None:
        self._past = self._last_look = out_of_memory_kills()

    def look(self) -> None:
        """Called every second or so, while all workers live."""
        self._past, self._last_look = self._last_look, out_of_memory_kills()

    def take(self) -> int:
        """How many there are; one of them was this death, and the next may be another."""
        counts = out_of_memory_kills()
        recent = {
            file: max(0, count - self._past.get(file, count)) for file, count in counts.items()
        }
        self._past = self._last_look = {
            file: count - max(0, recent[file] - 1) for file, count in counts.items()
        }
        # The most that one file has counted: they count the same kills.
        return max(recent.values(), default=0)


def _groups() -> Iterator[tuple[Path, _Names]]:
    """This process's control groups for memory, from its own up to the root."""
    for folder, version in control_groups("memory"):
        yield folder, _V1 if version == 1 else _V2


def _counted(file: Path, name: str) -> int | None:
    try:
        lines = read_file(file).splitlines()
    except OSError:
        return None
    for line in lines:
        key, _, value = line.partition(" ")
        if key == name and value.strip().isdigit():
            return int(value)
    return None
