"""How worker processes are started, under each start method."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import (
    forkserver,
    popen_fork,
    reduction,
    resource_tracker,
    spawn,
)
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

from penstock.engines.parent_ends import keep_worker_from_children
from penstock.errors import OptionError, SerializationError, WorkerStartError

_log = logging.getLogger("penstock")

# How long the fork server may take from closing its descriptors to its end.
_LAST_MOMENT_S = 1.0
# No start method opens more at once.
_MOST_PIPES = 4

PRELOAD = "penstock.engines.preload"


def start_method(context: BaseContext) -> str:
    """The name of a context's start method: fork, forkserver or spawn."""
    return str(context.get_start_method())


def named_context(asked: str | BaseContext | None) -> BaseContext | None:
    """The context that a user means: a start method's name, a context, or None.

    Raises:
        OptionError: there is no such start method here.
    """
    if asked is None or isinstance(asked, BaseContext):
        return asked
    known = multiprocessing.get_all_start_methods()
    if asked not in known:
        raise OptionError(
            f"multiprocessing_context={asked!r}: give one of {known}, or a context of "
            "multiprocessing"
        )
    return multiprocessing.get_context(asked)


def forks(asked: BaseContext | None) -> bool:
    """Whether workers are forked, as far as that is known before one is started."""
    return start_method(asked or multiprocessing.get_context()) == "fork"


def choose_context(asked: BaseContext | None, serialises: Callable[[], object]) -> BaseContext:
    """The context to start workers with.

    Args:
        asked: what the user asked for, which is what they get.
        serialises: raises `SerializationError` if the dataset can only be inherited.

    Returns:
        By default multiprocessing's own. Where that is fork and other threads run, forking
        may copy a lock that one of them holds, and a worker would wait for it for ever: then
        the fork server, if the dataset can travel there.
    """
    if asked is not None:
        return asked
    default = multiprocessing.get_context()
    if start_method(default) != "fork" or threading.active_count() == 1:
        return default
    others = [t.name for t in threading.enumerate() if t is not threading.current_thread()]
    try:
        serialises()
    except SerializationError as error:
        warnings.warn(
            f"workers are forked while other threads run ({', '.join(others[:4])}), which can "
            f"deadlock, since {error}. Or start the loader before the threads",
            RuntimeWarning,
            stacklevel=2,
        )
        return default
    _log.info(
        "workers come from a fork server instead of fork, since other threads run: %s",
        ", ".join(others[:4]),
    )
    return multiprocessing.get_context("forkserver")


def warm_up(multiprocessing_context: str | BaseContext | None = None) -> None:
    """Starts the fork server, so that it imports torch while the program goes on.

    A worker of a fork server waits until the server has imported torch, about a second. Each
    loader starts the server when it is made; a program whose first line does so, before it
    imports torch itself, has both imports done at the same time:

        import penstock
        penstock.warm_up("forkserver")
        import torch

    The server is multiprocessing's, one for the whole program. What it imports ahead can
    only be chosen before its start; a server that runs already is used as it is.

    Args:
        multiprocessing_context: the start method that loaders will use, or a context of
            `multiprocessing`; None for the default. There is nothing to do ahead for fork
            and spawn.

    Raises:
        OptionError: there is no such start method here.
    """
    context = named_context(multiprocessing_context) or multiprocessing.get_context()
    if start_method(context) != "forkserver":
        return
    server: Any = forkserver._forkserver
    _forget_foreign(server)
    if server._forkserver_pid is not None:
        return
    # `__main__` is left out: workers need nothing of it that did not travel with the dataset.
    modules = [name for name in server._preload_modules if name != "__main__"]
    if PRELOAD not in modules:
        forkserver.set_forkserver_preload([*modules, PRELOAD])
    with _without_main():
        forkserver.ensure_running()


def _forget_foreign(server: Any) -> None:
    """Forgets a fork server that is no child of this process, which multiprocessing trips over.

    It is that of the process which this one was forked from, or somebody else in the program has
    taken its exit code.
    """
    try:
        if server._forkserver_pid is not None:
            os.waitid(os.P_PID, server._forkserver_pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        # As multiprocessing does with one that has ended.
        with contextlib.suppress(OSError):
            os.close(server._forkserver_alive_fd)
        server._forkserver_address = None
        server._forkserver_alive_fd = None
        server._forkserver_pid = None


def start_process(
    context: BaseContext,
    target: Callable[..., None],
    arguments: tuple[Any, ...],
    *,
    name: str,
) -> BaseProcess:
    """Starts a process; unless it is forked, it does not import the program's main module.

    Args:
        context: whose start method.
        target: what it runs.
        arguments: for `target`.
        name: the process's name.

    Raises:
        SerializationError: the arguments cannot be pickled.
        WorkerStartError: the system would not start it.
    """
    process: BaseProcess = context.Process(  # type: ignore[attr-defined]
        target=target, args=arguments, name=name, daemon=True
    )
    keep_worker_from_children(process)
    with start_errors(f"worker process {name}"), interrupts_held(start_method(context)):
        _check_descriptors()
        try:
            # A forked child has the module already, and would inherit the lock that is held here.
            if start_method(context) == "fork":
                process.start()
            else:
                with _without_main():
                    process.start()
        except Exception as error:
            if _call_of(reduction.dump, error) is not None:
                # Whatever its type, it is not the system's.
                raise SerializationError(f"cannot be sent to a worker: {error}") from error
            _close_lost_pipes(error)
            raise
    return process


def _call_of(function: Callable[..., object], error: BaseException) -> FrameType | None:
    """The call of a function that an exception has come out of."""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code is function.__code__:
            return trace.tb_frame
        trace = trace.tb_next
    return None


def _close_lost_pipes(error: Exception) -> None:
    """Closes the pipes that multiprocessing opens and loses where the system refuses a fork."""
    popen: Any = popen_fork.Popen
    call = _call_of(popen._launch, error)
    names = ("parent_r", "child_w", "child_r", "parent_w")
    if call is None or not all(isinstance(call.f_locals.get(name), int) for name in names):
        return
    ends = [call.f_locals[name] for name in names]
    with contextlib.suppress(OSError):
        # Only what is still those two pipes: another release may close them itself.
        pipes = [os.fstat(end).st_ino for end in ends]
        if pipes[0] == pipes[1] and pipes[2] == pipes[3]:
            for end in ends:
                os.close(end)


def _check_descriptors() -> None:
    """Makes sure that there are as many as starting a process takes.

    Where the limit is reached on the way, multiprocessing loses those that it has opened so far.

    Raises:
        OSError: there are too few descriptors left.
    """
    pipes: list[int] = []
    try:
        for _ in range(_MOST_PIPES):
            pipes += os.pipe()
    finally:
        for descriptor in pipes:
            os.close(descriptor)


@contextmanager
def start_errors(what: str) -> Iterator[None]:
    """Has errors of the system say that something could not be started.

    Raises:
        WorkerStartError: from such an error.
    """
    try:
        yield
    except EOFError as error:
        raise WorkerStartError(
            f"{what} could not be started: the fork server died; see what ended it"
        ) from error
    except OSError as error:
        raise WorkerStartError(
            f"{what} could not be started: {error}; use fewer workers, or raise the limit that it "
            "names"
        ) from error


def server_died() -> bool:
    """Whether the fork server has ended, or does so within a moment: its pipes end before it."""
    server = getattr(forkserver._forkserver, "_forkserver_pid", None)
    deadline = time.monotonic() + _LAST_MOMENT_S
    with contextlib.suppress(ChildProcessError):
        while server is not None and time.monotonic() < deadline:
            if os.waitid(os.P_PID, server, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                return True
            time.sleep(_LAST_MOMENT_S / 1000)
    return False


@contextmanager
def interrupts_held(method: str) -> Iterator[None]:
    """Keeps Ctrl-C from processes that are being started, which do not ignore it yet.

    A child inherits what is held back, until it has said itself that it ignores the signal; this
    process gets it when it is started.

    Args:
        method: the start method.
    """
    if method != "fork":
        # It is started with the first process, and lets go of the signal when it is.
        resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        # This call raises what another thread was sent meanwhile, with the signal held back.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_main_lock = threading.Lock()
_preparation_data = spawn.get_preparation_data


def _open_in_child() -> None:
    """A child that another thread forks meanwhile is without the thread that would put it back."""
    global _main_lock
    if _main_lock.locked():
        _main_lock = threading.Lock()
        spawn.get_preparation_data = _preparation_data


os.register_at_fork(after_in_child=_open_in_child)


@contextmanager
def _without_main() -> Iterator[None]:
    """Starts processes that do not import the program's main module.

    multiprocessing has each new process import it, since the classes in it are
    pickled by name. Ours travel by value, so the import would only cost time, print what the
    program prints, open what it opens, and fail where it lacks its `if __name__ == "__main__"`.
    multiprocessing has no switch for that, so what it tells the new process is changed on
    its way, for this thread alone.
    """
    with _main_lock:
        original = spawn.get_preparation_data
        caller = threading.get_ident()

        def without_main(name: str) -> dict[str, Any]:
            data: dict[str, Any] = original(name)
            if threading.get_ident() == caller:
                data.pop("init_main_from_name", None)
                data.pop("init_main_from_path", None)
            return data

        spawn.get_preparation_data = without_main
        try:
            yield
        finally:
            spawn.get_preparation_data = original
