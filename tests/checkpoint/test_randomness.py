"""Generators whose states are kept and put back."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, RandomSampler, SequentialSampler, WeightedRandomSampler

from penstock.checkpoint import RandomSources
from penstock.plan import SeededShuffle
from tests.checkpoint.roles import PythonShuffle

DRAWS = {
    "torch": lambda: torch.rand(1).item(),
    "python": random.random,
    "numpy": lambda: float(np.random.rand()),
}


def sources(*samplers: object, generator: torch.Generator | None = None, draws: bool = True):
    return RandomSources(samplers, generator, draws=draws)


@pytest.mark.parametrize(
    ("found", "programs"),
    [
        (sources(SequentialSampler(range(3))), ["torch"]),
        (sources(SequentialSampler(range(3)), draws=False), []),
        (sources(SeededShuffle(range(3), 1), draws=False), []),
        (sources(RandomSampler(range(3)), draws=False), ["torch"]),
        (sources(BatchSampler(RandomSampler(range(3)), 2, False), draws=False), ["torch"]),
        (sources(RandomSampler(range(3)), generator=torch.Generator()), ["torch"]),
        (sources(WeightedRandomSampler([1.0], 1), draws=False), ["torch"]),
        (sources(PythonShuffle(), generator=torch.Generator()), ["torch", "python", "numpy"]),
        (sources([[1, 2]], generator=torch.Generator()), ["torch", "python", "numpy"]),
    ],
)
def test_only_the_programs_generators_that_may_be_drawn_from_are_kept(found, programs):
    assert list(found.capture_programs()) == programs


def test_generators_of_the_loader_and_of_samplers_are_put_back():
    own, inner = torch.Generator(), torch.Generator()
    sampler = BatchSampler(WeightedRandomSampler([1.0] * 9, 9, generator=inner), 3, False)
    found = sources(sampler, generator=own)
    state = json.loads(json.dumps(found.capture()))
    expected = torch.rand(2, generator=own).tolist(), list(sampler)
    found.restore_own(state)
    assert (torch.rand(2, generator=own).tolist(), list(sampler)) == expected


def test_a_generator_of_the_dataset_is_not_the_orders():
    class Drawn(list[int]):
        def __init__(self) -> None:
            self.generator = torch.Generator()

    assert sources(SequentialSampler(Drawn())).capture()["own"] == []


def test_a_generator_that_two_share_is_one():
    shared = torch.Generator()
    found = sources(RandomSampler(range(3), generator=shared), generator=shared)
    assert len(found.capture()["own"]) == 1


@pytest.mark.parametrize("name", DRAWS)
def test_the_programs_generators_are_lent_a_state_and_get_theirs_back(name):
    draw = DRAWS[name]
    found = sources(PythonShuffle())
    states = json.loads(json.dumps(found.capture_programs()))
    first, second = draw(), draw()
    before = draw()
    del before
    kept = json.loads(json.dumps(found.capture_programs()))
    with found.programs_as(states):
        assert draw() == first
    # What was drawn meanwhile counts there, and not here.
    assert found.capture_programs() == kept
    with found.programs_as(states):
        assert draw() == second


def test_they_get_theirs_back_from_an_error_too():
    found = sources(PythonShuffle())
    states = found.capture_programs()
    random.random()
    kept = random.getstate()
    with pytest.raises(KeyError), found.programs_as(states):
        raise KeyError
    assert random.getstate() == kept


def test_a_normal_number_that_is_kept_back_survives():
    found = sources(PythonShuffle())
    random.gauss(0, 1)
    np.random.standard_normal()
    states = json.loads(json.dumps(found.capture_programs()))
    expected = random.gauss(0, 1), float(np.random.standard_normal())
    random.gauss(0, 1)
    with found.programs_as(states):
        assert (random.gauss(0, 1), float(np.random.standard_normal())) == expected


def test_another_count_of_generators_is_a_mismatch():
    state = sources(SequentialSampler(range(3)), generator=torch.Generator()).capture()
    assert "1 generators" in (sources(SequentialSampler(range(3))).mismatch(state) or "")
    assert sources(generator=torch.Generator()).mismatch(state) is None
