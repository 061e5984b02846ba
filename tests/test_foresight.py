"""Workers that live on begin the next epoch while the loop still has batches of this one."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    WeightedRandomSampler,
    get_worker_info,
)

import penstock
from penstock.engines.process import ProcessEngine
from tests.faults.roles import Log, Once

WORKERS = 2
LENGTH = 40
BATCH = 4
BATCHES = LENGTH // BATCH
# Batches that are begun ahead: two for each worker.
AHEAD = 4
PATIENCE_S = 30.0

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("no_leaks")]


class Logged(Dataset[torch.Tensor]):
    """Samples of random numbers; says which are made."""

    def __init__(self, log: Log) -> None:
        self.log = log

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> torch.Tensor:
        self.log(index)
        return torch.cat([torch.tensor([float(index)]), torch.rand(3)])


class KillsEarly(Logged):
    """Sample 3 ends its worker when it is made for the second time, once."""

    def __getitem__(self, index: int) -> torch.Tensor:
        if index == 3 and str(index) in self.log.lines():
            Once(self.log.path.parent, lambda: os.kill(os.getpid(), signal.SIGKILL))()
        return super().__getitem__(index)


@pytest.fixture
def log(tmp_path):
    return Log(tmp_path / "made")


@pytest.fixture
def dataset(log):
    return Logged(log)


def loader_of(dataset: Dataset, **options: Any) -> penstock.DataLoader:
    if "batch_sampler" not in options:
        options = {"batch_size": BATCH, **options}
    torch.manual_seed(7)
    return penstock.DataLoader(dataset, num_workers=WORKERS, persistent_workers=True, **options)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def finish_making(loader: penstock.DataLoader) -> None:
    """Hears of all of the epoch, as a loop does that goes on slowly."""
    run = loader._workers.run
    assert run is not None

    def finished() -> bool:
        run._source._turn(0.0)
        return run._source._scheduler.all_made

    wait_for(finished)


def run_epoch(loader: penstock.DataLoader, log: Log, *, early: bool) -> torch.Tensor:
    """One epoch, behind which the log holds what was made beyond it.

    Args:
        loader: it.
        log: of its dataset; holds what was made of this epoch before.
        early: whether the next epoch is to begin before this one is over.
    """
    batches = iter(loader)
    made = [next(batches) for _ in range(BATCHES - 1)]
    finish_making(loader)
    made.append(next(batches))
    if early:
        wait_for(lambda: len(log.lines()) >= LENGTH + AHEAD * BATCH)
    else:
        time.sleep(0.2)
    assert next(batches, None) is None
    lines = log.lines()
    assert Counter(lines[:LENGTH]) == Counter(map(str, range(LENGTH)))
    ahead = lines[LENGTH:]
    assert len(ahead) == (AHEAD * BATCH if early else 0)
    log.path.write_text("".join(f"{line}\n" for line in ahead))
    return torch.cat(made)


def epochs_without(monkeypatch: pytest.MonkeyPatch, loader: Any, count: int) -> list[torch.Tensor]:
    """The same epochs, each begun when it is asked for."""
    with monkeypatch.context() as patch:
        patch.setattr("penstock.beginning._foresight", lambda *_: None)
        return [torch.cat(list(loader)) for _ in range(count)]


def options_of(order: str, dataset: Dataset) -> dict[str, Any]:
    if order == "of a generator":
        return {"shuffle": True, "generator": torch.Generator().manual_seed(1)}
    if order == "of a batch sampler":
        return {"batch_sampler": BatchSampler(RandomSampler(range(LENGTH)), BATCH, False)}
    if order == "skipping":
        return {"shuffle": True, "on_error": "skip"}
    return {
        "given": {},
        "shuffled": {"shuffle": True},
        "seeded": {"shuffle": True, "seed": 5},
    }[order]


ORDERS = ["given", "shuffled", "seeded", "of a generator", "of a batch sampler", "skipping"]


@pytest.mark.parametrize("order", ORDERS)
def test_the_next_epoch_begins_early_and_is_the_same(monkeypatch, dataset, log, order):
    expected = epochs_without(monkeypatch, loader_of(dataset, **options_of(order, dataset)), 3)
    log.path.unlink()
    loader = loader_of(dataset, **options_of(order, dataset))
    before = torch.get_rng_state()
    for each in expected:
        # Nothing is made twice: the log begins with what was made early.
        assert torch.equal(run_epoch(loader, log, early=True), each)
    if order == "of a generator":
        assert torch.equal(torch.get_rng_state(), before)


def test_it_begins_under_every_start_method(dataset, log, start_method):
    loader = loader_of(dataset, shuffle=True, multiprocessing_context=start_method)
    for _ in range(2):
        run_epoch(loader, log, early=True)


def test_a_wrong_guess_is_not_used(monkeypatch, dataset, log):
    def epochs(loader):
        for number in range(4):
            torch.manual_seed(number)
            yield torch.cat(list(loader))

    with monkeypatch.context() as patch:
        patch.setattr("penstock.beginning._foresight", lambda *_: None)
        expected = list(epochs(loader_of(dataset, shuffle=True)))
    loader = loader_of(dataset, shuffle=True)
    for one, other in zip(epochs(loader), expected, strict=True):
        assert torch.equal(one, other)


def test_behind_two_wrong_guesses_no_more_are_made(dataset, log):
    loader = loader_of(dataset, shuffle=True)
    for number in range(3):
        torch.manual_seed(number)
        log.path.unlink(missing_ok=True)
        run_epoch(loader, log, early=number < 2)


def test_a_right_guess_makes_up_for_a_wrong_one(dataset, log):
    loader = loader_of(dataset, shuffle=True)
    for number in range(4):
        if number in (1, 3):
            # The guess was wrong: what was made for it is not of this epoch.
            torch.manual_seed(number)
            log.path.unlink()
        run_epoch(loader, log, early=True)


def test_the_same_order_with_other_random_numbers_is_a_wrong_guess(monkeypatch, dataset, log):
    def second(loader, run):
        run()
        loader.set_epoch(7)
        return torch.cat(list(loader))

    theirs = loader_of(dataset, seed=1)
    with monkeypatch.context() as patch:
        patch.setattr("penstock.beginning._foresight", lambda *_: None)
        expected = second(theirs, lambda: list(theirs))
    log.path.unlink()
    loader = loader_of(dataset, seed=1)
    assert torch.equal(second(loader, lambda: run_epoch(loader, log, early=True)), expected)


def test_the_epoch_that_a_sampler_is_told_is_expected(monkeypatch, dataset, log):
    def sampler():
        return DistributedSampler(dataset, num_replicas=1, rank=0, seed=3)

    def epochs(loader, run):
        for number in range(3):
            loader.sampler.set_epoch(number)
            yield run()

    theirs = loader_of(dataset, sampler=sampler())
    with monkeypatch.context() as patch:
        patch.setattr("penstock.beginning._foresight", lambda *_: None)
        expected = list(epochs(theirs, lambda: torch.cat(list(theirs))))
    log.path.unlink()
    loader = loader_of(dataset, sampler=sampler())
    found = list(epochs(loader, lambda: run_epoch(loader, log, early=True)))
    assert all(map(torch.equal, found, expected))


def test_a_state_between_epochs_is_the_same(monkeypatch, dataset, log):
    theirs = loader_of(dataset, shuffle=True)
    epochs_without(monkeypatch, theirs, 1)
    expected = theirs.state_dict()
    log.path.unlink()
    loader = loader_of(dataset, shuffle=True)
    run_epoch(loader, log, early=True)
    assert loader.state_dict() == expected


def test_a_state_that_is_loaded_in_between_is_taken_up(monkeypatch, dataset, log):
    theirs = loader_of(dataset, shuffle=True, seed=1)
    states = [theirs.state_dict()]
    expected = epochs_without(monkeypatch, theirs, 1)[0]
    loader = loader_of(dataset, shuffle=True, seed=1)
    log.path.unlink()
    run_epoch(loader, log, early=True)
    loader.load_state_dict(states[0])
    assert torch.equal(torch.cat(list(loader)), expected)


def test_a_worker_that_dies_of_it_costs_nothing(log, start_method):
    loader = loader_of(KillsEarly(log), multiprocessing_context=start_method)
    batches = iter(loader)
    first = [next(batches) for _ in range(BATCHES - 1)]
    finish_making(loader)
    first.append(next(batches))
    wait_for(lambda: len(list(log.path.parent.iterdir())) > 1)
    assert next(batches, None) is None
    second = list(loader)
    for epoch in (first, second):
        assert torch.cat(epoch)[:, 0].tolist() == list(range(LENGTH))


def test_who_breaks_off_or_never_asks_again_leaves_nothing(dataset, log):
    loader = loader_of(dataset, shuffle=True)
    run_epoch(loader, log, early=True)
    for batch in loader:
        assert batch.shape == (BATCH, 4)
        break
    run_epoch_of = [int(index) for batch in loader for index in batch[:, 0]]
    assert sorted(run_epoch_of) == list(range(LENGTH))


class Stateful(Logged):
    """What it gives may depend on its state."""

    def state_dict(self) -> dict[str, int]:
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        pass


class ToldTheEpoch(Logged):
    def set_epoch(self, number: int) -> None:
        pass


class NumberStream(IterableDataset[torch.Tensor]):
    def __iter__(self) -> Iterator[torch.Tensor]:
        worker = get_worker_info()
        assert worker is not None
        return map(torch.tensor, range(worker.id, LENGTH, WORKERS))


class OwnOrder(SequentialSampler):
    """Nobody knows what it does."""


def do_nothing(seat: int) -> None:
    pass


def unforeseeable(why: str, dataset: Logged) -> penstock.DataLoader:
    if why == "a function for its workers":
        return loader_of(dataset, worker_init_fn=do_nothing)
    if why == "a sampler of the program's":
        return loader_of(dataset, sampler=OwnOrder(dataset))
    if why == "a dataset with a state":
        return loader_of(Stateful(dataset.log))
    if why == "a stream":
        return loader_of(NumberStream())
    loader = loader_of(ToldTheEpoch(dataset.log))
    loader.set_epoch(1)
    return loader


def begun_early(loader: penstock.DataLoader) -> int:
    """How many batches of the next epoch have been begun when this one is all made."""
    finish_making(loader)
    engine = loader._workers._engine
    assert engine is not None
    return engine.anticipated


@pytest.mark.parametrize(
    "why",
    [
        "a function for its workers",
        "a sampler of the program's",
        "a dataset with a state",
        "a stream",
        "a dataset that is told the epoch",
    ],
)
def test_what_cannot_be_told_does_not_begin_early(dataset, why):
    loader = unforeseeable(why, dataset)
    batches = iter(loader)
    made = [next(batches) for _ in range(BATCHES - 1)]
    assert begun_early(loader) == 0
    made += batches
    assert sum(map(len, made)) == LENGTH


def test_an_epoch_behind_a_state_that_is_loaded_does_not_begin_early(dataset):
    loader = loader_of(dataset, shuffle=True, seed=1)
    state = loader.state_dict()
    batches = iter(loader)
    first = [next(batches)]
    loader.load_state_dict(state)
    first += [next(batches) for _ in range(BATCHES - 2)]
    assert begun_early(loader) == 0
    first += batches
    assert torch.equal(torch.cat(list(loader)), torch.cat(first))


def test_wrong_guesses_lose_no_slots(monkeypatch):
    monkeypatch.setattr("penstock.engines.early.MOST_WRONG", 1000)
    loader = loader_of(Large(), shuffle=True, prefetch_factor=2)
    for number in range(60):
        torch.manual_seed(number)
        for batch in loader:
            assert batch.shape == (BATCH, 20_000)
    engine = loader._workers._engine
    assert engine is not None
    # Those of an epoch, of the next, and of what is left of one before.
    assert len(engine.arena._slots) <= 3 * AHEAD


class Large(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.full((20_000,), float(index))


def test_batches_made_early_lie_in_slots_of_their_own():
    loader = loader_of(Large(), prefetch_factor=2)
    kept = []
    for number in range(6):
        batches = iter(loader)
        made = [next(batches) for _ in range(BATCHES - 1)]
        finish_making(loader)
        made.append(next(batches))
        # So that there is something to be carried over into the next epoch.
        engine = loader._workers._engine
        assert engine is not None
        wait_for(lambda engine=engine: _heard_early(engine))
        assert next(batches, None) is None
        assert torch.cat(made)[:, 7].tolist() == list(range(LENGTH))
        kept.append(made[number])
    for number, batch in enumerate(kept):
        assert batch[:, 0].tolist() == list(range(BATCH * number, BATCH * (number + 1)))


def _heard_early(engine: ProcessEngine) -> bool:
    engine.poll(0.0)
    return len(engine._early.results) == AHEAD


class Shared(Logged):
    """Says in each sample which epoch the program has told it, by memory that workers share."""

    def __init__(self, log: Log) -> None:
        super().__init__(log)
        self.epoch = torch.zeros(1).share_memory_()

    def __getitem__(self, index: int) -> torch.Tensor:
        self.log(index)
        return self.epoch.clone()


class Told(Shared):
    """Is told it in a way that only its class knows, and has `set_epoch`, as such classes do."""

    def __init__(self, log: Log, path: Any) -> None:
        Logged.__init__(self, log)
        self.path = path

    def set_epoch(self, epoch: int) -> None:
        self.path.write_text(str(epoch))

    def __getitem__(self, index: int) -> torch.Tensor:
        self.log(index)
        return torch.tensor([float(self.path.read_text())])


@pytest.mark.parametrize("way", ["shared memory", "set_epoch"])
def test_what_the_program_tells_workers_in_between_counts_for_all_of_an_epoch(tmp_path, log, way):
    dataset = Shared(log) if way == "shared memory" else Told(log, tmp_path / "epoch")
    loader = loader_of(dataset)
    for epoch in range(3):
        if isinstance(dataset, Told):
            dataset.set_epoch(epoch)
        else:
            dataset.epoch.fill_(epoch)
        log.path.unlink(missing_ok=True)
        assert run_epoch(loader, log, early=False).unique().tolist() == [epoch]


def test_an_order_that_cannot_be_drawn_yet_costs_nothing(dataset, log):
    sampler = WeightedRandomSampler(torch.ones(LENGTH), LENGTH)
    loader = loader_of(dataset, sampler=sampler)
    for _ in range(2):
        sampler.weights.fill_(1.0)
        batches = iter(loader)
        sampler.weights.zero_()
        made = [next(batches) for _ in range(BATCHES - 1)]
        finish_making(loader)
        made.append(next(batches))
        assert next(batches, None) is None
        assert len(torch.cat(made)) == LENGTH


def test_nothing_is_drawn_where_weights_lie_elsewhere(dataset):
    sampler = WeightedRandomSampler(torch.ones(LENGTH), LENGTH)
    loader = loader_of(dataset, sampler=sampler)
    batches = iter(loader)
    # As on an accelerator, whose generator is not put back.
    sampler.weights = sampler.weights.to("meta")
    run = loader._workers.run
    assert run is not None
    assert run._source._foresee is not None
    assert run._source._foresee() is None
    assert len(list(batches)) == BATCHES


class Asked(list):
    """An order that counts how often it was asked for."""

    asked = 0

    def __iter__(self):
        Asked.asked += 1
        return super().__iter__()


def test_a_sampler_that_was_changed_within_the_epoch_is_not_asked_twice(dataset, log):
    batch_sampler = BatchSampler(RandomSampler(range(LENGTH)), BATCH, False)
    loader = loader_of(dataset, batch_sampler=batch_sampler)
    batches = iter(loader)
    for _ in range(BATCHES):
        next(batches)
        batch_sampler.sampler = Asked(range(LENGTH))
    finish_making(loader)
    assert next(batches, None) is None
    assert Asked.asked == 0


def test_fewer_batches_at_once_than_were_begun_early(dataset, log):
    loader = loader_of(dataset, prefetch_factor=2)
    run_epoch(loader, log, early=True)
    loader.prefetch_factor = 1
    batches = iter(loader)
    engine = loader._workers._engine
    assert engine is not None
    # A worker that waits for memory for one of them would wait for ever, if another is lent it.
    assert not engine._early._opened
    assert [int(index) for batch in batches for index in batch[:, 0]] == list(range(LENGTH))


def test_a_worker_that_may_not_be_replaced_costs_the_epoch_before_nothing(log):
    loader = loader_of(KillsEarly(log), max_restarts=0)
    batches = iter(loader)
    made = [next(batches) for _ in range(BATCHES - 2)]
    engine = loader._workers._engine
    assert engine is not None
    workers = [psutil.Process(pid) for pid in engine.pids()]
    finish_making(loader)
    wait_for(lambda: any(worker.status() == psutil.STATUS_ZOMBIE for worker in workers))
    made.extend(batches)
    assert torch.cat(made)[:, 0].tolist() == list(range(LENGTH))
    assert len(loader.statistics().deaths) == 1
    again = [int(index) for batch in loader for index in batch[:, 0]]
    assert again == list(range(LENGTH))


def test_who_keeps_the_last_batches_has_the_room_that_there_would_be():
    # Enough for four in their slots, the copies of six, and what was made early, but for one batch.
    loader = loader_of(Wide(), memory_budget=33 << 20, prefetch_factor=2)
    for _ in range(3):
        batches = iter(loader)
        kept = []
        for number in range(BATCHES):
            if number == BATCHES - 3:
                finish_making(loader)
            kept.append(next(batches))
        assert next(batches, None) is None
        assert torch.cat(kept)[:, 0].tolist() == list(range(LENGTH))
        del kept


class Wide(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.full((120_000,), float(index))


class LargerOnceMade(Logged):
    """Its samples are large from when the last of them was made for the first time."""

    def __getitem__(self, index: int) -> torch.Tensor:
        size = (8 << 20) if len(self.log.lines()) >= LENGTH else (1 << 18)
        self.log(index)
        return torch.full((size // BATCH,), index, dtype=torch.uint8)


def test_workers_that_wait_for_memory_early_have_it_when_the_epoch_begins(log):
    loader = loader_of(LargerOnceMade(log), memory_budget=48 << 20, prefetch_factor=2)
    batches = iter(loader)
    made = [next(batches)[:, 0].tolist() for _ in range(BATCHES - 1)]
    finish_making(loader)
    engine = loader._workers._engine
    assert isinstance(engine, ProcessEngine)
    wait_for(lambda: engine.poll(0.0) == [] and len(engine._early._waiting) == WORKERS)
    made += [batch[:, 0].tolist() for batch in batches]
    again = [batch[:, 0].tolist() for batch in loader]
    assert made == again == torch.arange(LENGTH).view(BATCHES, BATCH).tolist()
