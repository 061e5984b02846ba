"""Simulated workers for the scheduler, and what one worker without any trouble would give.

Samples are ints. `Scenario.fates` says what becomes of some of them:

    skip    cannot be made; the policy leaves it out
    value   cannot be made; the policy puts another value in its place
    raise   cannot be made; the policy gives its batch up
    break   can be made, and no batch can be collated with it
    kill    ends whoever makes it; the policy leaves it out

With `Scenario.raises` there is no such policy: whatever is wrong is an error of its batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from penstock.errors import SampleError
from penstock.plan import GivenBatches, RefillingBatches, StreamTurns
from penstock.schedule import Death, Fill, Lease

_UNMAKEABLE = frozenset({"skip", "value", "raise"})
_BAD = _UNMAKEABLE | {"kill"}
_DROPPED = "dropped"


@dataclass(frozen=True)
class Scenario:
    kind: str
    samples: int
    batch_size: int
    seats: int
    window: int
    in_order: bool
    widens: bool = False
    drop_last: bool = False
    asks: bool = True
    raises: bool = False
    plan_raises: bool = False
    fates: Mapping[int, str] = field(default_factory=dict)
    tells_place: bool = True
    dies_by: str = "a crash"

    def chunk(self, number: int, stream: int | None = None) -> list[int]:
        """A batch of the plan, or of one stream of it, as it is before anything goes wrong."""
        ids = range(self.samples) if stream is None else range(stream, self.samples, self.seats)
        return list(ids[number * self.batch_size : (number + 1) * self.batch_size])

    def chunks(self) -> list[list[int]]:
        """All batches; of several streams one of each in turn."""
        numbers = range(-(-self.samples // self.batch_size))
        if self.kind == "streams":
            turns = [self.chunk(number, stream) for number in numbers for stream in self.streams]
            return [chunk for chunk in turns if chunk]
        return [self.chunk(number) for number in numbers]

    @property
    def streams(self) -> range:
        return range(self.seats)

    def make_plan(self) -> Any:
        if self.kind == "refilling":
            return RefillingBatches(range(self.samples), self.batch_size, drop_last=self.drop_last)
        if self.kind == "streams":
            return StreamTurns(self.seats)
        return GivenBatches(self._sampled(), batched=True)

    def _sampled(self) -> Iterator[list[int]]:
        yield from self.chunks()
        if self.plan_raises:
            raise SamplerBug


class SamplerBug(Exception):
    """What the plan raises."""


class BatchBug(Exception):
    """A batch that cannot be made of the samples in it."""

    def __init__(self, contents: Sequence[object]) -> None:
        super().__init__(contents)
        self.contents = tuple(contents)


class SimulatedResult:
    """A batch that is somewhere; whoever gets it uses it, or discards it, once."""

    def __init__(self, contents: Sequence[object], skipped: Sequence[int]) -> None:
        self.contents = tuple(contents)
        self.skipped = tuple(skipped)
        self.uses: list[str] = []

    def use(self, how: str) -> None:
        assert not self.uses, f"{self.contents} was {self.uses[0]} before it was {how}"
        self.uses.append(how)


@dataclass(frozen=True)
class Reply:
    kind: str
    seat: int
    batch: int
    attempt: int
    body: Any = None

    def copy(self, **changes: Any) -> Reply:
        """The same reply once more, with a result of its own."""
        if isinstance(self.body, SimulatedResult):
            changes["body"] = SimulatedResult(self.body.contents, self.body.skipped)
        return replace(self, **changes)


@dataclass
class _Task:
    batch: int
    attempt: int
    places: list[object]
    unmade: list[int]
    probe: tuple[int, ...] = ()
    part: range | None = None
    gathered: Sequence[object] | None = None
    set_aside: list[int] = field(default_factory=list)
    sizes: tuple[int, ...] = ()

    def single(self, place: int) -> tuple[int, int]:
        """Of which batch a place is, and which place in that."""
        number = self.batch
        for size in self.sizes:
            if place < size:
                break
            number, place = number + 1, place - size
        return number, place

    def put(self, fills: Mapping[int, Fill]) -> None:
        for place, fill in fills.items():
            self.places[place] = _DROPPED if fill.kind == "drop" else fill.value
            if place in self.unmade:
                self.unmade.remove(place)
            if fill.kind == "index":
                self.unmade.append(place)
            if fill.kind == "bad":
                self.set_aside.append(place)


class SimulatedWorker:
    """Does its leases one after another, and answers each.

    Args:
        scenario: what becomes of the samples.
        seat: its number.
        position: batches of its stream that were settled before it came.
    """

    def __init__(self, scenario: Scenario, seat: int, position: int = 0) -> None:
        self.seat = seat
        self._scenario = scenario
        self._is_stream = scenario.kind == "streams"
        self._position = position
        self.alive = True
        self._todo: deque[_Task] = deque()
        self._held: dict[tuple[int, int], _Task] = {}

    @property
    def has_leases(self) -> bool:
        return bool(self._todo or self._held)

    @property
    def can_work(self) -> bool:
        # A stream's next batch begins where the one that is held ends.
        return self.alive and bool(self._todo) and not (self._is_stream and self._held)

    def death(self) -> Death:
        """What is known of this worker's death, if it is killed from outside and tells all."""
        if not self._todo:
            return Death(idle=True)
        task = self._todo[0]
        return Death((task.batch, task.attempt))

    def dies_of(self) -> Death | None:
        """How it dies of what it does next, if it does."""
        task = self._todo[0]
        for place in task.probe or task.unmade:
            if _fate(self._scenario.fates, task.places[place]) == "kill":
                number, within = task.single(place)
                return replace(
                    self.death(),
                    lease=(number, task.attempt),
                    place=within if self._scenario.tells_place else None,
                    by_itself=self._scenario.dies_by == "a crash",
                    of_memory=self._scenario.dies_by == "memory",
                )
        return None

    def submit(self, lease: Lease) -> None:
        ids: list[Any] = list(lease.indices)
        if self._is_stream:
            in_turn = [self.seat, self._position]
            assert ids == in_turn, "a stream is read from its beginning to its end"
            self._position += 1
            ids = list(self._scenario.chunk(ids[1], self.seat))
        unmade = list(range(len(ids)) if lease.part is None else lease.part)
        task = _Task(lease.batch, lease.attempt, ids, unmade, lease.probe, lease.part)
        task.sizes = lease.sizes
        if lease.pieces:
            task.unmade = []
            task.gathered = [sample for piece in lease.pieces for sample in _handed_on(piece)]
        task.put(lease.fills)
        self._todo.append(task)

    def amend(self, lease: Lease, fills: Mapping[int, Fill]) -> None:
        task = self._held.pop((lease.batch, lease.attempt))
        task.put(fills)
        self._todo.appendleft(task)

    def recall(self, lease: Lease) -> None:
        key = lease.batch, lease.attempt
        self._held.pop(key, None)
        kept = deque(task for task in self._todo if (task.batch, task.attempt) != key)
        if self._is_stream and len(kept) < len(self._todo):
            # It was not begun: the stream goes on with it.
            self._position = min(self._position, lease.indices[1])
        self._todo = kept

    def held_contents(self, batch: int) -> list[object]:
        """What is in the places of a held batch, the bad samples too."""
        tasks = [task for (number, _), task in self._held.items() if number == batch]
        return [sample for sample in tasks[-1].places if sample != _DROPPED]

    def work(self) -> Reply:
        """Does the next lease, as far as that is possible."""
        task = self._todo.popleft()
        kind, body = self._make(task)
        return Reply(kind, self.seat, task.batch, task.attempt, body)

    def _make(self, task: _Task) -> tuple[str, Any]:
        fates = self._scenario.fates
        if task.probe:
            return "probed", None
        if not task.places:
            return "emptied", None
        if task.sizes:
            fails = task.set_aside or any(
                _fate(fates, place) in {"break", *_UNMAKEABLE} for place in task.places
            )
            if fails:
                return "failed", BatchBug(task.places)
            ids = iter(task.places)
            return "completed", SimulatedResult([tuple(islice(ids, n)) for n in task.sizes], [])
        if task.gathered is not None:
            contents = list(task.gathered)
            if any(_fate(fates, sample) == "break" for sample in contents):
                return "failed", BatchBug(contents)
            return "completed", SimulatedResult(contents, [])
        if task.part is not None:
            samples = [task.places[place] for place in task.part]
            if any(_fate(fates, sample) in _UNMAKEABLE for sample in samples):
                return "failed", BatchBug(samples)
            return "part", SimulatedResult(samples, [])
        bad = [place for place in task.unmade if _fate(fates, task.places[place]) in _UNMAKEABLE]
        bad = sorted([*bad, *task.set_aside])
        if bad and self._scenario.raises:
            return "failed", BatchBug(task.places)
        if bad and self._scenario.asks:
            task.unmade, task.set_aside = [], []
            self._held[task.batch, task.attempt] = task
            return "withheld", [(place, sample_error(task.places[place])) for place in bad]
        skipped: list[Any] = [task.places[place] for place in bad]
        for place in bad:
            task.places[place] = _DROPPED
        contents = [sample for sample in task.places if sample != _DROPPED]
        if any(_fate(fates, sample) == "break" for sample in contents):
            return "failed", BatchBug([*contents, *skipped])
        return "completed", SimulatedResult(contents, skipped)


def _handed_on(piece: Any) -> Sequence[object]:
    """What is in a part, which its worker has from here on."""
    contents: Sequence[object] = piece.hand_on()
    return contents


def sample_error(index: object) -> SampleError:
    return SampleError(index, f"sample {index}", ValueError("bad"))


def instead_of(index: object) -> str:
    """What the policy puts in the place of a sample whose fate is `value`."""
    return f"instead of {index}"


def _fate(fates: Mapping[int, str], sample: object) -> str | None:
    return fates.get(sample) if isinstance(sample, int) else None


@dataclass
class Expected:
    """What an epoch gives, in order.

    Attributes:
        deliveries: batches as tuples, errors as `("error", contents)` or `("plan",)`.
        skipped: the samples in the skip report.
    """

    deliveries: list[tuple[object, ...]] = field(default_factory=list)
    skipped: list[int] = field(default_factory=list)


def run_sequentially(scenario: Scenario) -> Expected:
    """The epoch made by one pair of hands: a batch, its bad samples, then the next batch."""
    expected = Expected()
    size = scenario.batch_size
    if scenario.kind == "refilling":
        pool = deque(range(scenario.samples))
        while len(pool) >= (size if scenario.drop_last else 1):
            chunk = [pool.popleft() for _ in range(min(size, len(pool)))]
            _settle(scenario, chunk, pool, expected)
    else:
        for chunk in scenario.chunks():
            _settle(scenario, chunk, deque(), expected)
    if scenario.plan_raises:
        expected.deliveries.append(("plan",))
    return expected


def _settle(scenario: Scenario, chunk: Sequence[int], pool: deque[int], expected: Expected) -> None:
    fates, asks = scenario.fates, scenario.asks
    places: dict[int, object] = dict(enumerate(chunk))
    skipped: list[Any] = []
    new = list(places)
    while bad := [place for place in new if _fate(fates, places[place]) in _BAD]:
        new = []
        if asks and any(_fate(fates, places[place]) == "raise" for place in bad):
            expected.skipped += skipped
            expected.deliveries.append(("error", _in_order(places)))
            return
        for place in bad:
            sample = places.pop(place)
            if asks and _fate(fates, sample) == "value":
                places[place] = instead_of(sample)
                continue
            skipped.append(sample)
            if pool:
                places[place] = pool.pop()
                new.append(place)
        if scenario.drop_last and len(places) < len(chunk):
            expected.skipped += skipped
            return
    contents = _in_order(places)
    if any(_fate(fates, sample) == "break" for sample in contents):
        expected.skipped += skipped if asks else []
        expected.deliveries.append(("error", contents if asks else (*contents, *skipped)))
        return
    expected.skipped += skipped
    expected.deliveries.append(contents)


def _in_order(places: Mapping[int, object]) -> tuple[object, ...]:
    return tuple(places[place] for place in sorted(places))
