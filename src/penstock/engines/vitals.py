"""What a living worker takes of the machine, looked at from outside."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import NamedTuple

import psutil

_NO_FILES = ("/dev/", "/memfd:", "/proc/")


class Vitals(NamedTuple):
    """One look.

    Attributes:
        rss_bytes: memory resident.
        peak_rss_bytes: the most that it ever was; None: the system does not say.
        descriptors: open ones.
    """

    rss_bytes: int
    peak_rss_bytes: int | None
    descriptors: int | None


def look_at(pid: int) -> Vitals | None:
    """Looks at a process; None if it is not there any more."""
    try:
        status = _status(pid)
    except FileNotFoundError:
        return _look_by_psutil(pid)
    except OSError:
        return None
    if "VmRSS" not in status:
        # It has died, and nobody has been told its exit code yet.
        return None
    descriptors = None
    with contextlib.suppress(OSError):
        descriptors = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    return Vitals(status["VmRSS"], status.get("VmHWM"), descriptors)


def has_opened(pid: int) -> bool:
    """Whether a process has files or sockets open that this one has not; True if nobody knows."""
    try:
        ours = _open_files("self")
        return any(file not in ours for file in _open_files(str(pid)))
    except OSError:
        return True


def _open_files(process: str) -> set[str]:
    """What a process's descriptors lead to, but for pipes, memory, and devices."""
    found = set()
    for entry in Path(f"/proc/{process}/fd").iterdir():
        # One of them is that of the folder, which is closed by now.
        with contextlib.suppress(FileNotFoundError):
            target = str(entry.readlink())
            if target.startswith(("/", "socket:")) and not target.startswith(_NO_FILES):
                found.add(target)
    return found


def _status(pid: int) -> dict[str, int]:
    """What Linux says of a process's memory, in bytes."""
    lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {words[0][:-1]: int(words[1]) << 10 for words in lines if words[-1:] == ["kB"]}


def _look_by_psutil(pid: int) -> Vitals | None:
    try:
        process = psutil.Process(pid)
        return Vitals(int(process.memory_info().rss), None, process.num_fds())
    except (psutil.Error, OSError):
        return None
