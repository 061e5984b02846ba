"""An engine of simulated workers, which die, fail, answer late or want memory, under a real epoch.

Hypothesis plays the workers and their pipes; everything between them and the loop is real.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from penstock.certificate import DeathCertificate
from penstock.engines.failure import Failure, placed
from penstock.engines.protocol import (
    Cramped,
    Died,
    Done,
    EpochStart,
    Event,
    Failed,
    Opened,
    PartDone,
    Probed,
    Started,
    Withheld,
)
from penstock.epoch import EpochRun, EpochSettings
from penstock.errors import SampleError
from penstock.options import ErrorPolicy
from penstock.schedule import Death, Fill, Lease, Pace
from tests.schedule.simulation import (
    BatchBug,
    Reply,
    Scenario,
    SimulatedResult,
    SimulatedWorker,
)

MOST_DEATHS = 4
MOST_TURNS = 3000


class PartsOf(Pace):
    """It always pays to make batches in parts of one size."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.pays = True
        self._size = size

    def note(self, busy_s: float, samples: int, size: int) -> None:
        pass

    def note_parts(self, *, made: bool) -> None:
        pass

    def part_of(self, samples: int, workers: int, ready: int = 0) -> int:
        return min(self._size, samples)


class Parcel:
    """A batch, or a part of one, on its way; whoever has it uses it once."""

    size = 0

    def __init__(self, result: SimulatedResult, count: int = 0) -> None:
        self._result = result
        self.count = count

    def open(self) -> Opened:
        self._result.use("opened")
        return Opened(self._result.contents, len(self._result.contents), ())

    def open_all(self) -> list[Opened | Exception]:
        self._result.use("opened")
        batches: Any = self._result.contents
        return [Opened(batch, len(batch), ()) for batch in batches]

    def discard(self) -> None:
        # Once it was opened, or discarded, that does nothing.
        if not self._result.uses:
            self._result.use("discarded")

    def hand_on(self) -> Sequence[object]:
        self._result.use("handed on")
        return self._result.contents


class SimulatedEngine:
    """An engine whose workers do at each moment what the tape says.

    Args:
        scenario: what is to be made.
        tape: numbers; behind its end all goes well.
    """

    arena = None
    anticipated = 0

    def __init__(self, scenario: Scenario, tape: Sequence[int]) -> None:
        self.scenario = scenario
        self.seats = scenario.seats
        self.workers: dict[int, SimulatedWorker] = {}
        self.results: list[SimulatedResult] = []
        self.parts = 0
        self.bundled = 0
        self.lent = 0
        self.most_lent = 0
        self.gathered = 0
        self._tape = list(reversed(tape))
        self._mail: dict[int, list[Reply]] = {}
        self._lent: dict[tuple[int, int], Lease] = {}
        self._deaths = 0
        self._started: list[int] = []
        for seat in range(scenario.seats):
            self.restart(seat)

    def begin_epoch(self, _start: EpochStart, _first: Sequence[Sequence[object]] = ()) -> int:
        return 0

    def ready_seats(self) -> list[int]:
        return list(self.workers)

    def restart(self, seat: int) -> None:
        self.workers[seat] = SimulatedWorker(self.scenario, seat)
        self._mail[seat] = []
        self._started.append(seat)

    def submit(self, lease: Lease) -> None:
        key = lease.batch, lease.attempt
        assert key not in self._lent, "an attempt is lent once"
        self._lent[key] = lease
        self.parts += lease.part is not None
        self.bundled += len(lease.sizes)
        self.lent += 1
        self.most_lent = max(self.most_lent, sum(each.count for each in self._lent.values()))
        self.gathered += bool(lease.pieces)
        self.workers[lease.seat].submit(lease)

    def amend(self, lease: Lease, fills: Mapping[int, Fill]) -> None:
        self.workers[lease.seat].amend(lease, fills)

    def recall(self, lease: Lease) -> None:
        assert self._lent.pop((lease.batch, lease.attempt)).seat == lease.seat
        self.workers[lease.seat].recall(lease)

    def refuse_room(self, lease: Lease) -> None:
        """It has some after all."""

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass

    def poll(self, timeout_s: float | None) -> list[Event]:
        if self._started:
            return [Started(self._started.pop())]
        for _ in range(MOST_TURNS):
            event = self._something(self._tape.pop() if self._tape else 0)
            if event is not None:
                return [event]
            if timeout_s == 0 or not self._is_busy:
                if timeout_s:
                    time.sleep(timeout_s)
                return []
        raise AssertionError("nothing comes of what workers do")

    @property
    def _is_busy(self) -> bool:
        return any(self._mail.values()) or any(w.can_work for w in self.workers.values())

    def _something(self, number: int) -> Event | None:
        what, pick = number % 16, number // 16
        if what == 15 and self.workers and self._deaths < MOST_DEATHS:
            self._deaths += 1
            seat = sorted(self.workers)[pick % len(self.workers)]
            return self._bury(seat, self.workers[seat].death())
        if what == 14 and self._lent:
            # Said of anything: it has to do no harm.
            return Cramped(sorted(self._lent.values(), key=_key)[pick % len(self._lent)], 1)
        able = [seat for seat, worker in self.workers.items() if worker.can_work]
        heard = [seat for seat, mail in self._mail.items() if mail]
        if able and (what < 8 or not heard):
            return self._work(able[pick % len(able)])
        return self._hear(heard[pick % len(heard)]) if heard else None

    def _work(self, seat: int) -> Event | None:
        worker = self.workers[seat]
        death = worker.dies_of()
        if death is not None:
            return self._bury(seat, death)
        reply = worker.work()
        if isinstance(reply.body, SimulatedResult):
            self.results.append(reply.body)
        self._mail[seat].append(reply)
        return None

    def _bury(self, seat: int, death: Death) -> Event:
        # What it had sent is heard before, as of any worker that is gone.
        for reply in self._mail.pop(seat):
            if isinstance(reply.body, SimulatedResult):
                reply.body.use("lost")
        del self.workers[seat]
        self._lent = {key: lease for key, lease in self._lent.items() if lease.seat != seat}
        return Died(seat, DeathCertificate(seat, 4711, exit_code=-9), death)

    def _hear(self, seat: int) -> Event | None:
        reply = self._mail[seat].pop(0)
        key = reply.batch, reply.attempt
        wanted = key in self._lent
        sizes = self._lent[key].sizes if wanted else ()
        if wanted and reply.kind != "withheld":
            del self._lent[key]
        where = (seat, *key, 0.0, 0)
        if not wanted:
            if isinstance(reply.body, SimulatedResult):
                reply.body.use("not wanted")
            return None
        if reply.kind == "completed":
            return Done(*where, Parcel(reply.body, len(sizes)))
        if reply.kind == "part":
            return PartDone(*where, Parcel(reply.body))
        if reply.kind == "withheld":
            return Withheld(*where, [_told(place, error) for place, error in reply.body])
        if reply.kind == "probed":
            return Probed(*where)
        return Failed(*where, reply.body)


def _told(place: int, error: SampleError) -> tuple[int, SampleError]:
    """As workers tell of samples that were set aside: with what they were given for that."""
    aside = error.index
    return (
        placed([replace(aside, place=place)])[0] if isinstance(aside, Failure) else (place, error)
    )


def _key(lease: Lease) -> tuple[int, int]:
    return lease.batch, lease.attempt


@st.composite
def scenarios(draw):
    kind = draw(st.sampled_from(["refilling", "given"]))
    samples = draw(st.integers(1, 20))
    fates = ["break"] if kind == "given" else ["skip", "break", "kill"]
    return Scenario(
        kind=kind,
        samples=samples,
        batch_size=draw(st.integers(2, 6)),
        seats=draw(st.integers(1, 3)),
        window=draw(st.integers(1, 6)),
        in_order=True,
        asks=kind == "refilling",
        fates=draw(
            st.dictionaries(st.integers(0, samples - 1), st.sampled_from(fates), max_size=3)
        ),
        tells_place=draw(st.booleans()),
    )


def run(
    scenario: Scenario,
    tape: Sequence[int],
    part: int | None,
    *,
    bundles: bool = False,
    stop_after: int | None = None,
):
    """One epoch: its deliveries, the engine, and the samples that were left out.

    Args:
        scenario: what is to be made.
        tape: see `SimulatedEngine`.
        part: how many samples of a batch one worker makes; None: all.
        bundles: whether batches may be lent together.
        stop_after: so many deliveries; None: the end.
    """
    engine = SimulatedEngine(scenario, tape)
    plan = scenario.make_plan()
    epoch = EpochRun(
        engine,  # type: ignore[arg-type]
        plan,
        EpochSettings(
            seed=0,
            window=scenario.window,
            policy=ErrorPolicy("skip" if scenario.asks else "raise", max_skipped=None),
            max_restarts=1000,
            pace=None if part is None else PartsOf(part),
            bundles=bundles,
        ),
        workers=scenario.seats,
        donors=plan if scenario.kind == "refilling" else None,
        release=lambda: None,
        began=0.0,
    )
    deliveries: list[Any] = []
    while stop_after is None or len(deliveries) < stop_after:
        try:
            deliveries.append(next(epoch))
        except StopIteration:
            break
        except BatchBug as error:
            deliveries.append(("error", error.contents))
    epoch.close()
    return deliveries, engine, [error.index for error in epoch.skipped]


tapes = st.lists(st.integers(0, 999), max_size=120)


def assert_nothing_is_lost(engine: SimulatedEngine) -> None:
    """Behind the end of an epoch: each result that workers have sent was used, once."""
    for worker in engine.workers.values():
        while worker.can_work:
            # What was recalled and is under way comes to nobody.
            engine._work(worker.seat)
    for seat in engine.workers:
        while engine._mail[seat]:
            assert engine._hear(seat) is None
    assert [result.contents for result in engine.results if len(result.uses) != 1] == []


def assert_given_up(engine: SimulatedEngine) -> None:
    """Of an epoch that was broken off: so was each that had arrived."""
    waiting = [reply.body for mail in engine._mail.values() for reply in mail]
    for result in engine.results:
        assert len(result.uses) == (0 if any(result is body for body in waiting) else 1)
