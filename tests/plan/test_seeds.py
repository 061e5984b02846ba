"""One seed for each sample."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from penstock.plan import mix_seeds, sample_seed

uint64 = st.integers(0, 2**64 - 1)


@given(st.lists(st.integers(), max_size=4))
def test_a_seed_has_64_bits(parts):
    assert 0 <= mix_seeds(*parts) < 2**64


@given(uint64, uint64)
def test_the_order_of_the_parts_matters(one, other):
    assert (mix_seeds(one, other) == mix_seeds(other, one)) == (one == other)


@given(uint64, uint64, uint64)
def test_seeds_that_differ_in_the_last_part_differ(first, one, other):
    assert (mix_seeds(first, one) == mix_seeds(first, other)) == (one == other)


def test_the_number_of_parts_matters():
    assert len({mix_seeds(*[0] * count) for count in range(5)}) == 5


def test_seeds_of_neighbours_have_nothing_in_common():
    seeds = [mix_seeds(seed, epoch) for seed in range(100) for epoch in range(100)]
    assert len(set(seeds)) == len(seeds)
    changed = [(one ^ other).bit_count() for one, other in itertools.pairwise(seeds)]
    assert min(changed) > 8
    assert abs(sum(changed) / len(changed) - 32) < 0.5


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((), 0),
        ((0,), 16294208416658607535),
        ((0, 0), 12035550249420947055),
        ((1, 2), 13608149317741381227),
        ((2**64 - 1, 7), 1869568459174662326),
        ((-1, 7), 1869568459174662326),
    ],
)
def test_mixed_seeds_are_the_same_in_every_process_and_version(parts, expected):
    assert mix_seeds(*parts) == expected


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (0, 5960182133528308962),
        (1, 3755092363557166831),
        (-1, 13034114435715135286),
        ("cat.jpg", 4649044540488135593),
        (("shard-3", 17), 7446448320745682166),
        (None, 1188505814877997761),
    ],
)
def test_seeds_of_samples_are_the_same_in_every_process_and_version(index, expected):
    assert sample_seed(1234, index) == expected


def test_samples_have_seeds_of_their_own():
    indices = [*range(-3, 1000), *map(str, range(1000)), *((i, i) for i in range(1000)), None, 1.5]
    assert len({sample_seed(7, index) for index in indices}) == len(indices)


def test_a_sample_has_another_seed_in_another_epoch():
    for index in (3, "3", (3,)):
        assert len({sample_seed(mix_seeds(7, epoch), index) for epoch in range(100)}) == 100


@pytest.mark.parametrize(
    "index",
    [np.int64(5), np.uint8(5), np.array(5), torch.tensor(5)],
    ids=lambda i: type(i).__name__,
)
def test_a_number_has_the_same_seed_whatever_its_type(index):
    assert sample_seed(7, index) == sample_seed(7, 5)
