"""States that are refused, and what a loader does then."""

from __future__ import annotations

import copy

import pytest
from torch.utils.data import (
    RandomSampler,
)

import penstock
from penstock.errors import StateError
from tests.checkpoint.roles import (
    Dice,
    Stream,
    loader_of,
    plain,
    seeded,
    shuffled,
    state_at,
    streamed,
    undisturbed,
    with_generator,
)

pytestmark = [
    pytest.mark.usefixtures("no_leaks"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
]


def test_a_state_of_another_loader_is_refused_with_both_values():
    state = shuffled(0).state_dict()
    others = [
        (loader_of(Dice(39), 0, shuffle=True), "dataset length 40.*39"),
        (loader_of(Dice(), 0, shuffle=True, batch_size=3), "batch_size 2.*3"),
        (loader_of(Dice(), 0), "sampler .* 'RandomSampler'.*'SequentialSampler'"),
        (loader_of(Dice(), 0, shuffle=True, drop_last=True), "drop_last False.*True"),
        (loader_of(Dice(), 0, sampler=RandomSampler(Dice(), num_samples=9)), "in an epoch 40.*9"),
        (loader_of(Stream(), 0), "kind of dataset 'map'.*'iterable'"),
        (with_generator(0), "states of 0 generators.*from 1"),
    ]
    for loader, message in others:
        with pytest.raises(StateError, match=message):
            loader.load_state_dict(state)
    with pytest.raises(StateError, match=r"seed 9.*8"):
        loader_of(Dice(), 0, shuffle=True, seed=8).load_state_dict(seeded(0).state_dict())


def test_what_is_no_state_is_refused():
    loader = shuffled(0)
    with pytest.raises(StateError, match="list was given"):
        loader.load_state_dict([])  # type: ignore[arg-type]
    with pytest.raises(StateError, match="'weight'"):
        loader.load_state_dict({"weight": 1})
    with pytest.raises(StateError, match="version 99"):
        loader.load_state_dict({**loader.state_dict(), "penstock": 99})
    with pytest.raises(StateError, match="StatefulDataLoader"):
        loader.load_state_dict({"_iterator_finished": False, "_num_yielded": 3})
    # A framework that knows that loader may write its key into the states of others.
    loader.load_state_dict({**loader.state_dict(), "_iterator_finished": False})


@pytest.mark.parametrize("make", [shuffled, streamed])
def test_a_damaged_state_is_refused_whatever_is_missing(make):
    state = state_at(make, 0, 3)
    places: list[tuple[str, ...]] = [(key,) for key in state if key != "penstock"]
    places += [("position", key) for key in state["position"]]
    places += [("position", "origin", key) for key in state["position"]["origin"]]
    places += [("random", key) for key in state["random"]]
    for *path, key in places:
        damaged = copy.deepcopy(state)
        inner = damaged
        for step in path:
            inner = inner[step]
        del inner[key]
        with pytest.raises(StateError, match=f"damaged: '{key}' is missing"):
            make(0).load_state_dict(damaged)
    state["position"]["progress"]["nonsense"] = 1
    with pytest.raises(StateError, match="damaged, in its progress"):
        make(0).load_state_dict(state)
    with pytest.raises(StateError, match="'random' is of type NoneType"):
        make(0).load_state_dict({**state, "random": None})


def test_a_refused_state_changes_nothing():
    _, epoch, _ = undisturbed(seeded, 0)
    loader = seeded(0)
    list(loader)
    with pytest.raises(StateError):
        loader.load_state_dict(shuffled(0).state_dict())
    assert plain(loader) == epoch


@pytest.mark.parametrize("every", [0, -1, 1.5, "x"])
def test_a_count_of_steps_that_is_none_is_refused(every):
    with pytest.raises(penstock.OptionError, match="snapshot_every_n_steps"):
        loader_of(Dice(), 0, snapshot_every_n_steps=every)
