"""Going on behind the part of an order that is done: as if each index had been asked for."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import (
    BatchSampler,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from penstock.plan.order import SeededShuffle
from penstock.plan.skipping import _jump, begin_behind

LENGTH = 40
Make = Callable[[torch.Generator], Any]


class InPieces:
    """Yields from lists, one at a time, and from none, and draws from a generator in between."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def __iter__(self) -> Iterator[int]:
        for length in (3, 0, 1, 5):
            yield from torch.randint(9, (length,), generator=self.generator).tolist()
            yield int(torch.randint(9, (), generator=self.generator))
            yield from range(length)


class Reversed(BatchSampler):
    def __iter__(self) -> Iterator[list[int]]:
        for batch in super().__iter__():
            yield batch[::-1]


DATA = range(LENGTH)
SAMPLERS: dict[str, Make] = {
    "sequential": lambda generator: SequentialSampler(DATA),
    "random": lambda generator: RandomSampler(DATA, generator=generator),
    "without a generator": lambda generator: RandomSampler(DATA),
    "twice": lambda generator: RandomSampler(DATA, num_samples=2 * LENGTH, generator=generator),
    "a half more": lambda generator: RandomSampler(DATA, num_samples=60, generator=generator),
    "replacing": lambda generator: RandomSampler(
        DATA, replacement=True, num_samples=100, generator=generator
    ),
    "seeded": lambda generator: SeededShuffle(DATA, 5),
    "subset": lambda generator: SubsetRandomSampler(range(3, 30), generator),
    "weighted": lambda generator: WeightedRandomSampler([1.0, 2.0, 3.0], 50, generator=generator),
    "in pieces": InPieces,
    "a list": lambda generator: list(DATA),
    "an iterator": lambda generator: iter(list(DATA)),
    "nothing": lambda generator: [],
}
BATCHES: dict[str, Callable[[Any], Any]] = {
    "indices": lambda sampler: sampler,
    "batches": lambda sampler: BatchSampler(sampler, 7, drop_last=False),
    "whole batches": lambda sampler: BatchSampler(sampler, 7, drop_last=True),
    "its own batches": lambda sampler: Reversed(sampler, 7, drop_last=False),
}


def outcome(make: Make, group: Callable[[Any], Any], behind: Callable[[Any], Any]) -> Any:
    torch.manual_seed(1)
    generator = torch.Generator().manual_seed(2)
    rest = list(behind(group(make(generator))))
    return rest, generator.get_state().tolist(), torch.get_rng_state().tolist()


@pytest.mark.parametrize("group", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize("make", SAMPLERS.values(), ids=SAMPLERS)
@given(skip=st.integers(0, 110))
def test_what_follows_and_what_is_drawn_is_as_if_each_had_been_asked_for(
    make: Make, group: Callable[[Any], Any], skip: int
) -> None:
    expected = outcome(make, group, lambda batches: itertools.islice(batches, skip, None))
    assert outcome(make, group, lambda batches: begin_behind(batches, skip)) == expected


def test_an_error_of_the_sampler_comes_where_it_would() -> None:
    def failing() -> Iterator[int]:
        yield from [1, 2]
        raise ValueError("no more")

    assert next(begin_behind(failing(), 1)) == 2
    with pytest.raises(ValueError, match="no more"):
        begin_behind(failing(), 3)


def test_the_rest_of_a_list_is_passed_over_in_one_step() -> None:
    order = iter(RandomSampler(DATA, generator=torch.Generator().manual_seed(3)))
    expected = list(RandomSampler(DATA, generator=torch.Generator().manual_seed(3)))
    assert _jump(order, 5) == 0, "it has not begun"
    assert next(order) == expected[0]
    assert _jump(order, 25) == 25
    assert next(order) == expected[26]
    assert _jump(order, 100) == LENGTH - 27, "no further than to its end"
    assert next(order, None) is None


@pytest.mark.parametrize("steps", [iter(range(5)), iter([1, 2]), (n for n in range(5))])
def test_what_is_no_generator_amid_a_list_is_left_alone(steps: Iterator[int]) -> None:
    before = next(steps)
    assert _jump(steps, 3) == 0
    assert next(steps) == before + 1
