"""The two ends of a pipe that frames go through.

The parent never waits for a worker to read: what the pipe does not take stays in an outbox until
there is room. Else both could wait for each other, the worker with a full pipe of replies.
"""

from __future__ import annotations

import os
import select
from collections import deque
from multiprocessing.connection import Connection

from penstock.transport.frames import Frame, FrameReader

# As much as a pipe holds where its size could be raised.
_READ_BYTES = 1 << 20


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
        self._outbox: deque[bytes | memoryview] = deque()
        if not blocking:
            os.set_blocking(self.read_fd, False)
            os.set_blocking(self.write_fd, False)

    def send(self, frame: bytes) -> None:
        """Sends a frame, or as much of it as goes now (see `flush`).

        Raises:
            ChannelClosed: nobody will read it.
        """
        if self._outbox:
            self._outbox.append(frame)
            self.flush()
            return
        sent = self._write(frame)
        if sent < len(frame):
            self._outbox.append(memoryview(frame)[sent:])

    def flush(self) -> bool:
        """Sends what waits in the outbox; returns whether all of it went."""
        while self._outbox:
            frame = self._outbox.popleft()
            sent = self._write(frame)
            if sent < len(frame):
                self._outbox.appendleft(memoryview(frame)[sent:])
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
        poll = select.poll()
        poll.register(self.read_fd, select.POLLIN)
        return bool(poll.poll(0))

    @property
    def waiting(self) -> bool:
        """Whether something waits in the outbox."""
        return bool(self._outbox)

    def close(self) -> None:
        """Closes both ends: the other process sees the end of the file."""
        self._outbox.clear()
        self._incoming.close()
        self._outgoing.close()

    def _write(self, data: bytes | memoryview) -> int:
        try:
            return os.write(self.write_fd, data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise ChannelClosed(str(error)) from error
