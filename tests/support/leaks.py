"""What a test may leave behind: nothing.

A census is taken before and after; what is in the second and not in the first was leaked. Two
helper processes of multiprocessing are not counted, nor the descriptors that lead to them: the
fork server and the resource tracker start with the first process that needs them and serve until
the interpreter exits.
"""

from __future__ import annotations

import gc
import os
import threading
import time
from collections import Counter
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from pathlib import Path

import psutil

SHARED_MEMORY = Path("/dev/shm")
DESCRIPTORS = Path("/proc/self/fd")

_POLL_INTERVAL_S = 0.02


@dataclass(frozen=True)
class Census:
    """What this process holds at one moment.

    Attributes:
        children: every process below this one, as (process id, creation time): ids are reused.
        segments: the names in `/dev/shm`, those of other programs included. What tests in another
            process of the same run hold does not count as leaked.
        descriptors: how many descriptors lead to each target, such as `pipe:[4711]`.
        threads: the identifiers of the threads that are alive.
    """

    children: frozenset[tuple[int, float]]
    segments: frozenset[str]
    descriptors: Counter[str]
    threads: frozenset[int]


def take_census() -> Census:
    """Counts what is held now, after collecting what nobody can reach any more."""
    gc.collect()
    return Census(
        children=frozenset(live_children()),
        segments=frozenset(_segments()),
        descriptors=Counter(_descriptors()),
        threads=frozenset(t.ident for t in threading.enumerate() if t.ident is not None),
    )


def wait_no_leaks(before: Census, timeout_s: float) -> list[str]:
    """Waits until nothing is held that was not held before.

    Letting go is asynchronous (a worker needs a moment to exit), and there is no event common to
    all of it to wait for: so this looks again and again, and returns with the first clean look.

    Args:
        before: the census taken before the test.
        timeout_s: how long to wait before what is left counts as leaked.

    Returns:
        One line for each leak, none if all was given back in time.
    """
    deadline = time.monotonic() + timeout_s
    while (leaks := leaks_between(before, take_census())) and time.monotonic() < deadline:
        time.sleep(_POLL_INTERVAL_S)
    return leaks


def leaks_between(before: Census, after: Census) -> list[str]:
    """One line for each thing that `after` holds and `before` did not."""
    names = {t.ident: t.name for t in threading.enumerate()}
    return [
        *(f"child process {_describe(pid)}" for pid, _ in sorted(after.children - before.children)),
        *(f"name in {SHARED_MEMORY}: {n}" for n in sorted(_ours(after.segments - before.segments))),
        *(
            f"{count} descriptor(s) of {target}"
            for target, count in sorted((after.descriptors - before.descriptors).items())
        ),
        *(f"thread {names.get(i, i)}" for i in sorted(after.threads - before.threads)),
    ]


def live_children() -> list[tuple[int, float]]:
    helpers = {
        getattr(forkserver._forkserver, "_forkserver_pid", None),
        getattr(resource_tracker._resource_tracker, "_pid", None),
    }
    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            if child.pid not in helpers:
                found.append((child.pid, child.create_time()))
        except psutil.NoSuchProcess:  # It ended while being counted.
            continue
    return found


def _segments() -> list[str]:
    return [entry.name for entry in SHARED_MEMORY.iterdir()] if SHARED_MEMORY.is_dir() else []


def _ours(names: frozenset[str]) -> set[str]:
    """Of these names in `/dev/shm`, those that no test in a process beside this one has mapped."""
    if not names or "PYTEST_XDIST_WORKER" not in os.environ:
        return set(names)
    here = psutil.Process()
    mine = {here, *here.children(recursive=True)}
    theirs: set[int] = set()
    for process in psutil.Process(os.getppid()).children(recursive=True):
        if process not in mine:
            theirs |= inodes_mapped_by(process.pid)
    ours = set()
    for name in names:
        try:
            if (SHARED_MEMORY / name).stat().st_ino not in theirs:
                ours.add(name)
        except FileNotFoundError:  # It went while this looked.
            continue
    return ours


def inodes_mapped_by(pid: int) -> set[int]:
    """The files of `/dev/shm` that a process has mapped, also those that lost their names."""
    try:
        lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError, PermissionError):  # It ended.
        return set()
    return {int(line.split()[4]) for line in lines if f" {SHARED_MEMORY}/" in line}


def _descriptors() -> list[str]:
    if not DESCRIPTORS.is_dir():  # Only Linux says where a descriptor leads.
        return []
    helpers = {
        getattr(forkserver._forkserver, "_forkserver_alive_fd", None),
        getattr(resource_tracker._resource_tracker, "_fd", None),
    }
    targets = []
    for descriptor in DESCRIPTORS.iterdir():
        if int(descriptor.name) in helpers:
            continue
        try:
            targets.append(str(descriptor.readlink()))
        except FileNotFoundError:  # The listing's own descriptor, closed since.
            continue
    return targets


def _describe(pid: int) -> str:
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return f"{pid} (ended, never waited for)"
        return f"{pid} ({process.status()}): {' '.join(process.cmdline())}"
    except psutil.NoSuchProcess:
        return f"{pid} (gone since)"
