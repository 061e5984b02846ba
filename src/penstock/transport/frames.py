"""Messages on a pipe: whole, or not at all.

A frame is a header of fixed size and a body::

    magic  kind  size of the body │ epoch  batch  attempt │ slot  used  capacity │ the rest │ body
    ───────────────────────────── │ ───────────────────── │ ──────────────────── │
    finds a torn or foreign frame │ which lease it is of  │ where its memory is  │

The same frames go both ways. A writer that is killed leaves a frame torn; its reader sees the
end of the file before the frame is whole and drops it, so a half-written message is never acted on.
"""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple

from penstock.errors import WireError

_HEADER = struct.Struct("<HHIIqIiqqqd")
_MAGIC = 0x5053
# Larger bodies travel in a slot; the rest is indices on their way to a worker.
_MOST_BODY_BYTES = 1 << 31


class Kind(enum.IntEnum):
    """What a frame says."""

    # to a worker
    BEGIN = 1  # an epoch begins; what is left of earlier ones is not wanted any more
    LEASE = 2  # fetch a batch
    AMEND = 3  # what goes in the places that were reported
    RECALL = 4  # this lease is not wanted any more
    # from a worker
    READY = 16  # the dataset is there
    STARTLESS = 17  # the dataset could not be made ready; the last word of a worker
    DONE = 18  # a batch
    WITHHELD = 19  # a batch but for some places, which are reported
    FAILED = 20  # no batch, and why
    ENDED = 21  # no batch: the stream has ended
    DROPPED = 22  # nothing was done, as asked


class Frame(NamedTuple):
    """One message; which fields mean something depends on its kind.

    Attributes:
        kind: what it says.
        epoch: serial number of the epoch, within the life of the workers.
        batch: the batch's number.
        attempt: how often the batch was lent before.
        slot: the slot lent with it, or -1.
        used: bytes that the batch takes in the slot; 0 if it came in the body.
        capacity: bytes of memory that the slot has.
        position: samples that a stream's worker has taken from it.
        busy_s: seconds that the worker worked on it.
        body: the rest, mostly as `codec.encode` made it.
    """

    kind: int
    epoch: int
    batch: int
    attempt: int
    slot: int
    used: int
    capacity: int
    position: int
    busy_s: float
    body: memoryview


def pack(
    kind: Kind,
    body: bytes = b"",
    *,
    epoch: int = 0,
    batch: int = 0,
    attempt: int = 0,
    slot: int = -1,
    used: int = 0,
    capacity: int = 0,
    position: int = 0,
    busy_s: float = 0.0,
) -> bytes:
    """One frame as bytes; for the arguments see `Frame`."""
    return (
        _HEADER.pack(
            _MAGIC,
            kind,
            len(body),
            epoch,
            batch,
            attempt,
            slot,
            used,
            capacity,
            position,
            busy_s,
        )
        + body
    )


class FrameReader:
    """Puts frames together from whatever pieces a pipe gives."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        # Bytes to come before anything can be whole: until then pieces are only put by, since
        # joining a long frame with each of them would take time in the square of its length.
        self._missing = 0

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are whole now; the rest waits for more data.

        Raises:
            WireError: this cannot be the start of a frame.
        """
        if self._pieces:
            self._pieces.append(data)
            self._missing -= len(data)
            if self._missing > 0:
                return []
            data = b"".join(self._pieces)
        frames: list[Frame] = []
        view = memoryview(data)
        at, end = 0, len(data)
        needed = _HEADER.size
        while end - at >= _HEADER.size:
            magic, kind, size, *lease = _HEADER.unpack_from(view, at)
            if magic != _MAGIC or size > _MOST_BODY_BYTES:
                raise WireError(
                    f"bytes {bytes(view[at : at + 8])!r} are not the start of a message: "
                    "something else writes to this pipe"
                )
            body_at = at + _HEADER.size
            if end - body_at < size:
                needed += size
                break
            at = body_at + size
            frames.append(Frame._make((kind, *lease, view[body_at:at])))
        self._pieces = [data[at:]] if at < end else []
        self._missing = needed - (end - at)
        return frames

    @property
    def torn(self) -> bool:
        """Whether a frame has begun that is not whole."""
        return bool(self._pieces)
