"""Inside the workers: who they are told they are, their seeds, threads, processors and children."""

from __future__ import annotations

import functools
import multiprocessing
import os
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import get_worker_info

from tests.conformance.roles import (
    SOON_S,
    Calls,
    Dice,
    Numbers,
    as_it_is,
    draw_base_seed,
    flat,
    is_torchs,
    wait_until,
)


def tell_worker(index: int) -> Any:
    info = get_worker_info()
    if info is None:
        return None
    return (
        info.id,
        info.num_workers,
        info.seed,
        type(info.dataset).__name__,
        info.dataset.length,
        torch.get_num_threads(),
    )


def test_a_worker_is_told_who_it_is(loader_class: Any, start_method: str) -> None:
    torch.manual_seed(3)
    seed = draw_base_seed()
    torch.manual_seed(3)
    loader = loader_class(
        Calls(tell_worker, 2),
        collate_fn=as_it_is,
        num_workers=1,
        multiprocessing_context=start_method,
    )
    assert flat(loader) == [(0, 1, seed, "Calls", 2, 1)] * 2


def test_each_worker_has_a_number_and_a_seed_of_its_own(loader_class: Any) -> None:
    torch.manual_seed(3)
    seed = draw_base_seed()
    torch.manual_seed(3)
    loader = loader_class(Calls(tell_worker), collate_fn=as_it_is, num_workers=2)
    told = {sample[:3] for sample in flat(loader)}
    assert told == {(0, 2, seed), (1, 2, seed + 1)}


def test_in_the_training_process_there_is_no_worker(loader_class: Any) -> None:
    assert flat(loader_class(Calls(tell_worker, 2), collate_fn=as_it_is)) == [None, None]
    flat(loader_class(Numbers(), num_workers=1))
    assert get_worker_info() is None


def test_a_collate_function_runs_in_the_worker(loader_class: Any) -> None:
    loader = loader_class(
        Numbers(4), batch_size=2, collate_fn=lambda batch: tell_worker(0)[0], num_workers=1
    )
    assert list(loader) == [0, 0]


# Random numbers.


@functools.cache
def numpys_first() -> list[float]:
    """NumPy's first number in each of torch's workers, which no document says how to get."""
    notes = multiprocessing.Array("d", 2)

    def note(worker: int) -> None:
        notes[worker] = float(np.random.rand())

    torch.manual_seed(3)
    flat(TorchDataLoader(Numbers(), num_workers=2, worker_init_fn=note))
    return list(notes)


def test_seeds_in_worker_init_fn_are_the_same_as_torchs(loader_class: Any) -> None:
    torch.manual_seed(3)
    seed = draw_base_seed()
    notes = multiprocessing.Array("d", 6)

    def note(worker: int) -> None:
        info = get_worker_info()
        assert info is not None
        assert info.seed == torch.initial_seed() == seed + worker
        drawn = random.random(), float(torch.rand(())), float(np.random.rand())
        notes[3 * worker : 3 * worker + 3] = drawn

    expected = []
    for worker in (0, 1):
        generator = torch.Generator().manual_seed(seed + worker)
        expected += [
            random.Random(seed + worker).random(),
            float(torch.rand((), generator=generator)),
            numpys_first()[worker],
        ]
    torch.manual_seed(3)
    flat(loader_class(Numbers(), num_workers=2, worker_init_fn=note))
    assert list(notes) == expected


def seed_as_the_documents_say(worker: int) -> None:
    seed = torch.initial_seed() % 2**32
    np.random.seed(seed)
    random.seed(seed)


def numbers_of_two_runs(make: Callable[[], Any]) -> list[Any]:
    runs = []
    for _ in range(2):
        torch.manual_seed(3)
        runs.append(flat(make()))
    return runs


def test_the_documented_recipe_makes_one_worker_reproducible(loader_class: Any) -> None:
    def make() -> Any:
        return loader_class(
            Dice(8),
            batch_size=2,
            collate_fn=as_it_is,
            num_workers=1,
            worker_init_fn=seed_as_the_documents_say,
            generator=torch.Generator().manual_seed(0),
        )

    first, second = numbers_of_two_runs(make)
    assert first == second
    assert len(set(first)) == 8
    seed = draw_base_seed(torch.Generator().manual_seed(0))
    assert first[0][0] == random.Random(seed % 2**32).random()
    generator = torch.Generator().manual_seed(seed)
    assert [sample[2] for sample in first] == [
        float(torch.rand((), generator=generator)) for _ in range(8)
    ]


def tell_seat(index: int) -> int:
    info = get_worker_info()
    return -1 if info is None else info.id


def seed_nothing(worker: int) -> None:
    pass


def test_with_a_worker_init_fn_each_worker_makes_every_nth_batch(loader_class: Any) -> None:
    """So its random numbers are the same in each run, however busy the others are."""
    goes_on, made = multiprocessing.Event(), multiprocessing.Value("i", 0)

    def wait_at_two(index: int) -> int:
        if index == 2:
            assert goes_on.wait(SOON_S)
        made.value += index in (1, 3)
        return tell_seat(index)

    settings = {"worker_init_fn": seed_nothing, "multiprocessing_context": "fork"}
    loader = loader_class(Calls(wait_at_two), num_workers=2, **settings)
    batches = iter(loader)
    # The second worker is free then, and the first one is not.
    wait_until(lambda: made.value == 2)
    seats = [next(batches), next(batches)]
    goes_on.set()
    seats += batches
    assert [int(seat) for seat in seats] == [0, 1] * 6


def test_without_worker_init_fn_random_numbers_depend_on_the_sample_alone(
    loader_class: Any,
) -> None:
    """torch's workers go through one sequence each; ours give each sample numbers of its own.

    So the same seed gives the same augmentation whatever the number of workers, and whichever of
    them makes the batch.
    """
    epochs = []
    for count in (0, 1, 2):
        torch.manual_seed(3)
        random.seed(3)
        np.random.seed(3)
        loader = loader_class(Dice(8), batch_size=2, collate_fn=as_it_is, num_workers=count)
        epochs.append(flat(loader))
    assert all(len(set(epoch)) == 8 for epoch in epochs)
    assert (epochs[0] == epochs[1] == epochs[2]) is not is_torchs(loader_class)


def test_a_dataset_without_workers_draws_from_the_program_or_leaves_it_alone(
    loader_class: Any,
) -> None:
    """torch's loader draws from the program's generators; ours puts them back."""
    states = []
    for draws in (False, True):
        torch.manual_seed(3)
        random.seed(3)
        flat(loader_class(Dice(8) if draws else Numbers(8), collate_fn=as_it_is))
        states.append((float(torch.rand(())), random.random()))
    assert (states[0] == states[1]) is not is_torchs(loader_class)


def test_a_dataset_in_workers_leaves_the_programs_generators_alone(loader_class: Any) -> None:
    states = []
    for dataset in (Numbers(8), Dice(8)):
        torch.manual_seed(3)
        random.seed(3)
        np.random.seed(3)
        flat(loader_class(dataset, collate_fn=as_it_is, num_workers=1))
        states.append((float(torch.rand(())), random.random(), float(np.random.rand())))
    assert states[0] == states[1]


# What worker_init_fn sets up.


def test_worker_init_fn_is_called_once_in_each_worker_before_its_samples(
    loader_class: Any,
) -> None:
    calls = multiprocessing.Array("i", 2)

    def count(worker: int) -> None:
        calls[worker] += 1

    dataset = Calls(lambda index: calls[tell_seat(index)])
    loader = loader_class(dataset, num_workers=2, persistent_workers=True, worker_init_fn=count)
    assert [flat(loader) for _ in range(2)] == [[1] * 12] * 2
    assert list(calls) == [1, 1]


def test_worker_init_fn_is_not_called_without_workers(loader_class: Any) -> None:
    def fail(worker: int) -> None:
        raise AssertionError("there are no workers")

    assert flat(loader_class(Numbers(2), worker_init_fn=fail)) == [0, 1]


def open_dataset(worker: int) -> None:
    info = get_worker_info()
    assert info is not None
    info.dataset.function = functools.partial(pow, worker + 10)


def test_worker_init_fn_may_change_the_workers_copy_of_the_dataset(
    loader_class: Any, start_method: str
) -> None:
    dataset = Calls(abs, 3)
    loader = loader_class(
        dataset,
        num_workers=1,
        worker_init_fn=open_dataset,
        multiprocessing_context=start_method,
    )
    assert flat(loader) == [1, 10, 100]
    assert dataset.function is abs


def test_threads_that_worker_init_fn_sets_are_kept(loader_class: Any) -> None:
    def allow_two(worker: int) -> None:
        torch.set_num_threads(2)

    dataset = Calls(lambda index: torch.get_num_threads(), 2)
    assert flat(loader_class(dataset, num_workers=1, worker_init_fn=allow_two)) == [2, 2]


def test_the_processors_that_worker_init_fn_chooses_are_kept(loader_class: Any) -> None:
    chosen = min(os.sched_getaffinity(0))

    def pin(worker: int) -> None:
        os.sched_setaffinity(0, {chosen})

    dataset = Calls(lambda index: sorted(os.sched_getaffinity(0)), 2)
    loader = loader_class(dataset, num_workers=1, worker_init_fn=pin, collate_fn=as_it_is)
    assert flat(loader) == [[chosen], [chosen]]


# Workers in workers.


def test_a_dataset_may_use_a_loader_without_workers(loader_class: Any) -> None:
    dataset = Calls(lambda index: flat(loader_class(Numbers(2))), 2)
    assert flat(loader_class(dataset, num_workers=1, collate_fn=as_it_is)) == [[0, 1], [0, 1]]


def run_nothing() -> None:
    pass


def start_process(index: int) -> str:
    try:
        process = multiprocessing.get_context("fork").Process(target=run_nothing)
        process.start()
        process.join()
    except AssertionError as error:
        return str(error)
    return f"exit code {process.exitcode}"


def test_a_worker_may_have_children_of_its_own(loader_class: Any) -> None:
    """torch's workers are daemons, to which multiprocessing forbids it; with ours it works."""
    (told,) = flat(loader_class(Calls(start_process, 1), num_workers=1, collate_fn=as_it_is))
    if is_torchs(loader_class):
        assert "daemonic processes are not allowed to have children" in told
    else:
        assert told == "exit code 0"


def test_a_workers_process_is_a_child_that_is_gone_after_the_epoch(loader_class: Any) -> None:
    calls = Calls(lambda index: os.getppid())
    loader = loader_class(calls, num_workers=1, multiprocessing_context="fork")
    before = multiprocessing.active_children()
    assert set(flat(loader)) == {os.getpid()}
    assert multiprocessing.active_children() == before


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_end_with_their_loader(loader_class: Any, persistent: bool) -> None:
    loader = loader_class(Numbers(), num_workers=1, persistent_workers=persistent)
    before = multiprocessing.active_children()
    batches = iter(loader)
    next(batches)
    assert len(multiprocessing.active_children()) == len(before) + 1
    del batches, loader
    assert multiprocessing.active_children() == before
