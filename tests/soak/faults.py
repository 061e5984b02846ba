"""Kills and stops workers while the program waits, computes, or is in the midst of anything."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator

import psutil

from tests.soak.scenario import Scenario
from tests.support.leaks import live_children

_TICK_S = 0.01
# How long a scenario may take before it counts as one that hangs. Those with spawned workers, whose
# start takes seconds on a busy machine, take the longest.
MOST_S = 120.0
# Then a look from Python should have ended it; if that is stuck as well, this does.
_LAST_RESORT_S = MOST_S + 30.0
# After a kill, the next waits for a batch to come, but no longer than this: on a machine that is
# busy enough, workers would else be killed faster than they get ready, for ever.
_PATIENCE_S = 2.0


class Faults:
    """What befalls the workers of one scenario, from outside.

    It is done by a timer's signal, in the program's only thread: between any two steps of it, and
    without a thread, beside which workers should not be forked.

    Args:
        scenario: how often.

    Attributes:
        landed: how many of each kind.
    """

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._chance = random.Random(f"{scenario.name} faults")
        self._stopped: list[tuple[float, psutil.Process]] = []
        self._began = time.monotonic()
        self._next_kill = self._next(scenario.kills_s)
        self._next_stop = self._next(scenario.stops_s)
        self._moved = True
        self._in_tick = False
        self.landed: Counter[str] = Counter()

    @contextlib.contextmanager
    def under_way(self) -> Iterator[Faults]:
        """They befall the workers of what is done within."""
        before = signal.signal(signal.SIGALRM, self._on_alarm)
        faulthandler.dump_traceback_later(_LAST_RESORT_S, exit=True)
        signal.setitimer(signal.ITIMER_REAL, _TICK_S, _TICK_S)
        try:
            yield self
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            self._go_on(everybody=True)
            faulthandler.cancel_dump_traceback_later()

    def note_progress(self) -> None:
        """The program has been given something."""
        self._moved = True

    def _next(self, every_s: float) -> float:
        return time.monotonic() + every_s * self._chance.uniform(0.5, 1.5) if every_s else 1e18

    def _on_alarm(self, _number: int, _frame: object) -> None:
        # On a busy machine the next alarm comes before this one is dealt with.
        if self._in_tick:
            return
        self._in_tick = True
        try:
            self._tick()
        finally:
            self._in_tick = False

    def _tick(self) -> None:
        now = time.monotonic()
        if now - self._began > MOST_S:
            print(f"scenario {self._scenario.name} hangs", file=sys.stderr, flush=True)
            faulthandler.dump_traceback(all_threads=True)
            self._go_on(everybody=True)
            os._exit(1)
        self._go_on()
        if now >= self._next_kill and (self._moved or now >= self._next_kill + _PATIENCE_S):
            self._moved = False
            self._next_kill = self._next(self._scenario.kills_s)
            self._send(signal.SIGKILL)
        if now >= self._next_stop and not self._stopped:
            self._next_stop = self._next(self._scenario.stops_s)
            self._send(signal.SIGSTOP)

    def _send(self, number: signal.Signals) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            workers = [psutil.Process(pid) for pid, _ in live_children()]
            if not workers:
                return
            worker = self._chance.choice(workers)
            is_young = time.time() - worker.create_time() < self._scenario.spares_s
            if worker.status() == psutil.STATUS_ZOMBIE or (
                is_young and self._chance.random() < 0.8
            ):
                return
            worker.send_signal(number)
            self.landed["killed" if number == signal.SIGKILL else "stopped"] += 1
            if number == signal.SIGSTOP:
                self._stopped.append((time.monotonic() + self._chance.uniform(0.005, 0.1), worker))

    def _go_on(self, *, everybody: bool = False) -> None:
        """Wakes those up that were stopped for long enough."""
        now = time.monotonic()
        due = [entry for entry in self._stopped if everybody or entry[0] <= now]
        for entry in due:
            self._stopped.remove(entry)
            with contextlib.suppress(psutil.NoSuchProcess):
                entry[1].send_signal(signal.SIGCONT)
