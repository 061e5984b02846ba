"""What the figures of an epoch have a loader choose, and what the engine makes of that."""

from __future__ import annotations

import pytest

from penstock.engines.chooser import Chooser, EpochWatch
from penstock.engines.choosing import ChoosingEngine
from penstock.engines.looks import (
    AGREEING,
    LOOK_BATCHES,
    MOST_LOOKS,
    MOST_TRIALS,
    TRIAL_BATCHES,
    TRIAL_BELOW_S,
    WARM_UP_BATCHES,
    Looks,
    Tally,
)
from penstock.engines.protocol import Died, Done, EpochStart, Withheld
from penstock.observe import StatisticsRecorder
from penstock.schedule import Fill
from tests.engines.driving import job_of, lease, poll_for, poll_until

SLOW_S = 10 * TRIAL_BELOW_S


class Epoch:
    """An epoch whose batches take what a test says.

    Args:
        chooser: whose loader's it is.
    """

    def __init__(self, chooser: Chooser) -> None:
        chooser.begin_epoch()
        self.recorder = StatisticsRecorder(chooser.workers, 0.0)
        self.watch = EpochWatch(chooser, self.recorder)
        chooser._last = self.watch
        self.elapsed_s = 0.0

    def go(self, batches: int, *, wait_s: float, cost_s: float | None, step_s: float = 0.0) -> int:
        """Hands batches over; returns after how many it was tried without workers, or -1."""
        for number in range(batches):
            if self.watch.tries_alone():
                return number
            if cost_s is not None:
                self.watch.note_made(cost_s)
                self.recorder.busy_s += cost_s
            self.recorder.batches += 1
            self.recorder.waited_s += wait_s
            if self.recorder.first_wait_s is None:
                self.recorder.first_wait_s = wait_s
            self.elapsed_s += wait_s + step_s
        return -1

    def end(self) -> None:
        self.recorder._ended = self.recorder._began + self.elapsed_s


def chooser_of(most: int = 4, **settings) -> Chooser:
    return Chooser(most, "a test says so", **settings)


class TestLooks:
    def test_two_in_a_row_have_to_agree(self):
        looks, now = Looks(8), Tally(8)
        for slower in (True, False, True, False):
            now = now.plus(Tally(LOOK_BATCHES, 2.0 if slower else 0.1, LOOK_BATCHES, 1.0))
            looks.look(now.since(Tally(LOOK_BATCHES)))
        seen = None
        for _ in range(AGREEING):
            assert seen is None
            now = now.plus(Tally(LOOK_BATCHES, 2.0, LOOK_BATCHES, 1.0))
            seen = looks.look(now.since(Tally(LOOK_BATCHES)))
        assert seen is not None
        assert (seen.batches, seen.waited_s) == (LOOK_BATCHES, pytest.approx(2.0))

    def test_there_are_so_many_at_most(self):
        looks = Looks(0)
        for number in range(MOST_LOOKS + 1):
            assert looks.due < 1 << 60
            looks.look(Tally(LOOK_BATCHES * number, 0.0, number, 1.0))
        assert looks.due > 1 << 60

    @pytest.mark.parametrize(
        ("wait_s", "cost_s", "made", "may_be"),
        [
            (SLOW_S * 1.1, SLOW_S, 16, True),
            (SLOW_S * 0.9, SLOW_S, 16, False),
            (TRIAL_BELOW_S * 0.3, TRIAL_BELOW_S * 0.5, 16, True),
            (TRIAL_BELOW_S * 0.2, TRIAL_BELOW_S * 0.5, 16, False),
            (1.0, 0.0, 0, False),
        ],
    )
    def test_what_is_cheap_may_be_tried_on_a_chance(self, wait_s, cost_s, made, may_be):
        assert Tally(16, 16 * wait_s, made, made * cost_s).may_be_slower is may_be


class TestAmidAnEpoch:
    def test_the_first_batches_are_not_looked_at(self):
        epoch = Epoch(chooser_of(4))
        assert epoch.go(8, wait_s=1.0, cost_s=0.1) == -1
        assert epoch.go(200, wait_s=0.01, cost_s=0.1) == -1

    def test_it_is_tried_behind_two_looks(self):
        epoch = Epoch(chooser_of(4))
        assert epoch.go(100, wait_s=0.2, cost_s=0.1) == 2 * 4 + AGREEING * LOOK_BATCHES

    def test_a_trial_that_is_faster_is_for_good(self):
        chooser = chooser_of(4)
        epoch = Epoch(chooser)
        epoch.go(100, wait_s=0.2, cost_s=0.1)
        for _ in range(WARM_UP_BATCHES):
            assert epoch.watch.verdict() is None
            epoch.go(1, wait_s=5.0, cost_s=None)
        for _ in range(TRIAL_BATCHES):
            assert epoch.watch.verdict() is None
            epoch.go(1, wait_s=0.1, cost_s=None)
        assert epoch.watch.verdict() is True
        assert epoch.watch.verdict() is True
        assert chooser.workers == 0 == epoch.recorder.workers
        assert epoch.recorder.chosen is chooser.choice
        assert "200 ms" in chooser.choice.reason
        assert "100 ms" in chooser.choice.reason
        assert epoch.go(500, wait_s=9.0, cost_s=None) == -1

    def test_a_trial_that_is_slower_ends_and_is_made_again_a_few_times(self):
        chooser = chooser_of(4)
        for _ in range(MOST_TRIALS):
            epoch = Epoch(chooser)
            assert epoch.go(100, wait_s=0.2, cost_s=0.1) > 0
            verdict = None
            while verdict is None:
                verdict = epoch.watch.verdict()
                assert epoch.go(1, wait_s=0.3, cost_s=None) == -1
            assert verdict is False
            chooser._last = None
        assert Epoch(chooser).go(500, wait_s=0.2, cost_s=0.1) == -1
        assert chooser.workers == 4

    def test_nothing_is_tried_behind_a_death(self):
        chooser = chooser_of(4)
        epoch = Epoch(chooser)
        epoch.watch.note_death()
        assert epoch.go(500, wait_s=0.2, cost_s=0.1) == -1
        assert chooser.is_bound

    def test_nothing_is_tried_where_the_number_is_given(self):
        assert Epoch(chooser_of(4, is_bound=True)).go(500, wait_s=0.2, cost_s=0.1) == -1


class TestBetweenEpochs:
    def after(self, chooser: Chooser, batches: int, **took: float) -> int:
        epoch = Epoch(chooser)
        epoch.watch._looks.end()
        epoch.go(batches, **took)
        epoch.end()
        return chooser.begin_epoch()

    def test_an_epoch_that_waited_longer_than_it_worked_has_none_next(self):
        assert self.after(chooser_of(), 40, wait_s=0.2, cost_s=0.1) == 0

    def test_short_epochs_count_together(self):
        chooser = chooser_of()
        assert self.after(chooser, LOOK_BATCHES // 2, wait_s=0.2, cost_s=0.1) == 4
        assert self.after(chooser, LOOK_BATCHES // 2, wait_s=0.2, cost_s=0.1) == 0

    def test_workers_that_live_on_start_once(self):
        chooser = chooser_of(stays=True)
        epoch = Epoch(chooser)
        epoch.go(1, wait_s=60.0, cost_s=0.1)
        epoch.watch._looks.end()
        epoch.go(40, wait_s=0.05, cost_s=0.1)
        epoch.end()
        assert chooser.begin_epoch() == 4

    def test_fewer_do_for_a_loop_that_does_not_wait(self):
        chooser = chooser_of(8)
        assert self.after(chooser, 40, wait_s=0.0, cost_s=0.1, step_s=0.1) == 2
        assert "busy for 12%" in chooser.choice.reason
        assert self.after(chooser, 40, wait_s=0.0, cost_s=0.1, step_s=0.1) == 2

    def test_more_come_again_where_it_waits(self):
        chooser = chooser_of(8)
        self.after(chooser, 40, wait_s=0.0, cost_s=0.1, step_s=0.1)
        assert self.after(chooser, 40, wait_s=0.05, cost_s=0.2, step_s=0.1) == 4
        assert self.after(chooser, 40, wait_s=0.05, cost_s=0.4, step_s=0.1) == 8
        assert self.after(chooser, 40, wait_s=0.05, cost_s=0.8, step_s=0.1) == 8

    def test_there_are_no_more_than_batches_that_fit(self):
        chooser = chooser_of(8)
        chooser.note_room(3)
        chooser.note_room(5)
        assert self.after(chooser, 40, wait_s=0.05, cost_s=0.4, step_s=0.1) == 3
        assert "memory for 3 batches" in chooser.choice.reason

    def test_workers_come_again_where_it_is_slower_without(self):
        chooser = chooser_of()
        self.after(chooser, 40, wait_s=0.2, cost_s=0.1)
        assert self.after(chooser, 40, wait_s=0.21, cost_s=None) == 0
        assert self.after(chooser, 40, wait_s=0.3, cost_s=None) == 4
        assert "300 ms" in chooser.choice.reason

    def test_a_death_brings_workers_back_and_keeps_them(self):
        chooser = chooser_of()
        self.after(chooser, 40, wait_s=0.2, cost_s=0.1)
        chooser.bind("a test says so")
        assert chooser.begin_epoch() == 4
        chooser.bind("something else")
        assert chooser.choice.reason == "a test says so"


class Always(EpochWatch):
    """Says what a test wants."""

    wants = False
    says: bool | None = None

    def tries_alone(self) -> bool:
        wants, self.wants = self.wants, False
        return wants

    def verdict(self) -> bool | None:
        return self.says


class Numbers:
    def __init__(self, bad=()) -> None:
        self.bad = bad

    def __getitem__(self, index: int) -> int:
        if index in self.bad:
            raise ValueError(index)
        return index


@pytest.fixture
def begin(no_leaks):
    engines = []

    def make(dataset=None, workers=2, **settings) -> tuple[ChoosingEngine, Always]:
        engine = ChoosingEngine(job_of(dataset or Numbers(), seats=workers, **settings), workers)
        engines.append(engine)
        engine.start()
        engine.begin_epoch(EpochStart(0))
        engine.watch = Always(chooser_of(workers), StatisticsRecorder(workers, 0.0))
        return engine, engine.watch

    yield make
    while engines:
        engine = engines.pop()
        engine.close()
        engine.close()
        # Its journal is closed with it.
        del engine


class TestTheEngine:
    def test_what_workers_have_is_theirs_to_finish(self, begin):
        engine, watch = begin()
        for batch in range(4):
            engine.submit(lease(batch, [batch], seat=batch % 2))
        watch.wants = True
        events = engine.poll(0)
        assert engine.workers == 0
        engine.submit(lease(9, [9]))
        done = [e for e in events if isinstance(e, Done)]
        done += poll_for(engine, Done, 5 - len(done))
        assert {e.batch: e.result.open().value.item() for e in done} == {
            0: 0, 1: 1, 2: 2, 3: 3, 9: 9
        }  # fmt: skip

    def test_workers_leave_once_their_batches_were_opened(self, begin):
        engine, watch = begin()
        engine.submit(lease(0, [0]))
        (done,) = poll_for(engine, Done)
        watch.wants = watch.says = True
        engine.poll(0)
        assert engine.wait_handles() == []
        assert engine._crewed is not None
        assert done.result.open().value.item() == 0
        engine.submit(lease(1, [1]))
        assert poll_for(engine, Done)[0].result.open().value.item() == 1
        assert engine._crewed is None
        engine.flush()
        engine.begin_epoch(EpochStart(1))
        engine.submit(lease(0, [5]))
        assert poll_for(engine, Done)[0].result.open().value.item() == 5

    def test_a_held_batch_stays_where_it_is(self, begin):
        engine, watch = begin(Numbers(bad=(1, 4)), sample_errors="ask")
        theirs, ours = lease(0, [0, 1]), lease(1, [3, 4])
        engine.submit(theirs)
        poll_for(engine, Withheld)
        watch.wants = True
        engine.poll(0)
        engine.submit(ours)
        poll_for(engine, Withheld)
        engine.amend(theirs, {1: Fill("index", 2)})
        engine.amend(ours, {1: Fill("index", 5)})
        values = {e.batch: e.result.open().value.tolist() for e in poll_for(engine, Done, 2)}
        assert values == {0: [0, 2], 1: [3, 5]}

    def test_a_held_batch_is_finished_here_when_workers_go_on(self, begin):
        engine, watch = begin(Numbers(bad=(4,)), sample_errors="ask")
        watch.wants = True
        ours = lease(1, [3, 4])
        engine.poll(0)
        engine.submit(ours)
        poll_for(engine, Withheld)
        engine.submit(lease(2, [6]))
        watch.says = False
        assert poll_for(engine, Done)[0].result.open().value.tolist() == [6]
        assert engine.workers == 2
        engine.amend(ours, {1: Fill("index", 5)})
        assert poll_for(engine, Done)[0].result.open().value.tolist() == [3, 5]
        engine.recall(lease(7, [1]))

    def test_what_is_taken_back_is_not_made(self, begin):
        engine, watch = begin()
        watch.wants = True
        engine.poll(0)
        for batch in (1, 2):
            engine.submit(lease(batch, [batch]))
        engine.recall(lease(1, [1]))
        assert [e.batch for e in poll_for(engine, Done)] == [2]

    def test_a_death_amid_the_change_has_workers_go_on(self, begin):
        engine, watch = begin()
        engine.submit(lease(0, [0]))
        poll_for(engine, Done)[0].result.discard()
        victim = engine._crewed.pids()[0]
        engine._crewed.crew.seats[0].signal(19)
        engine.submit(lease(1, [1], seat=0))
        watch.wants = True
        engine.poll(0)
        assert engine.workers == 0
        engine._crewed.crew.seats[0].signal(9)
        events = poll_until(engine, lambda events: any(isinstance(e, Died) for e in events))
        assert victim
        assert engine.workers == 2
        assert watch._chooser.is_bound
        assert not any(isinstance(e, Done) for e in events)
        engine.restart(0)
        engine.submit(lease(1, [1], seat=0, attempt=1))
        assert poll_for(engine, Done)[0].result.open().value.item() == 1

    def test_without_workers_from_the_beginning(self, begin):
        engine, _ = begin(workers=0)
        assert (engine.seats, engine.arena, engine.anticipated) == (1, None, 0)
        assert engine.is_ours
        assert engine.ready_seats() == engine.wait_handles() == engine.poll(None) == []
        engine.submit(lease(0, [3]))
        assert poll_for(engine, Done)[0].result.open().value.item() == 3
        engine.release()
