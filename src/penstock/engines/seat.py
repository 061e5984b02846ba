"""A worker's place: the process in it and the two pipes to that process.

    take ──> leases, replies ──> hang_up ──> end
                   └── it died ──> final_frames ──> hang_up ──> end ──> take: another one

The engine decides when; nothing here waits for a worker but `end`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from multiprocessing import connection
from multiprocessing.process import BaseProcess

from penstock.engines.last_words import LastWords
from penstock.engines.lifeline import Lifeline
from penstock.engines.reaping import abandon, reap
from penstock.transport.channel import Channel
from penstock.transport.frames import Frame

# How long a worker may take to leave once its pipe has ended: what it computes at the time
# is not wanted any more. Then SIGTERM, and after as long again SIGKILL.
LEAVE_S = 0.5
# How long it may take to be gone after SIGKILL, which takes effect once the kernel can.
KILL_S = 5.0


class Seat:
    """The place of one worker; the worker in it changes when one dies.

    Args:
        number: which seat.

    Attributes:
        process: the worker, until `end`.
        channel: the parent's ends of its pipes, until `hang_up`.
        ready: whether the worker has its dataset.
        words: what the worker, or the last one, writes to stderr.
        peak_rss_bytes: the most memory that the last worker had resident, if the system told.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: BaseProcess | None = None
        self.channel: Channel | None = None
        self.ready = False
        self.words = LastWords()
        self.peak_rss_bytes: int | None = None
        self._lifeline: Lifeline | None = None

    def take(
        self, process: BaseProcess, channel: Channel, words: LastWords, lifeline: Lifeline
    ) -> None:
        """Puts a worker in it that was started."""
        self.words.close()
        self.process, self.channel, self.words = process, channel, words
        self._lifeline = lifeline
        self.peak_rss_bytes = None

    @property
    def handles(self) -> list[int]:
        """Descriptors of which one can be read when the worker has replied, or is gone."""
        if self.process is None or self.channel is None:
            return []
        return [self.channel.read_fd, self.process.sentinel]

    @property
    def pid(self) -> int:
        """The worker's process id; 0 without one."""
        return 0 if self.process is None else self.process.pid or 0

    def final_frames(self) -> Iterator[Frame]:
        """What a worker that is gone had sent before; all of it counts.

        Raises:
            ChannelClosed: behind the last of it, as always unless another process has the pipe.
        """
        while self.channel is not None and (frames := self.channel.receive()):
            yield from frames

    def signal(self, number: int) -> None:
        """Sends the worker a signal, if it is there."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Ends the worker at once, and waits until it is gone, as far as that is to be had."""
        if self.process is not None:
            self.process.kill()
            connection.wait([self.process.sentinel], KILL_S)

    def hang_up(self) -> None:
        """Closes the pipes to the worker, which makes it leave."""
        if self.channel is not None:
            self.channel.close()
        self.channel = None

    def end(self, *, patience_s: float) -> int | None:
        """Ends the worker for sure: from then on nobody writes to what it was lent.

        Args:
            patience_s: how long it may take to leave by itself.

        Returns:
            Its exit code; None if there was no worker, or if even SIGKILL has not ended it: the
            kernel cannot end a process that waits for a device or a file server that is gone.
        """
        # Ctrl-C may end this at any point: until the worker is gone, it is there to be ended again.
        process = self.process
        self.ready = False
        if process is None:
            return None
        peak = reap(process, patience_s)
        if process.exitcode is None:
            process.terminate()
            peak = reap(process, LEAVE_S)
        if process.exitcode is None:
            process.kill()
            peak = reap(process, KILL_S)
        self.peak_rss_bytes = peak
        code = process.exitcode
        self.process = None
        if code is None:
            abandon(process)
        else:
            process.close()
        if self._lifeline is not None:
            self._lifeline.let_go()
        return code
