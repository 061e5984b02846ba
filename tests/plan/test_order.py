"""The order of an epoch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import RandomSampler

from penstock.plan import SeededShuffle


def order(length: int, seed: int = 0, epoch: int = 0) -> list[int]:
    shuffle = SeededShuffle(range(length), seed)
    shuffle.set_epoch(epoch)
    return list(shuffle)


@given(st.integers(1, 200), st.integers(0, 2**64), st.integers(0, 10**6))
def test_each_sample_comes_once(length, seed, epoch):
    assert sorted(order(length, seed, epoch)) == list(range(length))


def test_it_says_how_many_come():
    assert len(SeededShuffle(range(7), 0)) == 7


def test_another_epoch_has_another_order():
    assert len({tuple(order(50, epoch=epoch)) for epoch in range(20)}) == 20


def test_another_seed_has_another_order():
    assert len({tuple(order(50, seed=seed)) for seed in range(20)}) == 20


def test_seed_and_epoch_are_not_added_up():
    assert order(50, seed=1, epoch=2) != order(50, seed=2, epoch=1)


def test_an_epoch_has_the_same_order_whatever_was_iterated_before():
    shuffle = SeededShuffle(range(30), 5)
    first = list(shuffle)
    assert list(shuffle) == first
    shuffle.set_epoch(1)
    assert list(shuffle) != first
    shuffle.set_epoch(0)
    assert list(shuffle) == first


def test_the_order_leaves_torchs_generator_alone_and_does_not_depend_on_it():
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = order(30)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    assert order(30) == first


@pytest.mark.parametrize(
    ("seed", "epoch", "expected"),
    [
        (0, 0, [9, 8, 1, 0, 3, 4, 5, 7, 6, 2]),
        (0, 1, [5, 0, 2, 4, 7, 9, 3, 1, 8, 6]),
        (2**63, 3, [4, 9, 7, 3, 8, 1, 6, 5, 2, 0]),
    ],
)
def test_the_order_is_the_same_in_every_process_and_version(seed, epoch, expected):
    assert order(10, seed, epoch) == expected


def test_it_passes_for_a_random_sampler():
    assert isinstance(SeededShuffle(range(3), 0), RandomSampler)
