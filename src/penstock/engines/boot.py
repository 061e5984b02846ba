"""The first thing that a spawned worker runs.

Imports nothing heavy by itself: unpickling the worker's arguments imports this module, and how
torch is imported then is decided here.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Sequence
from multiprocessing import reduction, spawn
from pathlib import Path
from typing import Any

from penstock.engines.lifeline import Reader, hang_on


def run_worker(lifeline: Reader, _main: MainModule | None, *arguments: Any) -> None:
    """Runs `penstock.engines.worker.worker_main`, with the arguments behind these two.

    Args:
        lifeline: before all that may take time to unpickle.
        _main: before all that may need the main module to be unpickled.
        arguments: the worker's.
    """
    # A forked worker has its parent's: signals to the worker would be told to the event loop there.
    signal.set_wakeup_fd(-1)
    hang_on(lifeline)
    _be_first_to_go()
    # Ctrl-C reaches the whole process group; the training process alone answers it. It held the
    # signal back for us while we came up.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    from penstock.engines import preload

    preload.settle()
    from penstock.engines.worker import worker_main

    worker_main(*arguments)


def _be_first_to_go() -> None:
    """Has the kernel's out-of-memory killer choose a worker before the training process.

    It takes the process with the most memory, and that may well be the one with the model, while a
    worker can be replaced (proc_pid_oom_score_adj(5): anybody may raise their own up to 1000).
    """
    # Not Linux, or a sandbox without /proc.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


class MainModule:
    """The program's main module on its way to a spawned process, as an argument of it.

    multiprocessing would have it imported before the first argument arrives.
    """

    def __init__(self) -> None:
        self._whence = {
            key: value
            for key, value in spawn.get_preparation_data("").items()
            if key.startswith("init_main_from_")
        }

    def __reduce__(self) -> tuple[Any, ...]:
        return spawn.prepare, (self._whence,)


class Descriptor:
    """A descriptor on its way to a spawned process, as an argument of it.

    What arrives has a method `detach` that returns the descriptor there.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrive, (reduction.DupFd(self._descriptor),)


class JobOnItsWay:
    """A job's payload on its way to a spawned process, as an argument of it.

    Args:
        payload: the descriptor of the file that it is in.
        files: those of the files beside it.
    """

    def __init__(self, payload: int, files: Sequence[int]) -> None:
        self._payload: Any = Descriptor(payload)
        self._files: list[Any] = [Descriptor(file) for file in files]

    def arrive(self) -> Any:
        """The job, in that process."""
        from penstock.engines.payload import load_payload

        return load_payload(self._payload.detach(), [file.detach() for file in self._files])


def _arrive(duplicate: Any) -> Any:
    return duplicate
