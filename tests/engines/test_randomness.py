from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from penstock.engines import randomness as subject
from penstock.engines.randomness import SampleRandomness

DRAWS = {
    "python": random.random,
    "python normal": lambda: random.gauss(0, 1),
    "numpy": np.random.rand,
    "numpy normal": np.random.randn,
    "torch": lambda: torch.rand(()).item(),
    "torch normal": lambda: torch.randn(()).item(),
}


@pytest.fixture(autouse=True)
def _generators_stay_as_they_are():
    saved = random.getstate(), np.random.get_state(), torch.get_rng_state()
    yield
    random.setstate(saved[0])
    np.random.set_state(saved[1])
    torch.set_rng_state(saved[2])


@pytest.fixture(params=[False, True], ids=["worker", "training process"])
def restoring(request):
    return request.param


def run(leases, make, *, restoring=False, seed=7, between=lambda: None):
    """The samples of all leases by index, and how often each was made."""
    randomness = SampleRandomness(restoring=restoring)
    randomness.begin_epoch(seed)
    samples, counts = {}, dict.fromkeys([index for lease in leases for index in lease], 0)
    for lease in leases:
        between()
        randomness.begin_lease()
        again = True
        while again:
            for index in lease:
                randomness.begin_sample(index)
                samples[index] = make(index)
                counts[index] += 1
            again = randomness.end_lease()
    return samples, counts


def leases_of(size, count=12):
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def states():
    numpy = np.random.get_state()
    return (
        random.getstate(),
        (numpy[0], bytes(numpy[1]), *numpy[2:]),
        torch.get_rng_state().numpy().tobytes(),
    )


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_a_sample_has_the_same_numbers_however_leases_are_cut(draw, restoring):
    def make(index):
        return [draw() for _ in range(index % 4)]

    expected, _ = run(leases_of(12), make, restoring=restoring)
    assert len({tuple(sample) for sample in expected.values() if sample}) == 9
    for size in (1, 2, 5, 11):
        assert run(leases_of(size), make, restoring=restoring)[0] == expected
    assert run(leases_of(3)[::-1], make, restoring=restoring)[0] == expected


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_the_training_process_makes_the_same_samples_as_a_worker(draw):
    expected, _ = run(leases_of(3), lambda _: draw())
    assert run(leases_of(2), lambda _: draw(), restoring=True)[0] == expected


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_a_generator_that_only_a_late_sample_uses_gives_it_the_right_numbers(draw, restoring):
    expected, _ = run([[10]], lambda _: draw(), restoring=restoring)

    def make(index):
        return draw() if index == 10 else None

    for size in (1, 3, 12):
        samples, counts = run(leases_of(size), make, restoring=restoring)
        assert samples[10] == expected[10]
    # The lease of that sample was done again, and no other.
    samples, counts = run(leases_of(3), make, restoring=restoring)
    assert counts == {index: 2 if index in (9, 10, 11) else 1 for index in range(12)}


@given(st.lists(st.sampled_from([*DRAWS, ""]), min_size=1, max_size=10), st.integers(1, 5))
def test_any_use_of_the_generators_gives_the_same_numbers_in_any_leases(uses, size):
    def make(index):
        return DRAWS[uses[index]]() if uses[index] else None

    expected = {index: run([[index]], make)[0][index] for index in range(len(uses))}
    for restoring in (False, True):
        found, _ = run(leases_of(size, len(uses)), make, restoring=restoring)
        assert found == expected


def test_seeds_and_epochs_give_other_numbers():
    found = {run([[0]], lambda _: random.random(), seed=seed)[0][0] for seed in range(20)}
    assert len(found) == 20


def test_generators_used_together_are_independent_of_each_other():
    both, _ = run([[0]], lambda _: (random.random(), np.random.rand()))
    one, _ = run([[0]], lambda _: np.random.rand())
    assert both[0][1] == one[0]


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
@pytest.mark.parametrize("first", [0, 7])
def test_the_training_process_goes_on_with_its_own_numbers(draw, first):
    draw()  # With a normal number in store, where the generator keeps one.
    before = states()
    run(leases_of(3), lambda index: draw() if index >= first else None, restoring=True)
    assert states() == before


def test_the_training_process_draws_between_leases_what_it_would_without_them():
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)
    expected = [[draw() for draw in DRAWS.values()] for _ in range(4)]
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)
    found: list[list[float]] = []
    run(
        leases_of(3),
        lambda index: [draw() for draw in DRAWS.values()] if index > 4 else None,
        restoring=True,
        between=lambda: found.append([draw() for draw in DRAWS.values()]),
    )
    assert found == expected


def test_a_lease_that_is_abandoned_leaves_the_training_process_as_it_was():
    before = states()
    randomness = SampleRandomness(restoring=True)
    randomness.begin_epoch(1)
    for index in (0, 1):
        randomness.begin_lease()
        randomness.begin_sample(index)
        for draw in DRAWS.values():
            draw()
        randomness.abandon_lease()
        randomness.abandon_lease()
        assert states() == before


@pytest.mark.parametrize("count", [1, 3, 624, 1248])
def test_draws_that_bring_the_position_round_are_noticed(count, restoring):
    def words():
        return np.random.randint(0, 2**32, count, np.uint32).tolist()

    def bits():
        return [random.getrandbits(32) for _ in range(count)]

    for draw in (words, bits):
        expected, _ = run([[5]], lambda _, draw=draw: draw(), restoring=restoring)
        found, counts = run(
            leases_of(4),
            lambda index, draw=draw: draw() if index == 5 else None,
            restoring=restoring,
        )
        assert found[5] == expected[5]
        assert counts[5] == 2


def test_a_normal_number_that_is_in_store_is_not_taken_for_the_samples():
    for draw in (DRAWS["numpy normal"], DRAWS["python normal"]):
        random.seed(1)
        np.random.seed(1)
        expected, _ = run([[4]], lambda _, draw=draw: draw())
        random.seed(1)
        np.random.seed(1)
        draw()
        before = states()
        found, _ = run(
            leases_of(1), lambda i, draw=draw: draw() if i == 4 else None, restoring=True
        )
        assert found[4] == expected[4]
        assert states() == before


def test_a_slow_look_at_the_generators_serves_where_the_quick_one_does_not(monkeypatch):
    monkeypatch.setattr(subject, "_python_mark", random.getstate)
    monkeypatch.setattr(subject, "_normal_at", None)
    for draw in DRAWS.values():
        expected, _ = run([[10]], lambda _, draw=draw: draw())
        found, counts = run(
            leases_of(3), lambda i, draw=draw: draw() if i == 10 else None, restoring=True
        )
        assert found[10] == expected[10]
        assert counts[10] == 2


@pytest.mark.parametrize("kind", [np.random.PCG64, np.random.SFC64, np.random.Philox])
def test_another_bit_generator_of_numpy_serves_too(kind, restoring):
    original = np.random.get_bit_generator()
    np.random.set_bit_generator(kind(5))
    try:
        before = repr(np.random.get_state(legacy=False))
        expected, _ = run([[10]], lambda _: np.random.rand(), restoring=restoring)
        found, _ = run(
            leases_of(3), lambda i: np.random.rand() if i == 10 else None, restoring=restoring
        )
        assert found[10] == expected[10]
        if restoring:
            assert repr(np.random.get_state(legacy=False)) == before
    finally:
        np.random.set_bit_generator(original)


class CountedSeeds:
    def __init__(self, monkeypatch):
        self.count = 0
        for kind in (subject._Python, subject._NumPy, subject._Torch):
            monkeypatch.setattr(kind, "seed", self._counted(kind.seed))

    def _counted(self, seed):
        def counted(generator, number):
            self.count += 1
            seed(generator, number)

        return counted


def test_nothing_is_seeded_once_a_lease_has_shown_that_nothing_is_drawn(monkeypatch, restoring):
    seeds = CountedSeeds(monkeypatch)
    run(leases_of(3, 3), lambda _: None, restoring=restoring)
    first = seeds.count
    assert first == 3 * 3
    seeds.count = 0
    _, counts = run(leases_of(3), lambda _: None, restoring=restoring)
    assert seeds.count == first
    assert set(counts.values()) == {1}


def test_only_the_generator_that_is_used_is_seeded_after_the_first_lease(monkeypatch, restoring):
    seeds = CountedSeeds(monkeypatch)
    run(leases_of(3), lambda _: random.random(), restoring=restoring)
    assert seeds.count == 3 * 3 + 9


@given(st.one_of(st.text(), st.tuples(st.integers(), st.text()), st.integers()))
def test_any_key_seeds_the_same_numbers_again(index):
    first, _ = run([[index]], lambda _: random.random())
    assert run([[index]], lambda _: random.random())[0] == first
