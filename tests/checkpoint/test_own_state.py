"""What a dataset or sampler tells, and is told, of itself."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from penstock.checkpoint import Snapshots, has_state, tell_epoch, unpack
from penstock.checkpoint.own_state import pack


class Stateful:
    """Its state is its own object, and counts how often it was asked for."""

    def __init__(self) -> None:
        self.state = {"asked": 0}

    def state_dict(self) -> dict[str, int]:
        self.state["asked"] += 1
        return self.state

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.state = state

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        raise StopIteration


# Whether there is a state, and what is kept of it.


@pytest.mark.parametrize(
    ("thing", "expected"),
    [
        (Stateful(), True),
        (object(), False),
        (None, False),
        (SimpleNamespace(state_dict=dict), False),
        (SimpleNamespace(load_state_dict=print), False),
        (SimpleNamespace(state_dict={}, load_state_dict=print), False),
        (SimpleNamespace(state_dict=dict, load_state_dict={}), False),
    ],
)
def test_a_state_needs_both_methods(thing, expected):
    assert has_state(thing) is expected


def test_a_packed_state_stays_as_it_was_while_its_owner_goes_on():
    state = {"at": [1, 2]}
    packed = pack(state)
    state["at"].append(3)
    assert unpack(packed) == {"at": [1, 2]}
    assert unpack(packed) is not unpack(packed)


def test_what_pickle_refuses_is_kept_all_the_same():
    def local() -> int:
        return 5

    with pytest.raises((AttributeError, pickle.PicklingError)):
        pickle.dumps(local)
    assert unpack(pack({"next": local}))["next"]() == 5


def test_no_state_stays_none():
    assert unpack(None) is None


# The epoch.


def test_a_number_is_told_to_who_wants_to_know():
    told: list[int] = []
    tell_epoch(SimpleNamespace(set_epoch=told.append), 3)
    tell_epoch(SimpleNamespace(set_epoch=told.append), 0)
    assert told == [3, 0]


def test_nobody_is_told_an_epoch_that_was_not_chosen():
    def set_epoch(number: Any) -> None:
        raise AssertionError(f"told {number}")

    tell_epoch(SimpleNamespace(set_epoch=set_epoch), None)


@pytest.mark.parametrize("thing", [None, [1], SimpleNamespace(set_epoch=7)])
def test_who_does_not_want_to_know_is_left_alone(thing):
    tell_epoch(thing, 3)


# Snapshots.


def dataset_states(snapshots: Snapshots, batches: int) -> list[int | None]:
    """How often the dataset had been asked at each snapshot; None where there was none."""
    packed = [snapshots.take() for _ in range(batches)]
    return [None if each is None else unpack(each)["dataset"]["asked"] for each in packed]


@pytest.mark.parametrize(
    ("every", "expected"),
    [(1, [1, 2, 3, 4, 5]), (2, [None, 1, None, 2, None]), (0, [None] * 5)],
)
def test_a_dataset_is_asked_behind_every_so_many_batches(every, expected):
    dataset = Stateful()
    assert dataset_states(Snapshots(dataset, every), 5) == expected
    # Not one more time than its answer was needed.
    assert dataset.state["asked"] == sum(state is not None for state in expected)


def test_each_epoch_counts_its_own_batches():
    snapshots = Snapshots(Stateful(), 3)
    snapshots.begin_epoch(None)
    assert dataset_states(snapshots, 2) == [None, None]
    snapshots.begin_epoch(None)
    assert dataset_states(snapshots, 3) == [None, None, 1]


def test_an_iterator_has_a_state_beside_its_dataset():
    dataset, iterator = Stateful(), Stateful()
    iterator.state["at"] = 7
    assert unpack(Snapshots(dataset, 1).take(iterator)) == {
        "dataset": {"asked": 1},
        "iterator": {"asked": 1, "at": 7},
    }
    assert unpack(Snapshots([1, 2], 1).take(iterator)) == {"iterator": {"asked": 2, "at": 7}}


def test_a_dataset_that_is_its_own_iterator_is_asked_once():
    dataset = Stateful()
    assert unpack(Snapshots(dataset, 1).take(iter(dataset))) == {"dataset": {"asked": 1}}


def test_where_nobody_has_a_state_there_is_no_snapshot():
    assert Snapshots([1, 2], 1).take() is None
    assert Snapshots([1, 2], 1).take(iter([1, 2])) is None


def test_what_a_snapshot_holds_is_plain_where_the_state_is():
    assert json.loads(json.dumps(unpack(Snapshots(Stateful(), 1).take()))) == {
        "dataset": {"asked": 1}
    }
