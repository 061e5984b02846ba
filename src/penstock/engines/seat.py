"""A worker's place: the process in it and the two pipes to that process.

    take ──> leases, replies ──> hang_up ──> end
                   └── it died ──> last_words ──> hang_up ──> end ──> take: another one

The engine decides when; nothing here waits for a worker but `end`.
"""

from __future__ import annotations

from collections.abc import Iterator
from multiprocessing.process import BaseProcess

from penstock.transport.channel import Channel
from penstock.transport.frames import Frame

# How long a worker may take to leave once its pipe has ended: what it computes at the time
# is not wanted any more. Then SIGTERM, and after as long again SIGKILL.
LEAVE_S = 0.5


class Seat:
    """The place of one worker; the worker in it changes when one dies.

    Args:
        number: which seat.

    Attributes:
        process: the worker, until `end`.
        channel: the parent's ends of its pipes, until `hang_up`.
        ready: whether the worker has its dataset.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: BaseProcess | None = None
        self.channel: Channel | None = None
        self.ready = False

    def take(self, process: BaseProcess, channel: Channel) -> None:
        """Puts a worker in it that was started."""
        self.process, self.channel = process, channel

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

    def last_words(self) -> Iterator[Frame]:
        """What a worker that is gone had sent before; all of it counts.

        Raises:
            ChannelClosed: behind the last of it, as always unless another process has the pipe.
        """
        while self.channel is not None and (frames := self.channel.receive()):
            yield from frames

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
            Its exit code, or None if there was no worker.
        """
        process, self.process = self.process, None
        self.ready = False
        if process is None:
            return None
        process.join(patience_s)
        if process.exitcode is None:
            process.terminate()
            process.join(LEAVE_S)
        if process.exitcode is None:
            process.kill()
            process.join()
        code = process.exitcode
        process.close()
        return code
