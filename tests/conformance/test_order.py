"""The order of samples, and what it takes from the program's random numbers."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DistributedSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

import penstock
from tests.conformance.roles import (
    Calls,
    Numbers,
    Recorded,
    Stream,
    Zigzag,
    draw_base_seed,
    flat,
    is_torchs,
    lists,
)

LENGTH = 23

SAMPLERS: dict[str, Callable[[], Any]] = {
    "sequential": lambda: SequentialSampler(range(LENGTH)),
    "random": lambda: RandomSampler(range(LENGTH)),
    "random-replacement": lambda: RandomSampler(range(LENGTH), replacement=True, num_samples=40),
    "random-more-than-all": lambda: RandomSampler(range(LENGTH), num_samples=30),
    "weighted": lambda: WeightedRandomSampler([i + 0.5 for i in range(LENGTH)], 30),
    "weighted-no-replacement": lambda: WeightedRandomSampler([1.0] * LENGTH, 9, replacement=False),
    "subset-random": lambda: SubsetRandomSampler([1, 5, 7, 9, 20]),
    "distributed": lambda: DistributedSampler(range(LENGTH), num_replicas=3, rank=1, seed=4),  # type: ignore[arg-type]
    "users": lambda: Zigzag(LENGTH),
    "list": lambda: [5, 0, 0, 22],
}


def epochs_by_hand(make: Callable[[], Any], epochs: int) -> tuple[list[list[int]], float]:
    """What a program without a loader would get, which draws one number before each epoch."""
    torch.manual_seed(3)
    sampler, orders = make(), []
    for _ in range(epochs):
        draw_base_seed()
        orders.append(list(sampler))
    return orders, float(torch.rand(()))


@pytest.mark.parametrize("make", SAMPLERS.values(), ids=SAMPLERS)
def test_a_samplers_order_and_the_programs_generator_behind_it_follow_from_the_seed(
    loader_class: Any, workers: int, make: Callable[[], Any]
) -> None:
    expected, next_number = epochs_by_hand(make, epochs=2)
    torch.manual_seed(3)
    loader = loader_class(Numbers(LENGTH), batch_size=4, sampler=make(), num_workers=workers)
    assert [flat(loader) for _ in range(2)] == expected
    assert float(torch.rand(())) == next_number


def test_shuffle_is_a_random_sampler(loader_class: Any, workers: int) -> None:
    expected, next_number = epochs_by_hand(SAMPLERS["random"], epochs=2)
    torch.manual_seed(3)
    loader = loader_class(Numbers(LENGTH), batch_size=4, shuffle=True, num_workers=workers)
    assert [flat(loader) for _ in range(2)] == expected
    assert float(torch.rand(())) == next_number


def test_persistent_workers_draw_one_base_seed_for_all_epochs(loader_class: Any) -> None:
    torch.manual_seed(3)
    draw_base_seed()
    sampler = RandomSampler(range(LENGTH))
    expected = [list(sampler) for _ in range(3)]
    next_number = float(torch.rand(()))
    torch.manual_seed(3)
    loader = loader_class(
        Numbers(LENGTH), batch_size=4, shuffle=True, num_workers=2, persistent_workers=True
    )
    assert [flat(loader) for _ in range(3)] == expected
    assert float(torch.rand(())) == next_number


def test_a_generator_is_drawn_from_instead_of_the_programs(loader_class: Any, workers: int) -> None:
    by_hand = torch.Generator().manual_seed(5)
    expected = []
    for _ in range(2):
        draw_base_seed(by_hand)
        expected.append(list(RandomSampler(range(LENGTH), generator=by_hand)))
    programs = torch.get_rng_state()
    generator = torch.Generator().manual_seed(5)
    loader = loader_class(
        Numbers(LENGTH), batch_size=4, shuffle=True, generator=generator, num_workers=workers
    )
    assert [flat(loader) for _ in range(2)] == expected
    assert torch.equal(generator.get_state(), by_hand.get_state())
    assert torch.equal(torch.get_rng_state(), programs)


def test_an_epoch_of_a_stream_draws_one_number(loader_class: Any, workers: int) -> None:
    torch.manual_seed(3)
    draw_base_seed()
    next_number = float(torch.rand(()))
    torch.manual_seed(3)
    flat(loader_class(Stream(), batch_size=4, num_workers=workers))
    assert float(torch.rand(())) == next_number


def test_the_order_is_the_same_under_every_start_method(
    loader_class: Any, start_method: str
) -> None:
    expected, _ = epochs_by_hand(SAMPLERS["random"], epochs=1)
    torch.manual_seed(3)
    loader = loader_class(
        Numbers(LENGTH),
        batch_size=4,
        shuffle=True,
        num_workers=1,
        multiprocessing_context=start_method,
    )
    assert [flat(loader)] == expected


def test_batches_of_a_users_batch_sampler_come_as_they_are(loader_class: Any, workers: int) -> None:
    batches = [[3, 1], [0], [5, 5, 2], [11]]
    loader = loader_class(Numbers(), batch_sampler=batches, num_workers=workers)
    assert len(loader) == 4
    assert [lists(loader) for _ in range(2)] == [batches, batches]


def test_a_batch_sampler_over_a_random_one_takes_what_shuffle_takes(
    loader_class: Any, workers: int
) -> None:
    expected, _ = epochs_by_hand(
        lambda: BatchSampler(RandomSampler(range(LENGTH)), 4, drop_last=True), epochs=2
    )
    torch.manual_seed(3)
    batch_sampler = BatchSampler(RandomSampler(range(LENGTH)), 4, drop_last=True)
    loader = loader_class(Numbers(LENGTH), batch_sampler=batch_sampler, num_workers=workers)
    assert [lists(loader) for _ in range(2)] == expected


def test_a_batch_sampler_may_give_whole_batches_to_a_dataset_that_reads_them(
    loader_class: Any, workers: int
) -> None:
    sampler = BatchSampler(range(7), 3, drop_last=False)
    dataset = Calls(lambda indices: torch.tensor(indices) * 10)
    loader = loader_class(dataset, batch_size=None, sampler=sampler, num_workers=workers)
    assert lists(loader) == [[0, 10, 20], [30, 40, 50], [60]]


def test_a_sampler_without_an_end_is_asked_as_long_as_the_program_goes_on(
    loader_class: Any, workers: int
) -> None:
    dataset = Calls(lambda index: index % 5)
    loader = loader_class(dataset, batch_size=3, sampler=Recorded(None), num_workers=workers)
    batches = [batch.tolist() for batch in itertools.islice(loader, 5)]
    assert batches == [[0, 1, 2], [3, 4, 0], [1, 2, 3], [4, 0, 1], [2, 3, 4]]


class Level(Sampler[int]):
    """A curriculum: yields the level that the training loop has reached."""

    level = 0

    def __iter__(self) -> Any:
        for _ in range(8):
            yield self.level


def levels_met(loader: Any, sampler: Level) -> list[int]:
    met = []
    for number, batch in enumerate(loader, 1):
        met += batch.tolist()
        sampler.level = number
    return met


def test_a_sampler_sees_what_the_loop_changed_before_it_asked_for_the_batch(
    loader_class: Any,
) -> None:
    sampler = Level()
    loader = loader_class(Numbers(), batch_size=1, sampler=sampler)
    assert levels_met(loader, sampler) == [0, 1, 2, 3, 4, 5, 6, 7]


def test_with_workers_a_sampler_is_ahead_of_the_loop_by_what_is_prefetched(
    loader_class: Any,
) -> None:
    sampler = Level()
    loader = loader_class(
        Numbers(), batch_size=1, sampler=sampler, num_workers=2, prefetch_factor=2
    )
    # Four are asked for at once, and one more at the beginning of each next().
    assert levels_met(loader, sampler) == [0, 0, 0, 0, 0, 1, 2, 3]


def test_without_workers_nothing_is_drawn_for_the_order_before_the_first_batch(
    loader_class: Any,
) -> None:
    torch.manual_seed(3)
    expected = list(RandomSampler(range(LENGTH)))
    batches = iter(loader_class(Numbers(LENGTH), batch_size=4, shuffle=True))
    torch.manual_seed(3)
    assert flat(batches) == expected


def test_set_epoch_of_a_distributed_sampler_changes_the_order(
    loader_class: Any, workers: int
) -> None:
    sampler: Any = DistributedSampler(range(LENGTH), num_replicas=2, rank=1, seed=4)  # type: ignore[arg-type]
    loader = loader_class(Numbers(LENGTH), batch_size=4, sampler=sampler, num_workers=workers)
    orders = []
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        assert flat(loader) == list(sampler)
        orders.append(list(sampler))
    assert orders[0] == orders[2] != orders[1]


class TellsEpoch(Sampler[Any]):
    def __init__(self, *, batches: bool) -> None:
        self.batches = batches
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Any:
        return iter([[self.epoch] if self.batches else self.epoch])


@pytest.mark.parametrize("name", ["sampler", "batch_sampler"])
def test_set_epoch_of_the_loader_reaches_its_samplers(loader_class: Any, name: str) -> None:
    """torch's loader has no such method: there each sampler is told by the program."""
    loader = loader_class(Numbers(), **{name: TellsEpoch(batches=name == "batch_sampler")})
    if is_torchs(loader_class):
        assert not hasattr(loader, "set_epoch")
        return
    loader.set_epoch(7)
    assert flat(loader) == [7]


def test_with_a_seed_the_order_does_not_depend_on_the_programs_generator() -> None:
    """`seed=` is ours alone; without it the two loaders give the same order, see above."""
    orders = []
    for programs_seed in (1, 2):
        torch.manual_seed(programs_seed)
        before = torch.get_rng_state()
        loader = penstock.DataLoader(Numbers(LENGTH), batch_size=4, shuffle=True, seed=0)
        orders.append([flat(loader) for _ in range(2)])
        assert torch.equal(torch.get_rng_state(), before)
    assert orders[0] == orders[1]
    assert orders[0][0] != orders[0][1]
