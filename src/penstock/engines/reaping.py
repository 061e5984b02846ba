"""The end of worker processes: their exit codes, whoever else in the program takes those."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import time
from multiprocessing import connection, forkserver
from multiprocessing.process import BaseProcess
from typing import Any

import psutil

from penstock.engines.parent_ends import disown

_log = logging.getLogger("penstock")

# Of a process whose own nobody can know any more; asyncio's child watchers report the same.
UNKNOWN_EXIT_CODE = 255
# How long a process may take from closing its descriptors to its end.
_LAST_MOMENT_S = 1.0
# How long another thread may take from taking an exit code to noting it.
_NOTING_S = 0.05
# How long it may take until a process is gone whose fork server died, and what is found among the
# arguments of a fork server.
_ORPHAN_S = 5.0
_SERVER = forkserver.__name__


def is_gone(process: BaseProcess) -> bool:
    """Whether a child of this process has ended, whoever holds the pipe that would tell so.

    Of a child of the fork server multiprocessing's own pipe tells.
    """
    if not hasattr(os, "waitid") or not _is_own(process):
        return False
    try:
        ended = os.waitid(os.P_PID, process.pid or 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        # Somebody else has taken its exit code.
        return True
    return ended is not None


def _is_own(process: BaseProcess) -> bool:
    """Whether it is a child of this process: no fork server's, and of no process before a fork."""
    method = getattr(getattr(process, "_popen", None), "method", None)
    return method in ("fork", "spawn") and getattr(process, "_parent_pid", None) == os.getpid()


def reap(process: BaseProcess, patience_s: float) -> int | None:
    """Waits a while for a process to end, and takes its exit code.

    Of a child of this process the kernel says how much memory it had, once, to whoever takes the
    exit code; so that is done here before multiprocessing does it.

    Args:
        process: one of multiprocessing's.
        patience_s: how long to wait for its end.

    Returns:
        The most memory that it ever had resident, in bytes; None: not known, or it goes on.
    """
    deadline = time.monotonic() + patience_s
    if is_gone(process) or connection.wait([process.sentinel], patience_s):
        # A process closes what it has open a moment before it can be waited for.
        deadline = max(deadline, time.monotonic() + _LAST_MOMENT_S)
    popen: Any = getattr(process, "_popen", None)
    if not _is_own(process) or popen.returncode is not None:
        process.join(max(0.0, deadline - time.monotonic()))
        is_of_server = getattr(popen, "method", None) == "forkserver"
        if is_of_server and popen.returncode == UNKNOWN_EXIT_CODE:
            _end_orphan(process, popen)
        return None
    while True:
        try:
            pid, status, usage = os.wait4(popen.pid, os.WNOHANG)
        except ChildProcessError:
            if _is_noted(popen):
                return None
            # Somebody else in this program waits for children that are not theirs. To
            # multiprocessing the process would be running for ever.
            _log.warning(
                "the exit code of %s (pid %d) was taken by somebody else who waits for children of "
                "this process; it is reported as %d",
                process.name,
                popen.pid,
                UNKNOWN_EXIT_CODE,
            )
            popen.returncode = UNKNOWN_EXIT_CODE
            return None
        if pid:
            break
        if time.monotonic() >= deadline:
            return None
        time.sleep(_LAST_MOMENT_S / 1000)
    popen.returncode = os.waitstatus_to_exitcode(status)
    return int(usage.ru_maxrss) * (1 if sys.platform == "darwin" else 1024)


def _is_noted(popen: Any) -> bool:
    """Whether another thread has taken an exit code for multiprocessing.

    Whoever starts a process, or asks which there are, does so for all that have ended.
    """
    deadline = time.monotonic() + _NOTING_S
    while popen.returncode is None and time.monotonic() < deadline:
        time.sleep(_NOTING_S / 50)
    return popen.returncode is not None


def _end_orphan(process: BaseProcess, popen: Any) -> None:
    """Ends a process whose fork server died, if that is so.

    Such a process goes on with what it is at, while to multiprocessing it has ended.
    """
    deadline = time.monotonic() + _ORPHAN_S
    with contextlib.suppress(psutil.Error):
        orphan = psutil.Process(popen.pid)
        # A forked process has the arguments of its server; another may have its number by now.
        if not any(_SERVER in argument for argument in orphan.cmdline()):
            return
        _log.warning("the fork server died; %s (pid %d) goes with it", process.name, popen.pid)
        popen.returncode = -signal.SIGKILL
        orphan.kill()
        # Where nobody takes its exit code, it stays as a zombie, which writes nothing any more.
        while orphan.is_running() and orphan.status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() >= deadline:
                return
            time.sleep(_LAST_MOMENT_S / 1000)


def abandon(process: BaseProcess) -> None:
    """Gives up a process that cannot be ended; the program's own end does not wait for it."""
    _log.error("%s (pid %s) cannot be ended, even by SIGKILL", process.name, process.pid)
    disown(process)
