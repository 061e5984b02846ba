"""What a worker writes to stderr, kept until it is known how the worker ended.

A worker's descriptor 2 is a file in memory without a name, of which the parent keeps a copy:

    worker: native code, Python, faulthandler ──> file ──> parent: shows it on its own stderr
                                                      └──> and, of a dead worker, quotes the end

What libraries written in C say before they give up goes to the descriptor and nowhere else, so it
is caught there. A file takes whatever is written at once, however much that is, and keeps it over
the death of its writer; a pipe does neither. The parent shows it when it looks after its workers,
which it does several times a second while the training loop waits for a batch.

The stacks that faulthandler writes into the same file are for the certificate, and not shown.
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import mmap
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

from penstock.transport.closing import Closing

# Of what a worker wrote, the last of it is quoted.
_QUOTED_LINES = 20
_QUOTED_BYTES = 8192
# What was shown is given back in pieces of this size.
_PIECE_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 16
_OUR_FOLDER = f'File "{Path(__file__).parent}{os.sep}'
# How faulthandler, and the interpreter itself, begin when they end the process.
_FATAL = re.compile(rb"^Fatal Python error: ", re.MULTILINE)

# How faulthandler's list of what is loaded begins.
_MODULES = "Extension modules: "


class LastWords:
    """One worker's stderr, as the parent sees it.

    Args:
        descriptor: the file that it goes to; negative: none, and nothing of it is known here.
    """

    def __init__(self, descriptor: int = -1) -> None:
        self.descriptor = descriptor
        self._close_file = Closing(self, descriptor) if descriptor >= 0 else None
        self._shown = 0
        self._given_back = 0
        # From here on it is stacks, which are not shown.
        self._stack_from: int | None = None

    @classmethod
    def open(cls) -> LastWords:
        """Those of a worker that is about to be started.

        Where there are no files in memory, the worker's stderr is the parent's.
        """
        descriptor = -1
        if hasattr(os, "memfd_create"):
            with contextlib.suppress(OSError):
                descriptor = os.memfd_create("penstock-stderr", os.MFD_CLOEXEC)
                # Of the file, and so of the worker's descriptor too.
                fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_RDWR | os.O_APPEND)
        return cls(descriptor)

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return os.fstat(self.descriptor).st_size if self.descriptor >= 0 else 0

    def expect_stacks(self) -> None:
        """What comes from now on was asked for, and is not shown."""
        self.show()
        self._stack_from = self.size

    def show(self) -> None:
        """Writes what is new to this process's stderr."""
        size = self.size
        while self._shown < size and self._stack_from is None:
            chunk = os.pread(self.descriptor, _CHUNK_BYTES, self._shown)
            if self._shown + len(chunk) < size:
                # Whole lines: the words that are looked for are not to be cut in two.
                chunk = chunk[: chunk.rfind(b"\n") + 1] or chunk
            if (fatal := _FATAL.search(chunk)) is not None:
                self._stack_from = self._shown + fatal.start()
                chunk = chunk[: fatal.start()]
            _write_out(chunk)
            self._shown += len(chunk)
        self._give_back()

    def stack(self) -> str:
        """The stacks that faulthandler has written last; nothing if it has not."""
        self.show()
        if self._stack_from is None:
            return ""
        text = self._read(self._stack_from, self._stack_from + 2 * _QUOTED_BYTES)
        # Which modules of C are loaded takes a screen, and is no part of a stack.
        lines = [line for line in text.splitlines() if not line.startswith(_MODULES)]
        return "\n".join(_without_our_frames(lines)).strip()

    def lines(self) -> str:
        """The last lines before that."""
        self.show()
        text = self._read(max(0, self._shown - _QUOTED_BYTES), self._shown)
        return "\n".join(text.splitlines()[-_QUOTED_LINES:])

    def close(self) -> None:
        """Shows the rest and lets go. Twice does no harm."""
        if self.descriptor >= 0:
            self.show()
            self.let_go()

    def let_go(self) -> None:
        """Closes the file, in a process that is not to show it."""
        if self._close_file is not None:
            self._close_file()
        self.descriptor = -1

    def _read(self, begin: int, end: int) -> str:
        if self.descriptor < 0:
            return ""
        return os.pread(self.descriptor, end - begin, begin).decode(errors="replace")

    def _give_back(self) -> None:
        """Frees the memory of what was shown, but for what may be quoted."""
        keep = (self._shown - _QUOTED_BYTES) // _PIECE_BYTES * _PIECE_BYTES
        length = keep - self._given_back
        if length <= 0 or not hasattr(mmap, "MADV_REMOVE"):
            return
        with (
            contextlib.suppress(OSError),
            mmap.mmap(self.descriptor, length, offset=self._given_back) as piece,
        ):
            piece.madvise(mmap.MADV_REMOVE)
            self._given_back = keep


def _without_our_frames(lines: list[str]) -> list[str]:
    """Stacks, each up to where the code of the user's was called from ours."""
    kept: list[str] = []
    reached = False
    for line in lines:
        if not line.startswith("  "):
            reached = False
        elif _OUR_FOLDER in line:
            reached = True
        if not reached:
            kept.append(line)
    return kept


def _write_out(chunk: bytes) -> None:
    """To this process's stderr, whatever becomes of it there."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        # What this process itself has said before comes before. A daemon may have no stderr.
        sys.stderr.flush()
    with contextlib.suppress(OSError):
        while chunk:
            chunk = chunk[os.write(2, chunk) :]


# The worker's side.

# What nobody else uses: the runtime's threads take the first two of the real-time signals.
STACK_SIGNAL: Any = getattr(signal, "SIGRTMAX", 0) and signal.SIGRTMAX - 1


def record(descriptor: int) -> None:
    """Has all that this process writes to stderr go to a file from now on, with crashes' stacks."""
    if descriptor < 0:
        return
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.flush()
    os.dup2(descriptor, 2)
    os.close(descriptor)
    faulthandler.enable(file=2, all_threads=True)
    if STACK_SIGNAL:
        faulthandler.register(STACK_SIGNAL, file=2, all_threads=True, chain=False)
