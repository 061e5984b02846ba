"""What the training process alone may hold of its workers: forked children let go of it.

A child that kept these ends of pipes open, a worker or another, would keep workers from seeing that
the training process is gone. One that kept the workers themselves would end them when it leaves:
multiprocessing has each process end those in its list, and a fork copies the list.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess

from penstock.engines.last_words import LastWords
from penstock.engines.lifeline import Lifeline
from penstock.transport.channel import Channel

# How long a fork may wait for another thread that opens such ends, which takes a moment. One that
# waited for ever could do so for a thread that waits for it.
_FORK_S = 1.0

# The parent's ends of all pipes to workers, of every loader, and its copies of their stderr.
_ends: weakref.WeakSet[Channel | LastWords | Lifeline] = weakref.WeakSet()
# And the workers.
_workers: weakref.WeakSet[BaseProcess] = weakref.WeakSet()
_opening = threading.RLock()


@contextmanager
def forks_held() -> Iterator[None]:
    """Keeps other threads from forking while ends are opened that are not known here yet."""
    with _opening:
        yield


def keep_from_children(end: Channel | LastWords | Lifeline) -> None:
    """Remembers what is the parent's alone, for forked children to close."""
    _ends.add(end)


def keep_worker_from_children(process: BaseProcess) -> None:
    """Remembers a process that is about to be started, for forked children not to end it."""
    _workers.add(process)


def disown(process: BaseProcess) -> None:
    """Has multiprocessing neither end nor wait for a process when this one leaves."""
    children: set[BaseProcess] = getattr(multiprocessing.process, "_children", set())
    children.discard(process)


def _before_fork() -> None:
    _opening.acquire(timeout=_FORK_S)


def _behind_fork() -> None:
    # It may have waited in vain.
    with contextlib.suppress(RuntimeError):
        _opening.release()


def _in_child() -> None:
    global _opening
    # The thread that had it, if another did, is not here.
    _opening = threading.RLock()
    for process in list(_workers):
        disown(process)
    _workers.clear()
    for end in list(_ends):
        # The program may have closed what it does not know; the others count none the less.
        with contextlib.suppress(OSError):
            end.close() if isinstance(end, Channel) else end.let_go()
    _ends.clear()


# In every child, also those that others fork.
os.register_at_fork(before=_before_fork, after_in_parent=_behind_fork, after_in_child=_in_child)
