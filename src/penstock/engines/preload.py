"""What every worker imports; a fork server does so once, ahead of its workers.

Importing torch makes some hundred thousand objects that stay, and the garbage collector
looks through them again and again meanwhile: switched off, the import takes a tenth less time.
"""

from __future__ import annotations

import gc
import signal

_collects = gc.isenabled()
gc.disable()
# Ctrl-C, while a fork server imports: the training process answers it, and ends the server.
_on_interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)

import penstock.engines.worker  # noqa: E402, F401 - what this module is for

signal.signal(signal.SIGINT, _on_interrupt)


def settle() -> None:
    """Takes what is there for good out of the garbage collector's sight, and switches it on.

    Forked processes then go on sharing these pages, instead of copying them as the
    collector touches each object.
    """
    gc.freeze()
    if _collects:
        gc.enable()


settle()
