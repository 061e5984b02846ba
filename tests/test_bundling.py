"""Several small batches in one lease, with real workers: what is handed over is the same."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset

import penstock
from penstock.engines.shared_result import SharedResult
from penstock.errors import ClosedError

BATCH_SIZE, BATCHES = 4, 400
BAD = BATCH_SIZE * (BATCHES - 50) + 1


class Numbers(Dataset[Any]):
    """Samples that take no time, but for one near the end."""

    def __init__(self, *, random: bool = False, bad: str = "") -> None:
        self.random = random
        self.bad = bad

    def __len__(self) -> int:
        return BATCH_SIZE * BATCHES

    def __getitem__(self, index: int) -> Any:
        if index == BAD and self.bad:
            self.fail()
        if self.random and index > len(self) // 2:
            return index, float(np.random.random()), torch.rand(2)
        return index, 0.5, torch.zeros(2)

    def fail(self) -> None:
        if self.bad == "raise":
            raise ValueError("it cannot be read")
        if self.bad == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.bad == "hang":
            time.sleep(60)


@pytest.fixture
def bundles(monkeypatch):
    """How many bundles of how many batches were opened."""
    opened: Counter[int] = Counter()
    original = SharedResult.open_all

    def open_all(self: SharedResult) -> Any:
        batches = original(self)
        opened[len(batches)] += 1
        return batches

    monkeypatch.setattr(SharedResult, "open_all", open_all)
    return opened


def loader_of(dataset: Any, workers: int = 2, **options: Any) -> Any:
    return penstock.DataLoader(dataset, BATCH_SIZE, num_workers=workers, **options)


def told(loader: Any) -> list[Any]:
    """All batches as plain data; in the place of one, its error."""
    batches: list[Any] = []
    iterator = iter(loader)
    while True:
        try:
            batches.append(plain(next(iterator)))
        except StopIteration:
            return batches
        except Exception as error:
            batches.append(error)


def plain(batch: Any) -> Any:
    if isinstance(batch, torch.Tensor):
        return batch.tolist()
    return [plain(part) for part in batch] if isinstance(batch, (list, tuple)) else batch


@pytest.mark.parametrize("random", [False, True], ids=["plain", "draws late"])
def test_batches_are_as_one_process_makes_them(start_method, bundles, random):
    dataset = Numbers(random=random)
    options = {"shuffle": True, "seed": 3}
    expected = told(loader_of(dataset, 0, **options))
    loader = loader_of(dataset, **options, multiprocessing_context=start_method)
    assert told(loader) == expected
    assert sum(bundles) > 1, "batches were lent together"
    assert loader.statistics().batches == BATCHES


def test_samples_that_are_fetched_at_once_are(bundles):
    class Many(Numbers):
        def __getitems__(self, indices: list[int]) -> list[Any]:
            assert len(indices) == BATCH_SIZE
            return [self[index] for index in indices]

    assert told(loader_of(Many())) == told(loader_of(Numbers(), 0))
    assert bundles


def test_a_collate_function_may_use_its_memory_again(bundles):
    class Again:
        def __init__(self) -> None:
            self.memory = torch.zeros(BATCH_SIZE, dtype=torch.int64)

        def __call__(self, samples: list[Any]) -> torch.Tensor:
            self.memory.copy_(torch.tensor([sample[0] for sample in samples]))
            return self.memory

    batches = told(loader_of(Numbers(), collate_fn=Again()))
    assert [index for batch in batches for index in batch] == list(range(BATCH_SIZE * BATCHES))
    assert bundles


def test_an_error_stands_for_its_own_batch(bundles):
    batches = told(loader_of(Numbers(bad="raise")))
    (at,) = [number for number, batch in enumerate(batches) if isinstance(batch, Exception)]
    assert (at, len(batches)) == (BAD // BATCH_SIZE, BATCHES)
    assert f"sample {BAD}" in str(batches[at])
    assert bundles


@pytest.mark.parametrize(("bad", "options"), [("crash", {}), ("hang", {"sample_timeout": 0.5})])
def test_a_worker_that_dies_is_certified_with_its_sample(start_method, bundles, bad, options):
    loader = loader_of(Numbers(bad=bad), multiprocessing_context=start_method, **options)
    batches = told(loader)
    (at,) = [number for number, batch in enumerate(batches) if isinstance(batch, Exception)]
    assert (at, len(batches)) == (BAD // BATCH_SIZE, BATCHES)
    deaths = loader.statistics().deaths
    assert {death.index for death in deaths} == {BAD}
    assert deaths[0].batch == at
    first = at * BATCH_SIZE
    assert deaths[0].indices == f"samples {list(range(first, first + BATCH_SIZE))}"
    assert bundles


def test_a_state_counts_what_was_handed_over_alone(bundles):
    options = {"shuffle": True, "seed": 3}
    expected = told(loader_of(Numbers(), 0, **options))
    loader = loader_of(Numbers(), **options)
    iterator = iter(loader)
    before = [plain(next(iterator)) for _ in range(BATCHES // 2 + 3)]
    assert bundles
    state = loader.state_dict()
    del iterator
    again = loader_of(Numbers(), 0, **options)
    again.load_state_dict(state)
    assert before + told(again) == expected


def test_a_process_that_was_forked_is_refused_what_came_together(bundles):
    iterator = iter(loader_of(Numbers()))
    while not iterator._source._pending:
        next(iterator)
    pid = os.fork()
    if pid == 0:
        code = 4
        try:
            next(iterator)
        except ClosedError:
            code = 3
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
    assert sum(1 for _ in iterator) > 0


def test_memory_of_several_comes_back(bundles):
    class Large(Numbers):
        def __getitem__(self, index: int) -> Any:
            return torch.full((2048,), index)

    loader = loader_of(Large())
    kept = [batch[:, 0].tolist() for batch in loader]
    assert [index for batch in kept for index in batch] == list(range(BATCH_SIZE * BATCHES))
    assert bundles


@pytest.mark.parametrize(
    "options",
    [
        {"prefetch_factor": 2},
        {"in_order": False},
        {"on_error": "skip"},
        {"worker_init_fn": lambda _: None},
        {"batch_size": None},
    ],
    ids=lambda options: next(iter(options)),
)
def test_batches_come_one_by_one_where_that_would_show(bundles, options):
    options = {"batch_size": BATCH_SIZE, **options}
    loader = penstock.DataLoader(Numbers(), num_workers=2, **options)
    assert sum(1 for _ in loader) == len(loader)
    assert not bundles


def test_so_do_those_of_a_slow_loop(bundles):
    for number, _ in enumerate(loader_of(Numbers())):
        if number < 100:
            time.sleep(0.001)
    iterator = iter(loader_of(Numbers()))
    bundles.clear()
    for _ in range(100):
        next(iterator)
        time.sleep(0.001)
    assert not bundles


def test_and_those_of_datasets_with_a_state_and_of_streams(bundles):
    class Stateful(Numbers):
        def state_dict(self) -> dict[str, Any]:
            return {}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            pass

    class Stream(IterableDataset[int]):
        def __iter__(self) -> Any:
            return iter(range(BATCH_SIZE * BATCHES))

    for dataset in (Stateful(), Stream()):
        assert sum(1 for _ in loader_of(dataset)) >= BATCHES
    assert not bundles


class Unreadable:
    """Arrives nowhere."""

    def __reduce__(self) -> Any:
        return (int, ("no number",))


def test_a_batch_that_cannot_be_read_costs_no_other(bundles):
    class Some(Numbers):
        def __getitem__(self, index: int) -> Any:
            return Unreadable() if index == BAD else index

    loader = loader_of(Some(), collate_fn=list)
    batches = told(loader)
    (at,) = [number for number, batch in enumerate(batches) if isinstance(batch, Exception)]
    assert (at, len(batches)) == (BAD // BATCH_SIZE, BATCHES)
    assert bundles
    assert loader._workers.run.progress.passed == BATCHES


def test_samples_that_become_slow_are_not_waited_for_together(bundles):
    class Slower(Numbers):
        def __getitem__(self, index: int) -> int:
            if index >= BATCH_SIZE * (BATCHES - 20):
                time.sleep(0.06)
            return index

    # Several batches together would take longer.
    loader = loader_of(Slower(), 1, timeout=1.5, persistent_workers=True)
    assert [index for batch in told(loader) for index in batch] == list(range(len(Slower())))
    assert bundles
    # Nor is a worker that is amid several slow ones.
    iterator = iter(loader)
    for _ in range(BATCHES - 22):
        next(iterator)
    began = time.perf_counter()
    assert next(iter(loader)).tolist() == [0, 1, 2, 3]
    assert time.perf_counter() - began < 4


def test_who_keeps_a_batch_keeps_no_other(bundles):
    class Large(Numbers):
        def __getitem__(self, index: int) -> Any:
            return torch.full((1024,), index)

    loader = loader_of(Large(), memory_budget=48 << 20)
    # A tenth of the budget; with all of their bundles it would be more than that.
    kept = [batch for number, batch in enumerate(loader) if number % 3 == 0]
    assert [batch[0, 0].item() for batch in kept] == list(range(0, len(Large()), 3 * BATCH_SIZE))
    assert all(batch.untyped_storage().nbytes() == batch.nbytes for batch in kept)
    assert any(count > 1 for count in bundles)


def test_memory_that_a_collate_function_resizes_stays_its_own():
    class Resizing:
        def __init__(self) -> None:
            self.memory = torch.empty(0)

        def __call__(self, samples: list[Any]) -> torch.Tensor:
            self.memory.resize_(len(samples) + samples[0][0] % 7, 4).fill_(1.0)
            return self.memory[: len(samples), :3]

    assert not [
        batch
        for batch in told(loader_of(Numbers(), collate_fn=Resizing()))
        if isinstance(batch, Exception)
    ]
