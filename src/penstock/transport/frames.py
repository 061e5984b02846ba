"""Messages on a pipe: whole, or not at all.

A frame is a header of fixed size and a body, with the header's checksum before and behind them::

    seal │ size │ kind │ epoch  batch  attempt │ slot  used  capacity │ the rest │ body │ seal
                         ───────────────────── │ ──────────────────── │
                         which lease it is of  │ where its memory is  │

The same frames go both ways. A writer that is killed leaves a frame torn; its reader sees the
end of the file before the frame is whole and drops it, so a half-written message is never acted on.

A worker runs code that is not ours, and whatever there writes to a wrong descriptor, a library that
closed one too many or a process of the dataset's own, may write into the midst of a frame. The
first seal finds that before a wrong size has the reader wait for ever, the second before a
displaced body is taken for a batch. A sum over the body would find no more than that in a pipe, and
take 13 µs at either end for one of 64 KiB; both seals take a quarter of one.
"""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple
from zlib import crc32

from penstock.errors import WireError

_SEAL = struct.Struct("<I")
_FIELDS = struct.Struct("<IHIqIiqqqId")
_HEADER_BYTES = _SEAL.size + _FIELDS.size


class Kind(enum.IntEnum):
    """What a frame says."""

    # to a worker
    BEGIN = 1  # an epoch begins; what is left of earlier ones is not wanted any more
    LEASE = 2  # fetch a batch
    AMEND = 3  # what goes in the places that were reported
    RECALL = 4  # this lease is not wanted any more
    PROBE = 5  # make some samples of a batch and give them up
    GRANT = 6  # how much memory the slot of a batch may have now; 0: no more, and why
    PART = 7  # make some samples of a batch
    GATHER = 8  # put a batch together of its parts
    BUNDLE = 9  # fetch several batches
    # from a worker
    READY = 16  # the dataset is there
    STARTLESS = 17  # the dataset could not be made ready; the last word of a worker
    DONE = 18  # a batch
    WITHHELD = 19  # a batch but for some places, which are reported
    FAILED = 20  # no batch, and why
    ENDED = 21  # no batch: the stream has ended
    DROPPED = 22  # nothing was done, as asked
    PROBED = 23  # the samples were made and given up
    CRAMPED = 24  # the batch needs so much memory; the worker waits for an answer
    PART_DONE = 25  # some samples of a batch
    BUNDLE_DONE = 26  # several batches


class Frame(NamedTuple):
    """One message; which fields mean something depends on its kind.

    Attributes:
        kind: what it says.
        epoch: serial number of the epoch, within the life of the workers.
        batch: the batch's number.
        attempt: how often the batch was lent before.
        slot: the slot lent with it, or -1.
        used: bytes that the batch takes in the slot; 0 if it came in the body. Towards a worker:
            how many it may take.
        capacity: bytes of memory that the slot has.
        position: samples that a stream's worker has taken from it.
        seen: what the last of these looks like; see `penstock.engines.likeness`.
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
    seen: int
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
    seen: int = 0,
    busy_s: float = 0.0,
) -> bytes:
    """One frame as bytes; for the arguments see `Frame`."""
    fields = _FIELDS.pack(
        len(body), kind, epoch, batch, attempt, slot, used, capacity, position, seen, busy_s
    )
    seal = _SEAL.pack(crc32(fields))
    return seal + fields + body + seal


# `Frame._make` without its check of the length, which takes as long as both seals.
_frame = tuple.__new__


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
        needed = _HEADER_BYTES
        while end - at >= _HEADER_BYTES:
            body_at = at + _HEADER_BYTES
            seal = data[at : at + _SEAL.size]
            if _SEAL.pack(crc32(view[at + _SEAL.size : body_at])) != seal:
                raise _foreign(f"{bytes(view[at : at + 8])!r} is not the start of a message")
            size, *fields = _FIELDS.unpack_from(view, at + _SEAL.size)
            body_end = body_at + size
            if end - body_end < _SEAL.size:
                needed += size + _SEAL.size
                break
            at = body_end + _SEAL.size
            if data[body_end:at] != seal:
                raise _foreign(f"there are other bytes among the {size} of a message")
            frames.append(_frame(Frame, (*fields, view[body_at:body_end])))
        self._pieces = [data[at:]] if at < end else []
        self._missing = needed - (end - at)
        return frames

    @property
    def torn(self) -> bool:
        """Whether a frame has begun that is not whole."""
        return bool(self._pieces)


def _foreign(found: str) -> WireError:
    return WireError(f"{found}: something else writes to this pipe")
