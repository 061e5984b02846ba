"""Penstock in place of torch's loader: on and off.

Nothing is imported for it. Where torch is not there yet, its class is changed as soon as it
is: a program may have to set up its environment before it imports torch.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib.abc
import importlib.machinery
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType, TracebackType
from typing import Any

from penstock.takeover.account import Account
from penstock.takeover.report import Report

_HOME = "torch.utils.data.dataloader"

_lock = threading.RLock()
# Replaced as a whole, so that it is read without the lock.
_in_force: tuple[Takeover, ...] = ()
_ours: weakref.WeakSet[Callable[..., Any]] = weakref.WeakSet()


class Takeover(contextlib.AbstractContextManager["Takeover"]):
    """One call of `install`; as a context manager, penstock is withdrawn at the block's end.

    Args:
        summary: whether a summary is written to standard error when it is withdrawn, or at the
            end of the program.
    """

    def __init__(self, *, summary: bool = False) -> None:
        self._account = Account()
        self._summary = summary
        self._owner = os.getpid()
        if summary:
            atexit.register(self._write_summary)

    def report(self) -> Report:
        """What became of the loaders so far; as text, the summary."""
        return self._account.report()

    def uninstall(self, *, quietly: bool = False) -> None:
        """Withdraws this call of `install`; others stay in force. Twice does no harm.

        Args:
            quietly: whether to leave out the summary, if one was asked for.
        """
        global _in_force
        with _lock:
            if self not in _in_force:
                return
            _in_force = tuple(each for each in _in_force if each is not self)
            if not _in_force:
                _withdraw()
        if self._summary:
            atexit.unregister(self._write_summary)
            if not quietly:
                self._write_summary()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Withdraws it, also where the block raised."""
        self.uninstall()

    def _write_summary(self) -> None:
        # A forked child has its own account from the parent's, and leaves this to it.
        if os.getpid() != self._owner or sys.stderr is None:
            return
        with contextlib.suppress(OSError, ValueError):
            _write(self.report())


def install(*, summary: bool = False) -> Takeover:
    """Runs every `torch.utils.data.DataLoader` of the program by penstock.

    Those that were made before too, from their next epoch on, and those of classes derived from
    it, whatever name it was imported by. What penstock cannot do, or refuses, is done by
    torch as before; a warning in the log says so, once for each line and reason. A process that is
    forked has it as well; one that is spawned, or is another program, has not.

    Args:
        summary: whether to write a summary to standard error when it is withdrawn, or at the end
            of the program.

    Returns:
        What tells of it (`report()`) and withdraws it (`uninstall()`, or the end of a `with`
        block). Each call has its own; penstock stays until the last is withdrawn.
    """
    global _in_force
    with _lock:
        takeover = Takeover(summary=summary)
        _in_force = (*_in_force, takeover)
        module = sys.modules.get(_HOME)
        if module is not None and hasattr(module, "DataLoader"):
            _change(module.DataLoader)
        elif _watcher not in sys.meta_path:
            sys.meta_path.insert(0, _watcher)
        return takeover


def uninstall() -> None:
    """Gives all loaders back to torch, however often `install` was called; without it, nothing.

    An epoch that penstock has begun it ends as well.
    """
    for takeover in reversed(_in_force):
        takeover.uninstall()


# How torch's class is changed.


def _change(torch_class: Any) -> None:
    for name, exchanged in (("__init__", _noting), ("__iter__", _iterating)):
        method = vars(torch_class)[name]
        if not any(each in _ours for each in _unwrapped(method)):
            function = exchanged(method)
            _ours.add(function)
            setattr(torch_class, name, function)


def _withdraw() -> None:
    if _watcher in sys.meta_path:
        sys.meta_path.remove(_watcher)
    module = sys.modules.get(_HOME)
    if module is None or not hasattr(module, "DataLoader"):
        return
    for name in ("__init__", "__iter__"):
        method = vars(module.DataLoader)[name]
        # One that somebody else has wrapped since stays where it is, and only hands on.
        if method in _ours:
            setattr(module.DataLoader, name, method.__wrapped__)
    if "penstock.takeover.stand_in" in sys.modules:
        from penstock.takeover import stand_in

        stand_in.let_go()


def _unwrapped(method: Any) -> Iterator[Any]:
    while method is not None:
        yield method
        method = getattr(method, "__wrapped__", None)


def _noting(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        original(self, *args, **kwargs)
        if _in_force:
            from penstock.takeover import stand_in

            stand_in.note(self, _accounts())

    return __init__


def _iterating(original: Callable[[Any], Iterator[Any]]) -> Callable[[Any], Iterator[Any]]:
    @functools.wraps(original)
    def __iter__(self: Any) -> Iterator[Any]:  # noqa: N807
        if not _in_force:
            return original(self)
        from penstock.takeover import stand_in

        return stand_in.begin(self, original, _accounts())

    return __iter__


def _accounts() -> list[Account]:
    return [takeover._account for takeover in _in_force]


class _Watcher(importlib.abc.MetaPathFinder):
    """Waits for torch's class to be imported."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Finds it as the others do, and has it changed once it is there."""
        if fullname != _HOME:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(fullname, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _ChangingLoader(spec.loader)
                return spec
        return None


class _ChangingLoader(importlib.abc.Loader):
    """Executes a module as its own loader does, and changes the class in it.

    Args:
        loader: the module's own.
    """

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """As the module's own loader does."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """As the module's own loader does, which is the one that the module knows."""
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        with _lock:
            if _in_force:
                _change(vars(module)["DataLoader"])
            if _watcher in sys.meta_path:
                sys.meta_path.remove(_watcher)


_watcher = _Watcher()


def _write(report: Report) -> None:
    """Writes a summary to standard error, with its title in bold on a terminal."""
    title, *rest = report.lines()
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR"):
        title = f"\x1b[1m{title}\x1b[0m"
    sys.stderr.write("\n".join([title, *rest]) + "\n")
    sys.stderr.flush()
