"""A worker that takes another's place goes on with the copy of the dataset that was lost.

Each test compares an epoch in which a worker is killed with one in which none is.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Iterator
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from penstock import DataLoader

SAMPLES = 40
WORKERS = 2
BATCHES = 10


def drawn() -> float:
    """What depends on all that was drawn before, in a worker with one sequence."""
    return random.random() + float(np.random.rand()) + float(torch.rand(()))


class Copies(Dataset[torch.Tensor]):
    """Samples that say how many this copy of the dataset has made, in all epochs.

    Args:
        size: numbers in a sample; many, and a batch lies in shared memory.
        flag: a file that is made where a worker kills itself, in the midst of a batch.
    """

    def __init__(self, size: int = 2, flag: Path | None = None) -> None:
        self.size = size
        self.flag = flag
        self.made = 0
        self.told = -1

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> torch.Tensor:
        self.made += 1
        # In the third batch of worker 0 in its second epoch.
        if index == 18 and self.made > SAMPLES // WORKERS and self.flag is not None:
            with contextlib.suppress(FileExistsError):
                self.flag.touch(exist_ok=False)
                os.kill(os.getpid(), signal.SIGKILL)
        head = [float(index), self.told, self.made, drawn()]
        return torch.tensor(head + [self.made] * self.size, dtype=torch.float64)

    def set_epoch(self, epoch: int) -> None:
        # Part of the state, and told anew in each epoch.
        self.told = epoch

    def state_dict(self) -> dict[str, int]:
        return {"made": self.made, "told": self.told}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.made, self.told = state["made"], state["told"]


class Rounds(IterableDataset[torch.Tensor]):
    """A stream that says how often it was begun; it can tell where it is."""

    def __init__(self) -> None:
        self.round = 0
        self.next: int | None = None

    def __iter__(self) -> Iterator[torch.Tensor]:
        worker = get_worker_info()
        assert worker is not None
        if self.next is None:
            self.round += 1
            self.next = worker.id
        while self.next < SAMPLES:
            number, self.next = self.next, self.next + worker.num_workers
            yield torch.tensor([self.round, number, drawn()], dtype=torch.float64)
        self.next = None

    def state_dict(self) -> dict[str, Any]:
        return {"round": self.round, "next": self.next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.round, self.next = state["round"], state["next"]


class Passes(IterableDataset[torch.Tensor]):
    """A stream that says how often it was read to its end; its iterator can tell where it is."""

    def __init__(self) -> None:
        self.ended = 0

    def __iter__(self) -> PassesIterator:
        worker = get_worker_info()
        assert worker is not None
        return PassesIterator(self, worker.id, worker.num_workers)

    def state_dict(self) -> dict[str, int]:
        return {"ended": self.ended}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.ended = state["ended"]


class Seeks(IterableDataset[torch.Tensor]):
    """A stream whose state is the place that its next iterator begins at, once."""

    keeps = False

    def __init__(self) -> None:
        self.begin = 0
        self.at = 0

    def __iter__(self) -> Iterator[torch.Tensor]:
        worker = get_worker_info()
        assert worker is not None
        self.at = self.begin
        if not self.keeps:
            self.begin = 0
        while self.at * worker.num_workers + worker.id < SAMPLES:
            self.at += 1
            number = (self.at - 1) * worker.num_workers + worker.id
            yield torch.tensor([0, number, drawn()], dtype=torch.float64)

    def state_dict(self) -> dict[str, int]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.begin = state["at"]


class Stays(Seeks):
    """Every iterator of it begins at the place that it was told last, as in `datasets`."""

    keeps = True


class PassesIterator:
    def __init__(self, dataset: Passes, number: int, step: int) -> None:
        self.dataset, self.number, self.step = dataset, number, step

    def __iter__(self) -> PassesIterator:
        return self

    def __next__(self) -> torch.Tensor:
        if self.number >= SAMPLES:
            self.dataset.ended += 1
            raise StopIteration
        self.number += self.step
        number = self.number - self.step
        return torch.tensor([self.dataset.ended, number, drawn()], dtype=torch.float64)

    def state_dict(self) -> dict[str, int]:
        return {"number": self.number}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.number = state["number"]


def in_turn(seat: int) -> None:
    """With a `worker_init_fn`, each batch goes to the worker whose turn it is."""


def loader_of(dataset: Dataset[torch.Tensor], **options: Any) -> DataLoader[torch.Tensor]:
    if not isinstance(dataset, IterableDataset):
        options = {"worker_init_fn": in_turn, **options}
    return DataLoader(
        dataset, batch_size=4, num_workers=WORKERS, persistent_workers=True, seed=3, **options
    )


def kill(loader: DataLoader[torch.Tensor], seat: int) -> None:
    engine = loader._workers._engine
    assert engine is not None
    process = engine._seats[seat].process
    assert process is not None
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    # Dead when the loop looks next, with what it had sent still to be read.
    wait([process.sentinel])


def values(batch: torch.Tensor) -> Any:
    return batch[:, :4].tolist()


def epochs(
    loader: DataLoader[torch.Tensor],
    count: int = 3,
    *,
    fatal: tuple[int, int] = (-1, -1),
    seat: int = 0,
    pause_s: float = 0.0,
) -> list[list[Any]]:
    """The batches of several epochs.

    Args:
        loader: begun for the first time.
        count: epochs.
        fatal: the epoch, and the batch in it, before which a worker is killed.
        seat: which worker.
        pause_s: how long the loop rests before that.
    """
    found: list[list[Any]] = []
    for epoch in range(count):
        loader.set_epoch(epoch)
        if fatal == (epoch, -1):
            kill(loader, seat)
        found.append([])
        for number, batch in enumerate(loader):
            found[-1].append(values(batch))
            if fatal == (epoch, number):
                time.sleep(pause_s)
                kill(loader, seat)
    return found


STREAMS = [Rounds, Passes, Seeks, Stays]


@pytest.fixture(scope="module")
def undisturbed() -> dict[type, list[list[Any]]]:
    return {kind: epochs(loader_of(kind())) for kind in (Copies, *STREAMS)}


MOMENTS = [-1, 0, 1, 4, 7, BATCHES - 1]


def numbers(found: list[list[Any]]) -> list[list[Any]]:
    """Of the samples of streams, which they are."""
    return [[sample[1] for batch in epoch for sample in batch] for epoch in found]


@pytest.mark.usefixtures("no_leaks")
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_copy_of_the_dataset_goes_on_where_the_parent_saw_it_last(undisturbed, moment):
    loader = loader_of(Copies())
    assert epochs(loader, fatal=(1, moment), seat=moment % WORKERS) == undisturbed[Copies]


@pytest.mark.usefixtures("no_leaks")
@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_stream_goes_on_within_its_epoch_and_is_whole_in_the_next(undisturbed, kind, moment):
    found = epochs(loader_of(kind()), fatal=(1, moment), seat=moment % WORKERS)
    if moment >= 0:
        assert found[:2] == undisturbed[kind][:2]
    # A new copy begins with what it was made with, whatever the lost one had counted.
    assert numbers(found) == numbers(undisturbed[kind])


@pytest.mark.usefixtures("no_leaks")
def test_what_has_arrived_and_was_not_handed_over_counts(undisturbed):
    # All that the window allows has arrived by then, and lies in slots.
    large = loader_of(Copies(50_000), prefetch_factor=4)
    assert epochs(large, fatal=(1, 1), pause_s=0.3) == undisturbed[Copies]


@pytest.mark.usefixtures("no_leaks")
def test_a_worker_with_nothing_left_to_do_in_its_epoch_has_its_copy_in_the_next(undisturbed):
    found = epochs(loader_of(Copies()), fatal=(1, 7), seat=1, pause_s=0.3)
    assert found == undisturbed[Copies]


@pytest.mark.usefixtures("no_leaks")
@pytest.mark.parametrize("kind", STREAMS)
def test_a_stream_that_had_ended_when_its_worker_died_is_whole_in_the_next_epoch(undisturbed, kind):
    found = epochs(loader_of(kind()), fatal=(1, 7), seat=1, pause_s=0.3)
    assert found[:2] == undisturbed[kind][:2]
    assert numbers(found) == numbers(undisturbed[kind])


@pytest.mark.usefixtures("no_leaks")
def test_a_batch_in_the_making_is_begun_again_with_the_state_before_it(undisturbed, tmp_path):
    dataset = Copies(flag=tmp_path / "flag")
    assert epochs(loader_of(dataset)) == undisturbed[Copies]
    assert (tmp_path / "flag").exists()


@pytest.mark.usefixtures("no_leaks")
@pytest.mark.parametrize("kind", STREAMS)
def test_between_two_snapshots_a_stream_is_read_again(undisturbed, kind):
    found = epochs(loader_of(kind(), snapshot_every_n_steps=3), fatal=(1, 5))
    assert found[:2] == undisturbed[kind][:2]
    assert numbers(found) == numbers(undisturbed[kind])


@pytest.mark.usefixtures("no_leaks")
def test_a_copy_that_died_in_two_epochs_goes_on_both_times(undisturbed):
    loader = loader_of(Copies())
    found = epochs(loader, 1)
    for epoch in (1, 2):
        loader.set_epoch(epoch)
        batches = []
        for batch in loader:
            batches.append(values(batch))
            if len(batches) in (2, 5):
                kill(loader, 1)
        found.append(batches)
    assert found == undisturbed[Copies]


@pytest.mark.usefixtures("no_leaks")
@pytest.mark.parametrize("kind", [Seeks, Stays])
@pytest.mark.parametrize("moment", [-1, 0, 2])
def test_behind_an_epoch_that_was_broken_off_a_new_copy_begins_anew(kind, moment):
    loader = loader_of(kind())
    for number, _ in enumerate(loader):
        if number == 3:
            break
    if moment < 0:
        kill(loader, 0)
    found = []
    for number, batch in enumerate(loader):
        found += batch[:, 1].int().tolist()
        if number == moment:
            kill(loader, 0)
    assert sorted(found) == list(range(SAMPLES))


@pytest.mark.usefixtures("no_leaks")
def test_a_replacement_works_under_every_start_method(undisturbed, start_method):
    for kind in (Copies, Rounds):
        loader = loader_of(kind(), multiprocessing_context=start_method)
        assert epochs(loader, 2, fatal=(1, 3)) == undisturbed[kind][:2]
