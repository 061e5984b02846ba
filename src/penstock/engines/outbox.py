"""Messages to workers: kept back until they can go together, and sent without waiting."""

from __future__ import annotations

from penstock.engines.crew import Crew, LeasedSeat
from penstock.transport.channel import ChannelClosed


class Outbox:
    """What is to be sent to the workers of one engine.

    Args:
        crew: they.
    """

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._unsent: set[int] = set()

    def put(self, seat: LeasedSeat, frame: bytes) -> None:
        """Puts a message by for a worker; one for a worker that is gone is dropped."""
        channel = seat.channel
        if channel is None:
            return
        channel.queue(frame)
        self._unsent.add(seat.number)

    def flush(self) -> None:
        """Sends all of it, as far as the pipes have room; what is left goes when they have more."""
        for number in self._unsent:
            seat = self._crew.seats[number]
            channel = seat.channel
            if channel is None:
                continue
            try:
                done = channel.flush()
            except ChannelClosed:
                # Its death is noticed, and reported, where replies are read.
                continue
            if not done:
                self._crew.watch_for_room(seat, channel.write_fd)
        self._unsent.clear()
