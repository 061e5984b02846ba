"""The first batches of the next epoch, made before the loop asks for it.

Workers that live on between epochs have nothing to do while the loop is given the last batches of
one. What the next will begin with can be guessed, and made meanwhile. It is used only if that is
just what the next epoch asks for, and given up otherwise; so nothing but time depends on a guess.

    epoch n: all is made ──> begin ──> BEGIN n+1, leases ──> replies are put by: hear
    epoch n+1: open ── as guessed ──> what is asked for is there (take), or on its way
                 └──── otherwise ───> given up, as what is left of any epoch is
"""

from __future__ import annotations

from collections.abc import Sequence

from penstock.engines.crew import LeasedSeat
from penstock.engines.failure import placed
from penstock.engines.protocol import Done, EpochStart, Guess, Withheld
from penstock.engines.replies import check_reply, failures_in
from penstock.engines.resumption import Key
from penstock.engines.shared_result import SharedResult
from penstock.schedule import Lease
from penstock.transport.arena import Arena
from penstock.transport.frames import Frame, Kind

# So many guesses in a row are wrong, and no more are made: what the program itself draws between
# two epochs from the numbers that the order is drawn from cannot be guessed.
MOST_WRONG = 2


class EarlyEpoch:
    """The next epoch of one engine, as far as it has begun in the workers and not in the loop.

    Args:
        arena: where its batches lie.
    """

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._wrong = 0
        self._guess: Guess | None = None
        self._opened = False
        self._serial = 0
        self._pids: frozenset[int] = frozenset()
        # By batch: what came of it, if that is of use, and the memory that its worker waits for.
        self._made: dict[int, Done | Withheld] = {}
        self._waiting: dict[int, int] = {}

    @property
    def batches(self) -> int:
        """How many batches have been lent of it; 0: it has not begun."""
        return 0 if self._guess is None or self._opened else len(self._guess.batches)

    @property
    def begun(self) -> int:
        """How many batches of the epoch that runs were begun early."""
        return len(self._guess.batches) if self._guess is not None and self._opened else 0

    @property
    def refuses(self) -> bool:
        """Whether no other can begin: one has, or guesses have been wrong too often."""
        return self.batches > 0 or self._wrong >= MOST_WRONG

    def begin(self, serial: int, guess: Guess, pids: frozenset[int]) -> None:
        """It begins in these processes, under this number."""
        self._give_up()
        self._serial, self._guess, self._pids, self._opened = serial, guess, pids, False

    def is_of(self, frame: Frame) -> bool:
        """Whether a message is about it, before it has begun in the loop."""
        return self.batches > 0 and frame.epoch == self._serial

    def hear(self, seat: LeasedSeat, frame: Frame, key: Key) -> None:
        """Puts a reply by.

        Raises:
            WireError: it cannot be one.
        """
        slot, _ = seat.lent[key]
        check_reply(frame, Kind.LEASE, slot, is_stream=False)
        self._arena.note_capacity(slot, frame.capacity)
        where = (seat.number, frame.batch, frame.attempt, frame.busy_s, frame.position)
        if frame.kind == Kind.CRAMPED:
            self._waiting[frame.batch] = frame.used
            return
        if frame.kind == Kind.WITHHELD:
            seat.withheld.add(key)
            self._made[frame.batch] = Withheld(*where, placed(failures_in(frame)))
            return
        del seat.lent[key]
        if frame.kind == Kind.DONE:
            result = SharedResult(self._arena, frame.body, slot, frame.used)
            self._made[frame.batch] = Done(*where, result)
        # What has failed is tried once more, where it counts.
        if frame.kind != Kind.DONE or not frame.used:
            self._arena.release(slot)

    def open(
        self, serial: int, start: EpochStart, first: Sequence[Sequence[object]]
    ) -> tuple[int, frozenset[int]]:
        """An epoch begins in the loop.

        Args:
            serial: the last one's number.
            start: what it begins with.
            first: the indices of its first batches, as many as `batches`.

        Returns:
            Its number, and the processes in which it has begun already.
        """
        guess, expected = self._guess, self.batches > 0
        if expected and guess is not None and _is_right(guess, start, first):
            self._wrong = 0
            self._opened = True
            return self._serial, self._pids
        self._wrong += expected
        self._give_up()
        return max(serial, self._serial) + 1, frozenset()

    @property
    def results(self) -> list[SharedResult]:
        """Batches of it that have arrived, and were not asked for yet."""
        results = [event.result for event in self._made.values() if isinstance(event, Done)]
        return [result for result in results if isinstance(result, SharedResult)]

    def take(self, seat: int, batch: int) -> Done | Withheld | None:
        """What has come of a batch of the epoch that was opened, for who it is asked of."""
        made = self._made.get(batch) if self._opened else None
        return self._made.pop(batch) if made is not None and made.seat == seat else None

    def waits_for(self, batch: int) -> int | None:
        """How much memory the worker of a batch waits for; asked for once."""
        return self._waiting.pop(batch, None) if self._opened else None

    def _give_up(self) -> None:
        self._guess = None
        self._opened = False
        self._waiting.clear()
        while self._made:
            _, event = self._made.popitem()
            if isinstance(event, Done):
                event.result.discard()


def _is_right(guess: Guess, start: EpochStart, first: Sequence[Sequence[object]]) -> bool:
    return (
        start == guess.start
        and len(first) == len(guess.batches)
        and all(list(one) == list(other) for one, other in zip(first, guess.batches, strict=True))
    )


def first_leases(guess: Guess, seats: int) -> list[Lease]:
    """The leases of a guess: to each worker in its turn, as an epoch begins with idle workers."""
    return [
        Lease(number, 0, number % seats, indices) for number, indices in enumerate(guess.batches)
    ]
