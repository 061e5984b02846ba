"""What is looked at several times a second while workers work.

Their replies, and their deaths as a rule, make themselves felt; these do not: what they write to
stderr, how much memory they have, a sample that never comes to its end, and the death of a worker
whose own children hold its pipes open.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator

from penstock.engines.bundles import lease_at
from penstock.engines.crew import Crew, LeasedSeat
from penstock.engines.last_words import STACK_SIGNAL
from penstock.engines.protocol import ROUND_S
from penstock.engines.reaping import is_gone
from penstock.engines.vitals import look_at
from penstock.transport.journal import AT_ONCE, Entry, Journal
from penstock.transport.memory import RecentKills

# How often the memory of a worker is read, which takes a tenth of a millisecond.
_VITALS_EVERY_S = 1.0
# A sample is ended at most this share of its time too late.
_SHARE_LATE = 0.25
_LEAST_ROUND_S = 0.01
# If a round comes this much later than it should, or by half the time of a sample, nobody looked
# meanwhile, and this process may have been stopped (Ctrl-Z) with its workers, also where the
# training loop has done something else: what took so long is not known to have been a sample.
_ABSENT_S = 1.0
# How long faulthandler may take. A worker that is stopped does not answer.
_STACKS_S = 0.5
_STACKS_QUIET_S = 0.02


class Oversight:
    """Looks after the workers of one engine.

    Args:
        crew: they.
        journal: what each is at.
        kills: what the kernel has killed lately.
        sample_timeout_s: how long one sample may take; None: any time.
    """

    def __init__(
        self, crew: Crew, journal: Journal, kills: RecentKills, sample_timeout_s: float | None
    ) -> None:
        self._crew = crew
        self._journal = journal
        self._kills = kills
        self._sample_timeout_s = sample_timeout_s
        self._every_s = ROUND_S
        if sample_timeout_s is not None:
            self._every_s = min(ROUND_S, max(_LEAST_ROUND_S, sample_timeout_s * _SHARE_LATE))
        self._vitals_due = 0.0
        self._absent_from_s = min(_ABSENT_S, (sample_timeout_s or math.inf) / 2)
        # By seat, when the sample was begun that it was last seen at, and how much of the time
        # since then does not count.
        self._excused: dict[int, tuple[float, float]] = {}
        self.due = time.monotonic()

    def look(self, now: float, epoch: int) -> Iterator[tuple[LeasedSeat, Entry | None]]:
        """Looks at all workers.

        Args:
            now: the time, on the clock of `time.monotonic`.
            epoch: the serial number of the epoch that runs.

        Yields:
            Workers that are gone, with None, and those whose sample takes too long, with that.
        """
        late_s = now - self.due
        absent_s = late_s if late_s > self._absent_from_s else 0.0
        self.due = now + self._every_s
        with_vitals = now >= self._vitals_due
        if with_vitals:
            self._vitals_due = now + _VITALS_EVERY_S
            self._take_vitals()
        for seat in self._crew.seats:
            if seat.process is None:
                continue
            seat.words.show()
            if is_gone(seat.process):
                yield seat, None
                continue
            entry = self._journal.read(seat.number)
            if entry is None or entry.epoch != epoch:
                continue
            if self._is_overdue(seat, entry, now, absent_s):
                yield seat, entry

    def _take_vitals(self) -> None:
        all_live = True
        for seat in self._crew.seats:
            if seat.process is not None:
                vitals = look_at(seat.pid)
                seat.vitals = vitals or seat.vitals
                all_live = all_live and vitals is not None
        if all_live:
            self._kills.look()

    def take_stacks(self, seat: LeasedSeat) -> None:
        """Has a worker, which may be stopped, write down what it is at, be it in native code."""
        words = seat.words
        if words.descriptor < 0 or not STACK_SIGNAL:
            return
        words.expect_stacks()
        size = words.size
        asked = size
        seat.signal(STACK_SIGNAL)
        seat.signal(signal.SIGCONT)
        deadline = time.monotonic() + _STACKS_S
        while time.monotonic() < deadline:
            time.sleep(_STACKS_QUIET_S)
            before, size = size, words.size
            if size == before > asked:
                return

    def _is_overdue(self, seat: LeasedSeat, entry: Entry, now: float, absent_s: float) -> bool:
        if self._sample_timeout_s is None or entry.place is None:
            return False
        allowed_s = self._sample_timeout_s
        if entry.place == AT_ONCE:
            lease = lease_at({key: lease for key, (_, lease) in seat.lent.items()}, entry.key)
            if lease is None:
                return False
            allowed_s *= max(1, len(lease.probe or lease.indices))
        taken_s = now - entry.since_s
        since_s, excused_s = self._excused.get(seat.number, (0.0, 0.0))
        if since_s != entry.since_s:
            excused_s = 0.0
        excused_s += min(absent_s, max(0.0, taken_s))
        self._excused[seat.number] = entry.since_s, excused_s
        if excused_s:
            # The wait for the round that was missed may have been cut short as well.
            allowed_s += self._every_s
        return taken_s - excused_s > allowed_s
