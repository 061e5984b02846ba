"""The first thing that a spawned worker runs.

Imports nothing heavy by itself: unpickling the worker's arguments imports this module, and how
torch is imported then is decided here.
"""

from __future__ import annotations

import signal
from multiprocessing import reduction
from typing import Any


def run_worker(*arguments: Any) -> None:
    """Runs `penstock.engines.worker.worker_main`."""
    # Ctrl-C reaches the whole process group; the training process alone answers it. It held the
    # signal back for us while we came up.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    from penstock.engines import preload

    preload.settle()
    from penstock.engines.worker import worker_main

    worker_main(*arguments)


class Descriptor:
    """A descriptor on its way to a spawned process, as an argument of it.

    What arrives has a method `detach` that returns the descriptor there.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrive, (reduction.DupFd(self._descriptor),)


def _arrive(duplicate: Any) -> Any:
    return duplicate
