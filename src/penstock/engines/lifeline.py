"""What ends a worker whose training process is gone, whatever it is at, and what it has started.

A worker leaves when its pipe of leases ends. But it looks there only between batches, and while C
code holds the interpreter's lock not even a thread could. So the kernel does it: once a pipe has no
writer any more, it sends the reader's owner a signal (fcntl(2): O_ASYNC, F_SETOWN, F_SETSIG), here
SIGKILL. The training process has that writer, and never writes. To ask for a signal at the parent's
death instead (prctl(2): PR_SET_PDEATHSIG) would end workers with the *thread* that started them.

A worker that ends like that ends nobody in its turn. So what it forks, and what multiprocessing
starts for it, hangs on to the same pipe. Other programs that it runs cannot.
"""

from __future__ import annotations

import contextlib
import fcntl
import multiprocessing
import os
import select
import signal
from multiprocessing import reduction
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from typing import Any

_KERNEL_TELLS = hasattr(fcntl, "F_SETSIG")


class Lifeline:
    """The training process's end: while it is open, the worker may live.

    Args:
        context: whose start method.

    Attributes:
        reader: the worker's end, to be closed here once the worker has its own.
    """

    def __init__(self, context: BaseContext) -> None:
        reader, self._writer = context.Pipe(duplex=False)
        self.reader = Reader(reader)

    def let_go(self) -> None:
        """Closes this process's end. Twice does no harm."""
        self._writer.close()


class Reader:
    """The worker's end.

    A process that begins afresh hangs on as soon as it unpickles this: what it unpickles behind it,
    the program's main module or a dataset, may take any time.

    Args:
        connection: the end of the pipe.
    """

    def __init__(self, connection: Connection[Any, Any]) -> None:
        self._connection = connection
        self._legacy: _Legacy | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _reader_at_hand, (self._connection,)

    def fileno(self) -> int:
        """Its descriptor."""
        return self._connection.fileno()

    def close(self) -> None:
        """Closes this process's copy. Twice does no harm."""
        self._connection.close()

    def legacy(self) -> _Legacy:
        """What this process's children get of it; from the first call on this process hangs on."""
        if self._legacy is None:
            # Not closed again, like the pipe of leases, before the process ends.
            descriptor = os.dup(self.fileno())
            # A sandbox may refuse that: a worker then leaves behind what it is at.
            with contextlib.suppress(OSError):
                _sign_up(descriptor)
            _end_if_ended(descriptor)
            self._legacy = _Legacy(descriptor)
        return self._legacy


def _reader_at_hand(connection: Connection[Any, Any]) -> Reader:
    reader = Reader(connection)
    if _KERNEL_TELLS:
        reader.legacy()
    return reader


def hang_on(reader: Reader) -> None:
    """Has this process end at once when nobody holds the other end any more, and its children too.

    Where the system has no such signal, on macOS, it ends behind what it is at.
    """
    if not _KERNEL_TELLS:
        return
    # multiprocessing copies this to every process that it starts here.
    config: dict[str, Any] = getattr(multiprocessing.current_process(), "_config", {})
    config["penstock_lifeline"] = reader.legacy()


class _Legacy:
    """Has the processes that this one starts hang on as well, and those that they start.

    One that is forked does so at once, one that begins afresh when it unpickles this.

    Args:
        descriptor: the reader's end, for as long as this process lives.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._pipe = _identity(descriptor)
        os.register_at_fork(after_in_child=self.claim)

    def __reduce__(self) -> tuple[Any, ...]:
        if not self._is_there():
            return type(None), ()
        return _arrive, (reduction.DupFd(self._descriptor),)

    def claim(self) -> None:
        """Has the process that this was left to hang on."""
        if not self._is_there():
            return
        with contextlib.suppress(OSError):
            # Whom to signal is kept with the open file, which it shares with the process that it
            # comes from. So it opens the pipe once more.
            again = f"/proc/self/fd/{self._descriptor}"
            _sign_up(os.open(again, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        # Only what was open before tells of a writer that was gone before.
        _end_if_ended(self._descriptor)

    def _is_there(self) -> bool:
        """Whether the descriptor is still that pipe: a program may close what it does not know."""
        with contextlib.suppress(OSError):
            return _identity(self._descriptor) == self._pipe
        return False


def _arrive(duplicate: Any) -> _Legacy:
    legacy = _Legacy(duplicate.detach())
    legacy.claim()
    return legacy


def _identity(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def _sign_up(descriptor: int) -> None:
    """Asks the kernel to end this process when a pipe ends."""
    fcntl.fcntl(descriptor, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_ASYNC)


def _end_if_ended(descriptor: int) -> None:
    """Ends this process if the pipe has ended, as it may have before the kernel was asked to."""
    ended = select.poll()
    ended.register(descriptor, 0)
    if ended.poll(0):
        os.kill(os.getpid(), signal.SIGKILL)
