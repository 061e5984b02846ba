"""How worker processes are started, under each start method."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker, spawn
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any

from penstock.errors import OptionError, SerializationError, WorkerStartError
from penstock.transport.channel import Channel

_log = logging.getLogger("penstock")

PRELOAD = "penstock.engines.preload"

# The parent's ends of all pipes to workers, of every loader. A forked child closes them: a worker
# that kept them open would keep its siblings from seeing that the parent is gone.
_parent_ends: weakref.WeakSet[Channel] = weakref.WeakSet()


def keep_from_children(channel: Channel) -> None:
    """Remembers the parent's end of a pipe, for forked children to close."""
    _parent_ends.add(channel)


def _close_parent_ends() -> None:
    for channel in list(_parent_ends):
        channel.close()
    _parent_ends.clear()


# In every child, also those that others fork.
os.register_at_fork(after_in_child=_close_parent_ends)


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
    if server._forkserver_pid is not None:
        return
    # `__main__` is left out: workers need nothing of it that did not travel with the dataset.
    modules = [name for name in server._preload_modules if name != "__main__"]
    if PRELOAD not in modules:
        forkserver.set_forkserver_preload([*modules, PRELOAD])
    with _without_main():
        forkserver.ensure_running()


def start_process(
    context: BaseContext,
    target: Callable[..., None],
    arguments: tuple[Any, ...],
    *,
    name: str,
    needs_main: bool,
) -> BaseProcess:
    """Starts a process.

    Args:
        context: whose start method.
        target: what it runs.
        arguments: for `target`.
        name: the process's name.
        needs_main: whether it has to import the program's main module first.

    Raises:
        SerializationError: the arguments cannot be pickled.
        WorkerStartError: the system would not start it.
    """
    process: BaseProcess = context.Process(  # type: ignore[attr-defined]
        target=target, args=arguments, name=name, daemon=True
    )
    try:
        with interrupts_held(start_method(context)):
            # A forked child has the module already, and would inherit the lock that is held here.
            if needs_main or start_method(context) == "fork":
                process.start()
            else:
                with _without_main():
                    process.start()
    except OSError as error:
        raise WorkerStartError(
            f"worker process {name} could not be started: {error}; lower num_workers, or raise the "
            "limit that it names"
        ) from error
    except (TypeError, AttributeError, RuntimeError, ValueError) as error:
        if start_method(context) == "fork":
            raise
        raise SerializationError(f"cannot be sent to a worker: {error}") from error
    return process


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
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_main_lock = threading.Lock()


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
