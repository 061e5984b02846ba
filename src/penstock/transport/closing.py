"""Descriptors that are closed at the latest when what holds them goes."""

from __future__ import annotations

import os
import weakref


class Closing:
    """Closes a descriptor once: when it is called, or else when the descriptor's owner goes.

    Owners are closed in their turn by whoever ends a loader, and Ctrl-C may end that half way.
    Where a process is forked, its copy of an owner that goes closes nothing: by then the number may
    be that of another file.

    Args:
        owner: what holds it.
        descriptor: its number.
    """

    def __init__(self, owner: object, descriptor: int) -> None:
        self._descriptor = descriptor
        self._final = weakref.finalize(owner, _close_where_opened, descriptor, os.getpid())
        self._final.atexit = False

    def __call__(self) -> None:
        """Closes it. Twice does no harm."""
        if self._final.detach() is not None:
            os.close(self._descriptor)


def _close_where_opened(descriptor: int, process: int) -> None:
    if os.getpid() == process:
        os.close(descriptor)
