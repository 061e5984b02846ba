"""What workers say: each message becomes events, and lets go of what its lease had.

frame ──check_reply──> of this epoch: Done | Withheld | Failed | …
├─────> of the next one, begun early: put by (`early.py`)
└─────> of one before, or recalled: its slot is free again, and that is all
"""

from __future__ import annotations

import math

from penstock.engines.bundles import count_of
from penstock.engines.crew import LeasedSeat
from penstock.engines.early import EarlyEpoch
from penstock.engines.failure import end_or_raise, placed, to_raise
from penstock.engines.protocol import (
    Done,
    Ended,
    Event,
    Failed,
    PartDone,
    Probed,
    Started,
    StartFailed,
    Withheld,
)
from penstock.engines.replies import check_reply, failures_in, order_of
from penstock.engines.room import Room
from penstock.engines.shared_result import SharedResult
from penstock.errors import WireError
from penstock.transport.arena import Arena
from penstock.transport.channel import ChannelClosed
from penstock.transport.frames import Frame, Kind


class Hearing:
    """Reads the messages of one engine's workers.

    Args:
        arena: where their batches lie.
        early: the next epoch, as far as it has begun.
        room: who waits for memory.
        is_stream: whether leases are of streams.

    Attributes:
        serial: the number of the epoch that runs.
        busy_s: seconds that the last batch took.
    """

    def __init__(
        self,
        arena: Arena,
        early: EarlyEpoch,
        room: Room,
        *,
        is_stream: bool,
    ) -> None:
        self._arena = arena
        self._early = early
        self._room = room
        self._is_stream = is_stream
        self.serial = 0
        self.busy_s = math.inf

    def read(self, seat: LeasedSeat, frame: Frame, events: list[Event]) -> None:
        """Acts on one message.

        Args:
            seat: whose.
            frame: the message.
            events: what is to be reported of it is added to them.

        Raises:
            WireError: it cannot be true.
        """
        kind = frame.kind
        if kind == Kind.READY:
            seat.ready = True
            events.append(Started(seat.number))
            return
        if kind == Kind.STARTLESS and frame.epoch not in (0, self.serial):
            return
        if kind == Kind.STARTLESS:
            events.append(StartFailed(seat.number, to_raise(failures_in(frame)[0])))
            return
        key = (frame.epoch, frame.batch, frame.attempt)
        if key not in seat.lent:
            raise WireError(f"it answers a lease {key} that it does not have")
        slot, lease = seat.lent[key]
        current = frame.epoch == self.serial
        if not current and self._early.is_of(frame):
            self._early.hear(seat, frame, key)
            return
        order = order_of(lease)
        if not current or key in seat.recalled:
            order = Kind.RECALL
        check_reply(frame, order, slot, is_stream=self._is_stream)
        seat.heard = frame.epoch
        where = (seat.number, frame.batch, frame.attempt, frame.busy_s, frame.position)
        if kind in (Kind.WITHHELD, Kind.CRAMPED):
            if not current:
                return
            if kind == Kind.WITHHELD:
                if key not in seat.recalled:
                    seat.withheld.add(key)
                events.append(Withheld(*where, placed(failures_in(frame))))
            else:
                self._arena.note_capacity(slot, frame.capacity)
                self._room.note(seat, key, frame.used)
                # Whether there is room is looked at before anybody waits.
                self._room.give(events)
            return
        failure = failures_in(frame)[0] if kind == Kind.FAILED else None
        self._arena.note_capacity(slot, frame.capacity)
        pieces = seat.pieces.pop(key, ()) if seat.pieces else ()
        del seat.lent[key]
        seat.recalled.discard(key)
        seat.withheld.discard(key)
        self._room.withdraw(key)
        for piece in pieces:
            self._arena.release(piece)
        made = kind in (Kind.DONE, Kind.PART_DONE, Kind.BUNDLE_DONE)
        if not (made and current and frame.used):
            self._arena.release(slot)
        if not current:
            return
        result = None
        if made:
            count = 0
            if kind == Kind.BUNDLE_DONE:
                count = count_of(frame.body, lease.count)
            result = SharedResult(self._arena, frame.body, slot, frame.used, count)
        seat.resumption.answered(key, frame.position, frame.seen, result)
        if kind == Kind.DROPPED:
            return
        self.busy_s = frame.busy_s
        if kind == Kind.PART_DONE and result is not None:
            events.append(PartDone(*where, result))
        elif result is not None:
            events.append(Done(*where, result))
        elif failure is not None:
            events.append(Failed(*where, end_or_raise(failure)))
        elif kind == Kind.ENDED:
            events.append(Ended(*where))
        elif kind == Kind.PROBED:
            events.append(Probed(*where))

    def hear_out(self, seat: LeasedSeat, events: list[Event]) -> str:
        """What a worker that is gone, or stopped, has sent counts, all of it.

        Args:
            seat: whose.
            events: see `read`.

        Returns:
            What it had to be ended for, if anything was wrong with that.
        """
        try:
            for frame in seat.final_frames():
                self.read(seat, frame, events)
        except ChannelClosed:
            return ""
        except WireError as error:
            return fault_of(error)
        return ""


def fault_of(error: WireError) -> str:
    """Why a worker has to go that has sent what cannot be; see `DeathCertificate.fault`."""
    return f"was ended, since {error}"
