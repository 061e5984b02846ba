"""What the wheel does where no worker can go on for want of memory."""

from __future__ import annotations

import pytest

from penstock.certificate import DeathCertificate
from penstock.checkpoint import Marks, Progress
from penstock.engines.protocol import Cramped, Died
from penstock.epoch.account import Account
from penstock.epoch.restarts import Restarts
from penstock.epoch.wheel import Wheel
from penstock.observe import StatisticsRecorder
from penstock.plan import GivenBatches, StreamTurns
from penstock.schedule import Death, Inquest, Pace, Scheduler, Splitting, Window


class CrampedEngine:
    """Its one worker waits for memory for the first batch, and nothing else happens."""

    seats = 2

    def __init__(self):
        self.lent = []
        self.recalled = []
        self.refused = []
        self.began_again = []
        self.also = []

    def submit(self, lease):
        self.lent.append(lease)

    def recall(self, lease):
        self.recalled.append(lease.batch)

    def refuse_room(self, lease):
        self.refused.append(lease.batch)

    def flush(self):
        pass

    def poll(self, _timeout_s):
        also, self.also = self.also, []
        return [Cramped(self.lent[0], 1), *also]

    def rewind(self, seat):
        self.began_again.append(f"worker {seat}, for memory")

    def restart(self, seat):
        self.began_again.append(f"worker {seat}, for it died")


@pytest.fixture
def engine():
    return CrampedEngine()


def wheel_of(engine, plan, *, seats=1, most_restarts=0):
    window = Window(3)
    scheduler = Scheduler(plan, window=window)
    for seat in range(seats):
        scheduler.add_worker(seat)
    restarts = Restarts(
        seats, range(seats), most=most_restarts, is_stream=plan.is_stream, tolerant=True
    )
    wheel = Wheel(
        engine,
        plan,
        scheduler,
        restarts,
        splitting=Splitting(scheduler.workers, None),
        pace=None,
        window=window,
        account=Account(scheduler, plan, Marks(in_order=True)),
        bad_samples=None,
        progress=Progress(),
        recorder=StatisticsRecorder(seats, 0.0),
    )
    wheel.give_work()
    assert [lease.batch for lease in engine.lent] == [0, 1, 2]
    return wheel


@pytest.fixture
def wheel(engine):
    return wheel_of(engine, GivenBatches([[0], [1], [2]], batched=True))


def test_room_is_made_by_what_is_behind_and_then_there_is_none(wheel, engine):
    wheel.turn(0.0)
    assert (engine.recalled, engine.refused) == ([1, 2], [])
    wheel.turn(0.0)
    assert (engine.recalled, engine.refused) == ([1, 2], [0])


def test_a_batch_in_hand_makes_room_before_anything_is_given_up_or_refused(wheel, engine):
    for _ in range(2):
        wheel.turn(0.0, in_hand=True)
    assert (engine.recalled, engine.refused) == ([], [])
    # It has been handed over, and has made none.
    wheel.turn(0.0)
    assert engine.recalled == [1, 2]


def test_streams_are_run_again_where_nothing_else_makes_room(engine):
    wheel = wheel_of(engine, StreamTurns(2), seats=2, most_restarts=1)
    wheel.turn(0.0)
    assert (engine.recalled, engine.began_again) == ([2], [])
    wheel.turn(0.0)
    assert engine.began_again == ["worker 1, for memory"]
    wheel.turn(0.0)
    assert engine.refused == [0]


def test_streams_are_not_run_again_where_no_worker_may_be_replaced(engine):
    wheel = wheel_of(engine, StreamTurns(2), seats=2)
    wheel.turn(0.0)
    assert (engine.recalled, engine.began_again, engine.refused) == ([], [], [0])


def test_where_a_stream_is_run_again_is_settled_before_its_worker_is_replaced(engine):
    wheel = wheel_of(engine, StreamTurns(2), seats=2, most_restarts=1)
    wheel.turn(0.0)
    engine.also = [Died(1, DeathCertificate(1, 4711, exit_code=0))]
    wheel.turn(0.0)
    assert engine.began_again == ["worker 1, for memory", "worker 1, for it died"]


class DyingEngine(CrampedEngine):
    """A worker crashes at the second sample of its part."""

    def poll(self, _timeout_s):
        also, self.also = self.also, []
        return also

    def die_at_the_last_lease(self):
        lease = self.lent[-1]
        death = Death((lease.batch, lease.attempt), place=3, by_itself=True)
        self.also.append(Died(lease.seat, DeathCertificate(lease.seat, 4711, -11), death))


def test_who_dies_at_a_part_makes_the_sample_suspect_that_it_was_at():
    engine = DyingEngine()
    plan = GivenBatches([[10, 11, 12, 13]], batched=True)
    pace = Pace()
    pace.note(4.0, 4, 0)
    scheduler = Scheduler(plan, window=Window(1), inquest=Inquest(killed=str))
    for seat in range(2):
        scheduler.add_worker(seat)
    wheel = Wheel(
        engine,
        plan,
        scheduler,
        Restarts(2, range(2), most=9, is_stream=False, tolerant=True),
        splitting=Splitting(scheduler.workers, pace),
        pace=pace,
        window=Window(1),
        account=Account(scheduler, plan, Marks(in_order=True)),
        bad_samples=None,
        progress=Progress(),
        recorder=StatisticsRecorder(2, 0.0),
    )
    wheel.give_work()
    assert [lease.part for lease in engine.lent] == [range(at, at + 1) for at in range(4)]
    engine.die_at_the_last_lease()
    wheel.turn(0.0)
    assert sorted(engine.recalled) == [0, 0]
    assert engine.lent[-1].probe == (3,)


class Clock:
    """Stands still, but where somebody lets it go on."""

    now = 100.0

    def __call__(self):
        return self.now

    def wait(self, _timeout_s):
        """What a poll that takes a second does."""
        self.now += 1.0
        return []


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("penstock.epoch.wheel.time.perf_counter", clock)
    return clock


def wheel_of_two(engine, plan, window, pace=None, **settings):
    scheduler = Scheduler(plan, window=window)
    for seat in range(2):
        scheduler.add_worker(seat)
    wheel = Wheel(
        engine,
        plan,
        scheduler,
        Restarts(2, range(2), most=9, is_stream=False, tolerant=True),
        splitting=Splitting(scheduler.workers, pace),
        pace=pace,
        window=window,
        account=Account(scheduler, plan, Marks(in_order=True)),
        bad_samples=None,
        progress=Progress(),
        recorder=StatisticsRecorder(2, 0.0),
        **settings,
    )
    wheel.give_work()
    return wheel, scheduler


def test_the_time_that_a_loop_waits_beside_idle_workers_is_told(monkeypatch, clock):
    """While batches are large, only that time widens the window."""
    told = []
    engine = DyingEngine()
    engine.poll = clock.wait
    window = Window(2, workers=2)
    monkeypatch.setattr(window, "note_starved", told.append)
    plan = GivenBatches([[0], [1], [2], [3]], batched=True)
    wheel, scheduler = wheel_of_two(engine, plan, window)
    wheel.note_wait()
    assert told == [], "both are at work"
    second = engine.lent[1]
    scheduler.completed(second.seat, second.batch, second.attempt, None)
    for _ in range(3):
        wheel.note_wait()
        wheel.turn(1.0)
        # What the loop does with a batch is no wait.
        clock.now += 5.0
    assert told == [0.0, 1.0, 1.0]


class TestParts:
    """Only a loop that waits has its batches made in parts."""

    @pytest.fixture
    def engine(self):
        return DyingEngine()

    @pytest.fixture
    def pace(self):
        pace = Pace()
        pace.note(4.0, 4, 0)
        return pace

    @pytest.fixture
    def begin(self, engine, pace):
        def begin(**settings):
            batches = [[number] * 4 for number in range(9)]
            return wheel_of_two(
                engine, GivenBatches(batches, batched=True), Window(1), pace, **settings
            )

        return begin

    def next_is_split(self, engine, wheel, scheduler):
        """The loop takes a batch; whether the one that is lent then is made in parts."""
        batch = max(lease.batch for lease in engine.lent)
        whole = scheduler.lease(batch)
        scheduler.completed(whole.seat, batch, whole.attempt, None)
        assert scheduler.pop().batch == batch
        wheel.note_plenty()
        wheel.give_work()
        return any(lease.part for lease in engine.lent if lease.batch == batch + 1)

    def test_the_first_one_is_waited_for(self, engine, begin):
        begin()
        assert all(lease.part for lease in engine.lent)

    def test_but_not_where_workers_have_begun_before(self, engine, begin):
        begin(hurried=False)
        assert not any(lease.part for lease in engine.lent)

    def test_while_the_loop_does_not_wait_batches_are_made_whole(self, engine, begin):
        wheel, scheduler = begin()
        split = [self.next_is_split(engine, wheel, scheduler) for _ in range(4)]
        assert split == [True, False, False, False]

    def test_who_has_waited_has_parts_for_as_many_batches_as_there_are_workers(
        self, engine, begin, clock
    ):
        wheel, scheduler = begin(hurried=False)
        assert not self.next_is_split(engine, wheel, scheduler)
        engine.poll = clock.wait
        wheel.turn(None)
        split = [self.next_is_split(engine, wheel, scheduler) for _ in range(4)]
        assert split == [True, False, False, False]

    def test_where_some_samples_are_slow_nobody_has_to_have_waited(self, engine, begin, pace):
        for cost_s in [4.0, 12.0] * 10:
            pace.note(cost_s, 4, 0)
        wheel, scheduler = begin(hurried=False)
        assert self.next_is_split(engine, wheel, scheduler)

    def test_a_look_that_takes_no_time_is_no_wait(self, engine, begin, clock):
        wheel, scheduler = begin(hurried=False)
        wheel.turn(None)
        assert not self.next_is_split(engine, wheel, scheduler)

    def test_who_is_told_to_come_back_later_waits(self, engine, begin):
        wheel, scheduler = begin(hurried=False)
        wheel.note_lack()
        assert self.next_is_split(engine, wheel, scheduler)
