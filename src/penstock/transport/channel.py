"""The two ends of a pipe that frames go through.

The parent never waits for a worker to read: what the pipe does not take stays in an outbox until
there is room. Else both could wait for each other, the worker with a full pipe of replies.
"""

from __future__ import annotations

import os
import select
import time
from multiprocessing.connection import Connection

from penstock.transport.frames import Frame, FrameReader

# As much as a pipe holds. `os.read` allocates all of it beforehand: 1 MiB would cost 10 µs a call.
_READ_BYTES = 1 << 16
# Where work and answers go to and fro faster than this, it pays to look out for the next for a
# while before going to sleep.
SPIN_BELOW_S = 0.0003
SPIN_S = 0.0002


class ChannelClosed(EOFError):  # noqa: N818 - it says what happened, and is no error by itself
    """The other end is gone."""


class Channel:
    """One process's ends of the two pipes between the parent and a worker.

    Args:
        incoming: read end of the pipe towards this process.
        outgoing: write end of the pipe away from it.
        blocking: whether reading and writing wait: in a worker they do.
    """

    def __init__(
        self,
        incoming: Connection[object, object],
        outgoing: Connection[object, object],
        *,
        blocking: bool,
    ) -> None:
        # The connections own the descriptors and travel to spawned processes; their own
        # message format, which costs a second read for each message, is not used.
        self._incoming = incoming
        self._outgoing = outgoing
        self.read_fd = incoming.fileno()
        self.write_fd = outgoing.fileno()
        self._reader = FrameReader()
        self._poll = select.poll()
        self._poll.register(self.read_fd, select.POLLIN)
        self._outbox: list[bytes | memoryview] = []
        if not blocking:
            os.set_blocking(self.read_fd, False)
            os.set_blocking(self.write_fd, False)

    def queue(self, frame: bytes) -> None:
        """Puts a frame into the outbox, for `flush` to send."""
        self._outbox.append(frame)

    def flush(self) -> bool:
        """Sends what waits in the outbox, as far as the pipe takes it now.

        Returns:
            Whether all of it went.

        Raises:
            ChannelClosed: nobody will read it.
        """
        outbox = self._outbox
        while outbox:
            data = outbox[0] if len(outbox) == 1 else b"".join(outbox)
            outbox.clear()
            sent = self._write(data)
            if sent < len(data):
                outbox.append(memoryview(data)[sent:])
                return False
        return True

    def send_all(self, frame: bytes) -> None:
        """Sends a whole frame, and waits for that: for the blocking end."""
        at = 0
        while at < len(frame):
            at += self._write(memoryview(frame)[at:] if at else frame)

    def receive(self) -> list[Frame]:
        """Frames that have come; waits for data at the blocking end only.

        Raises:
            ChannelClosed: no more will come; a torn frame is dropped.
            WireError: what came is no frame.
        """
        try:
            data = os.read(self.read_fd, _READ_BYTES)
        except BlockingIOError:
            return []
        except OSError as error:
            raise ChannelClosed(str(error)) from error
        if not data:
            raise ChannelClosed("end of file")
        return self._reader.feed(data)

    def has_data(self) -> bool:
        """Whether `receive` would return at once."""
        return bool(self._poll.poll(0))

    def look_out(self) -> None:
        """Waits a moment for data without going to sleep; see the function of this name."""
        look_out(self._poll, SPIN_S)

    def close(self) -> None:
        """Closes both ends: the other process sees the end of the file."""
        self._outbox.clear()
        self._incoming.close()
        self._outgoing.close()
        # Their numbers are given to whatever is opened next.
        self.read_fd = self.write_fd = -1

    def _write(self, data: bytes | memoryview) -> int:
        try:
            return os.write(self.write_fd, data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise ChannelClosed(str(error)) from error


def look_out(poll: select.poll, most_s: float) -> None:
    """Asks again and again for a while whether there is something, and lets others run in between.

    Going to sleep and being woken takes tens of microseconds, more in a virtual machine: too
    long to wait for something that comes in a few.
    """
    deadline = time.perf_counter() + most_s
    while not poll.poll(0) and time.perf_counter() < deadline:
        os.sched_yield()
