"""The scheduler under workers that die, answer late, twice, out of turn, or for somebody else.

Hypothesis plays the workers, the pipes and the training loop, a step at a time and in any
order. Whatever happens, each planned sample is delivered once or skipped once, no result is lost or
used twice, and what is delivered in order is what one worker without any trouble would give.
Samples that end whoever makes them are found, and skipped like other bad ones. Memory runs short at
any moment: the window is narrowed, what has arrived is given up for a batch that has no room, and
what a worker was killed at for memory is made again while nothing else is.

It fails when the comparison of attempts in `Scheduler._live` is removed, and so it does for that
of the seats, and for that of the state.
"""

from __future__ import annotations

from collections import Counter
from copy import copy
from dataclasses import replace
from typing import Any

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from penstock.errors import SampleError
from penstock.plan import StreamTurns
from penstock.schedule import (
    Amend,
    Death,
    Discard,
    Fill,
    Inquest,
    Issue,
    Lease,
    Recall,
    Rewind,
    Scheduler,
    Window,
)
from penstock.schedule.batch import OVER
from penstock.schedule.hunt import DEATHS_BY_OTHERS
from tests.schedule.simulation import (
    BatchBug,
    Reply,
    SamplerBug,
    Scenario,
    SimulatedResult,
    SimulatedWorker,
    instead_of,
    run_sequentially,
)

# An epoch of the largest scenario is over in fewer turns than this, or never.
MOST_TURNS = 300


@st.composite
def scenarios(draw):
    kind = draw(st.sampled_from(["refilling", "refilling", "given", "streams"]))
    samples = draw(st.integers(0, 20))
    fates = ["skip", "skip", "skip", "value", "raise", "break"]
    if kind != "streams":
        fates += ["kill", "kill"]
    return Scenario(
        kind=kind,
        samples=samples,
        batch_size=draw(st.integers(1, 4)),
        seats=draw(st.integers(1, 3)),
        window=draw(st.integers(1, 6)),
        widens=draw(st.booleans()),
        in_order=draw(st.booleans()),
        drop_last=kind == "refilling" and draw(st.booleans()),
        asks=kind == "refilling" or draw(st.booleans()),
        plan_raises=kind == "given" and draw(st.booleans()),
        fates=draw(
            st.dictionaries(st.integers(0, max(0, samples - 1)), st.sampled_from(fates), max_size=8)
        ),
        tells_place=draw(st.booleans()),
        dies_by=draw(st.sampled_from(["a crash", "a signal", "memory"])),
    )


picks = st.integers(0, 999)


class Epoch(RuleBasedStateMachine):
    """One epoch, driven as `penstock.epoch` drives it, by workers without manners."""

    def __init__(self) -> None:
        super().__init__()
        self.scenario: Any = None

    @initialize(scenario=scenarios())
    def begin(self, scenario):
        self.scenario = scenario
        self.expected = run_sequentially(scenario)
        self.plan = scenario.make_plan()
        refilling = scenario.kind == "refilling"
        self.lending = Window(scenario.window, workers=scenario.seats * scenario.widens)
        self.scheduler: Scheduler[SimulatedResult] = Scheduler(
            self.plan,
            window=self.lending,
            in_order=scenario.in_order,
            donors=self.plan if refilling else None,
            inquest=Inquest(killed=None if scenario.kind == "streams" else lambda index: index),
        )
        self.accused: Counter = Counter()
        self.window = self.widest = scenario.window
        # Batches that workers were killed at for memory.
        self.alone: set[int] = set()
        self.workers: dict[int, SimulatedWorker] = {}
        self.given_up: list[SimulatedWorker] = []
        self.mail: list[Reply] = []
        self.results: list[SimulatedResult] = []
        # What is known from the outside: the attempts that were ever issued, those that may
        # still answer, those that wait for an answer, and what has arrived.
        self.issued: dict[tuple[int, int], tuple[Lease, Any]] = {}
        self.live: dict[int, tuple[int, int]] = {}
        self.open: set[int] = set()
        self.arrived: dict[int, object] = {}
        self.undelivered: set[int] = set()
        self.left_out = 0
        # Where in which stream batches are.
        self.places: dict[int, Any] = {}
        self.settled_of_stream: Counter = Counter()
        self.numbers: list[int] = []
        self.deliveries: list[tuple[Any, ...]] = []
        self.skipped: list[int] = []
        self.replaced: list[int] = []
        for seat in range(scenario.seats):
            self.restart(seat)
        self.fill()

    # The training loop's part.

    @rule()
    def fill(self):
        self.scheduler.fill()
        self.carry_out()

    @rule()
    def decide(self):
        self.answer_questions()
        self.carry_out()

    @rule()
    def deliver(self):
        deliverable = self.scheduler.deliverable
        delivery = self.scheduler.pop()
        assert deliverable == (delivery is not None)
        if delivery is None:
            return
        if delivery.batch is None:
            assert isinstance(delivery.error, SamplerBug)
            assert not self.undelivered
            self.deliveries.append(("plan",))
            return
        self.numbers.append(delivery.batch)
        self.undelivered.remove(delivery.batch)
        self.arrived.pop(delivery.batch)
        if delivery.error is not None:
            assert isinstance(delivery.error, BatchBug)
            self.deliveries.append(("error", delivery.error.contents))
            return
        result = delivery.result
        assert result is not None
        result.use("delivered")
        self.deliveries.append(result.contents)
        self.skipped += result.skipped

    @rule(late=st.sets(st.integers(0, 5)))
    def take_a_turn(self, late=frozenset()):
        """What an epoch does all the time; the replies of some seats, or batches, come late."""
        for worker in [*self.workers.values(), *self.given_up]:
            while worker.can_work:
                self.send(worker)
        is_stream = self.scenario.kind == "streams"
        for reply in list(self.mail):
            if (reply.seat if is_stream else reply.batch % 6) not in late:
                self.mail.remove(reply)
                self.receive(reply)
        self.answer_questions()
        self.scheduler.fill()
        self.carry_out()
        for _ in range(2):
            self.deliver()

    @rule(quick=st.booleans())
    @precondition(lambda self: self.scenario.widens)
    def want_more(self, quick):
        """The loop waits, or batches come quickly."""
        if quick:
            self.lending.note_done(0.0, 0)
        else:
            if self.scheduler.starves:
                self.lending.note_starved()
        self.window = self.lending.size
        self.widest = max(self.widest, self.window)
        self.scheduler.fill()
        self.carry_out()

    @rule(window=st.integers(0, 6))
    def narrow(self, window):
        """Only so many batches fit in memory."""
        self.scheduler.narrow(window)
        self.window = min(self.window, max(1, window))

    @rule(pick=picks, enough=st.booleans())
    @precondition(lambda self: self.in_work)
    def make_room(self, pick, enough):
        """A batch does not fit in memory beside what is not handed over before it."""
        if self.scheduler.deliverable or self.scheduler.open_batch() is not None:
            return
        is_stream = self.scenario.kind == "streams"
        cramped = self.in_work
        if is_stream:
            # Of what a stream's worker was lent, the first has been begun. Who waits for room has
            # been heard to the last word.
            cramped = self.begun
            if not cramped or any(reply.seat in self.workers for reply in self.mail):
                return
        batch = following = cramped[pick % len(cramped)]
        given_up = set(self.live)
        if self.scenario.in_order:
            # One of a stream whose worker is not there was not lent yet.
            following = min(self.scheduler._batches)
            given_up |= {n for n, body in self.arrived.items() if isinstance(body, SimulatedResult)}
        given_up.discard(following)
        assert self.scheduler.make_room(batch, are_streams=is_stream) == bool(given_up)
        self.carry_out()
        if given_up:
            self.alone.add(following)
        if is_stream and not enough:
            # What was not begun was given up first.
            self.scheduler.make_room(batch, are_streams=is_stream)
            self.carry_out()
        if not (is_stream and enough):
            assert not given_up & (set(self.arrived) | set(self.live))

    # The workers' part.

    @rule(pick=picks)
    @precondition(lambda self: self.busy)
    def work(self, pick):
        self.send(self.busy[pick % len(self.busy)])

    @rule(pick=picks, again=st.booleans())
    @precondition(lambda self: self.mail)
    def hear(self, pick, again):
        """A reply arrives, in any order, and may arrive once more."""
        reply = self.mail[pick % len(self.mail)]
        if self.scenario.kind == "streams":
            # A worker's replies stay in their order, and for a stream that matters.
            reply = next(each for each in self.mail if each.seat == reply.seat)
        self.mail.remove(reply)
        if again:
            self.post(reply.copy())
        self.receive(reply)

    @rule(pick=picks, seat=st.integers(0, 3))
    @precondition(lambda self: self.mail)
    def hear_from_the_wrong_seat(self, pick, seat):
        reply = self.mail[pick % len(self.mail)]
        if reply.seat != seat:
            other = reply.copy(seat=seat)
            self.note(other)
            self.receive(other)

    @rule(pick=picks, goes_on=st.booleans(), tells=st.sampled_from(["", "where", "of memory"]))
    @precondition(lambda self: self.workers)
    def die(self, pick, goes_on, tells):
        """A worker is given up; what it sent, or still sends, arrives later."""
        seat = sorted(self.workers)[pick % len(self.workers)]
        worker = self.workers[seat]
        death = worker.death() if tells else Death()
        if tells == "of memory":
            # It is certified behind all that the worker has sent: what comes before in its stream
            # is over then.
            heard = not any(reply.seat == seat for reply in self.mail)
            death = replace(death, of_memory=worker.can_work and heard)
        held = {batch for batch, (_, lent_to) in self.live.items() if lent_to == seat}
        oldest = next((batch for batch in self.live if batch in held - self.open), None)
        if tells:
            oldest = death.lease[0] if death.lease is not None else None
            known = self.live.get(oldest) == (death.lease and death.lease[1], seat)
            oldest = oldest if known and oldest not in self.open else None
        if not self.may_die_at(oldest):
            return
        if goes_on:
            self.given_up.append(worker)
        suspect = self.bury(seat, death)
        assert (suspect.batch if suspect is not None else None) == oldest

    def may_die_at(self, batch):
        """An innocent sample is not killed at twice, alone: whoever sees that, finds it guilty."""
        lease = self.scheduler.lease(batch) if batch is not None else None
        if lease is None or len(lease.probe) != 1:
            return True
        sample = lease.index_at(lease.probe[0])
        self.accused[sample] += 1
        return self.accused[sample] < DEATHS_BY_OTHERS or self.scenario.fates.get(sample) == "kill"

    def bury(self, seat, death):
        del self.workers[seat]
        held = {batch for batch, (_, lent_to) in self.live.items() if lent_to == seat}
        for batch in held:
            del self.live[batch]
        self.open -= held
        suspect = self.scheduler.remove_worker(seat, death)
        if suspect is not None and death.of_memory:
            self.alone.add(suspect.batch)
        return suspect

    @rule(pick=picks)
    @precondition(lambda self: self.absent)
    def come_back(self, pick):
        self.restart(self.absent[pick % len(self.absent)])

    # What must hold after each step.

    @invariant()
    def the_window_is_not_exceeded(self):
        assert len(self.undelivered) <= self.widest

    @invariant()
    def a_lease_names_what_was_lent(self):
        """Also one that is wanted no more: its worker may die of it yet."""
        assert all(lease.indices == lent for lease, lent in self.issued.values())

    @invariant()
    def what_is_ready_is_counted(self):
        batches = self.scheduler._batches.values()
        assert self.scheduler.ready == sum(batch.state in OVER for batch in batches)

    @invariant()
    def batches_in_order_ascend(self):
        if self.scenario.in_order:
            assert self.numbers == sorted(set(self.numbers))

    @invariant()
    def no_sample_is_used_twice(self):
        assert set(self.account().values()) <= {1}

    @invariant()
    def what_came_in_order_is_what_was_to_be_expected(self):
        if self.scenario.in_order:
            expected = self.expected.deliveries
            assert self.deliveries == expected[: len(self.deliveries)]

    @invariant()
    def refilled_batches_are_full_but_for_the_last(self):
        scenario = self.scenario
        if scenario.kind == "refilling":
            batches = [batch for batch in self.deliveries if batch[:1] != ("error",)]
            full = batches if scenario.drop_last else batches[:-1]
            if scenario.in_order or scenario.drop_last:
                assert all(len(batch) == scenario.batch_size for batch in full)

    def teardown(self):
        if self.scenario is not None:
            self.run_to_the_end()
            self.nothing_is_left()
            self.each_sample_came_once()

    def run_to_the_end(self):
        for _ in range(MOST_TURNS):
            while self.absent:
                self.come_back(0)
            self.take_a_turn()
            if self.scheduler.finished and not self.mail and not self.busy:
                return
        raise AssertionError("the epoch does not come to its end")

    def nothing_is_left(self):
        assert not self.scheduler.deliverable
        assert self.scheduler.pop() is None
        assert self.scheduler.ready == 0
        assert not any(worker.has_leases for worker in self.workers.values())
        assert not self.live
        assert not self.arrived
        assert [result.uses for result in self.results if len(result.uses) != 1] == []

    def each_sample_came_once(self):
        scenario, account = self.scenario, self.account()
        assert set(account.values()) <= {1}
        missing = set(range(scenario.samples)) - set(account)
        if not scenario.drop_last:
            assert not missing
        elif scenario.in_order:
            assert len(missing) < scenario.batch_size
        else:
            assert len(missing) < scenario.batch_size * (1 + self.left_out)
        if scenario.in_order:
            assert self.deliveries == self.expected.deliveries
            assert self.skipped == self.expected.skipped
        elif scenario.kind != "refilling":
            assert Counter(self.deliveries) == Counter(self.expected.deliveries)

    # How it is done.

    @property
    def busy(self) -> list[SimulatedWorker]:
        everyone = [*self.workers.values(), *self.given_up]
        return [worker for worker in everyone if worker.can_work]

    @property
    def in_work(self) -> list[int]:
        """Batches that are with a worker which does not wait for an answer."""
        return sorted(set(self.live) - self.open)

    @property
    def may_be_worked_on(self) -> list[int]:
        """Those of them that do not wait behind another one of their stream for its answer."""
        waiting = {self.live[batch][1] for batch in self.open if self.scenario.kind == "streams"}
        return [batch for batch in self.in_work if self.live[batch][1] not in waiting]

    @property
    def begun(self) -> list[int]:
        """Batches that workers work on."""
        heads = [worker.death().lease for worker in self.workers.values() if worker.can_work]
        return sorted(head[0] for head in heads if head is not None)

    @property
    def absent(self) -> list[int]:
        return [seat for seat in range(self.scenario.seats) if seat not in self.workers]

    def account(self) -> Counter:
        """How often each sample was delivered, skipped, replaced, or lost with its batch."""
        account = Counter([*self.skipped, *self.replaced])
        for kind, *rest in filter(None, self.deliveries):
            samples = rest[0] if kind == "error" else [kind, *rest]
            account.update(sample for sample in samples if isinstance(sample, int))
        return account

    def restart(self, seat):
        self.workers[seat] = SimulatedWorker(self.scenario, seat, self.settled_of_stream[seat])
        self.scheduler.add_worker(seat)

    def send(self, worker):
        death = worker.dies_of()
        if death is None:
            self.post(worker.work())
            return
        worker.alive = False
        if self.workers.get(worker.seat) is worker:
            self.bury(worker.seat, death)

    def post(self, reply):
        self.note(reply)
        self.mail.append(reply)

    def note(self, reply):
        if isinstance(reply.body, SimulatedResult):
            self.results.append(reply.body)

    def receive(self, reply):
        is_live = self.live.get(reply.batch) == (reply.attempt, reply.seat)
        counts = self.tell(reply)
        assert counts == (is_live and reply.batch not in self.open), reply
        if not counts:
            if isinstance(reply.body, SimulatedResult):
                reply.body.use("discarded, for it does not count")
        elif reply.kind == "withheld":
            self.open.add(reply.batch)
        elif reply.kind == "probed":
            del self.live[reply.batch]
        else:
            self.settled_of_stream[reply.seat] += 1
            del self.live[reply.batch]
            if reply.kind == "emptied":
                self.undelivered.remove(reply.batch)
            else:
                self.arrived[reply.batch] = reply.body

    def tell(self, reply) -> bool:
        where = reply.seat, reply.batch, reply.attempt
        if reply.kind == "completed":
            return self.scheduler.completed(*where, reply.body)
        if reply.kind == "failed":
            return self.scheduler.failed(*where, reply.body)
        if reply.kind == "withheld":
            return self.scheduler.withheld(*where, reply.body)
        if reply.kind == "probed":
            return self.scheduler.probed(*where)
        if where[0] in self.scenario.streams and isinstance(self.plan, StreamTurns):
            self.plan.end_stream(reply.seat)
        return self.scheduler.emptied(*where)

    def answer_questions(self):
        while (question := self.scheduler.open_batch()) is not None:
            batch, failures = question
            assert batch in self.open
            self.open.remove(batch)
            fates = [self.scenario.fates[error.index] for _, error in failures]
            if "raise" in fates:
                seat = self.live[batch][1]
                contents = self.workers[seat].held_contents(batch)
                error = BatchBug(contents)
                self.scheduler.fail(batch, error)
                self.arrived[batch] = error
                self.settled_of_stream[seat] += 1
            else:
                fills = {place: self.decide_on(error) for place, error in failures}
                self.scheduler.resolve(batch, fills)

    def decide_on(self, error: SampleError) -> Fill:
        index: Any = error.index
        if self.scenario.fates[index] == "value":
            self.replaced.append(index)
            return Fill("value", instead_of(index))
        self.skipped.append(index)
        return Fill("drop")

    def carry_out(self):
        for command in self.scheduler.commands():
            if isinstance(command, Rewind):
                self.rewind(command.seat)
                continue
            if isinstance(command, Discard):
                command.result.use("discarded on command")
                self.arrived = {
                    batch: body
                    for batch, body in self.arrived.items()
                    if body is not command.result
                }
                continue
            lease = command.lease
            worker = self.workers[lease.seat]
            key = lease.batch, lease.attempt
            if isinstance(command, Issue):
                assert key not in self.issued, "an attempt is issued once"
                assert lease.batch not in self.live, "a batch is with one worker"
                self.check_memory(lease.batch)
                self.issued[key] = lease, copy(lease.indices)
                if self.scenario.kind == "streams":
                    self.places[lease.batch] = lease.indices
                self.live[lease.batch] = lease.attempt, lease.seat
                self.undelivered.add(lease.batch)
                # A batch that failed, and was robbed behind the frontier, is tried once more.
                self.arrived.pop(lease.batch, None)
                worker.submit(lease)
                continue
            assert self.live[lease.batch] == (lease.attempt, lease.seat)
            if isinstance(command, Amend):
                worker.amend(lease, command.fills)
                # Nothing tells a question that was answered from the next one about the
                # same lease: no engine may repeat it then.
                self.mail = [
                    reply
                    for reply in self.mail
                    if reply.kind != "withheld" or (reply.batch, reply.attempt) != key
                ]
            elif isinstance(command, Recall):
                del self.live[lease.batch]
                self.open.discard(lease.batch)
                worker.recall(lease)
        if self.scenario.kind == "refilling":
            used_up = {batch for batch in self.undelivered if not self.is_left(batch)}
            self.undelivered -= used_up
            self.left_out += len(used_up)
            for batch in used_up:
                self.arrived.pop(batch, None)

    def rewind(self, seat):
        """A new worker begins behind what was delivered, or cannot be made."""
        for batch in [n for n, (_, lent_to) in self.live.items() if lent_to == seat]:
            del self.live[batch]
            self.open.discard(batch)
        arrived = sorted(n for n in self.arrived if self.places[n][0] == seat)
        while arrived and isinstance(self.arrived[arrived[0]], BatchBug):
            del arrived[0]
        for batch in arrived:
            self.settled_of_stream[seat] = min(self.settled_of_stream[seat], self.places[batch][1])
            if isinstance(self.arrived[batch], BatchBug):
                del self.arrived[batch]
        if seat in self.workers:
            self.workers[seat] = SimulatedWorker(self.scenario, seat, self.settled_of_stream[seat])

    def check_memory(self, batch):
        """A batch may be begun, as far as memory goes."""
        if batch in self.alone:
            assert not self.may_be_worked_on, "it is made alone"
        assert not self.alone.intersection(self.in_work), "another is made alone"
        others = {each for each in self.undelivered if each != batch and self.is_left(each)}
        held = others & (set(self.live) | set(self.arrived))
        assert len(held) < self.window or batch < min(others), "there is room for fewer"

    def is_left(self, batch) -> bool:
        return self.scenario.kind != "refilling" or bool(self.plan.indices(batch))


TestEpoch = Epoch.TestCase
TestEpoch.settings = settings(
    max_examples=500,
    stateful_step_count=60,
    # The steps of one failure are what is needed, soon, and not which lines they ran.
    report_multiple_bugs=False,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
)
