"""A state's parts, and what is checked before they are believed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from types import MappingProxyType
from typing import Any

import pytest

from penstock.checkpoint import Identity, Mark, Progress, check_state, make_state
from penstock.errors import StateError

IDENTITY = Identity(
    kind="map",
    length=40,
    samples=40,
    batch_size=2,
    drop_last=False,
    sampler="RandomSampler",
    seed=None,
)
# Of each of its fields, what another loader might have.
OTHERS: dict[str, Any] = {
    "kind": "iterable",
    "length": None,
    "samples": 9,
    "batch_size": None,
    "drop_last": True,
    "sampler": "SequentialSampler",
    "seed": 0,
}


def beginning() -> dict[str, Any]:
    return {
        "epoch": 1,
        "told": None,
        "drawn": [7, 0],
        "redraws": True,
        "streams": None,
        "random": {"own": [], "program": {"torch": "…"}},
        "sampler": {"epochs": []},
        "dataset": None,
    }


def state_of(identity: Identity = IDENTITY, *, under_way: bool = True) -> dict[str, Any]:
    progress = Progress()
    progress.add([Mark(0, read=2), Mark(2, read=2)])
    position = {"origin": beginning(), "progress": progress.to_state()} if under_way else None
    return make_state(identity, **beginning(), position=position, quarantine=[])


@pytest.mark.parametrize("under_way", [True, False], ids=["within-an-epoch", "between-epochs"])
def test_a_state_is_plain_json_and_is_believed(under_way):
    state = state_of(under_way=under_way)
    again = json.loads(json.dumps(state))
    assert again == state
    assert check_state(again, IDENTITY) == state


def test_any_mapping_may_bring_it():
    state = state_of()
    checked = check_state(MappingProxyType(state), IDENTITY)
    assert checked == state
    assert type(checked) is dict


def test_what_a_loader_does_with_the_state_is_not_seen_by_its_owner():
    state = state_of()
    check_state(state, IDENTITY)["epoch"] = 99
    assert state["epoch"] == 1


def test_every_field_of_a_loader_is_compared():
    assert set(OTHERS) == {field.name for field in fields(Identity)}


@pytest.mark.parametrize("name", OTHERS)
def test_a_state_of_another_loader_is_refused_with_both_values(name):
    other = replace(IDENTITY, **{name: OTHERS[name]})
    with pytest.raises(StateError) as caught:
        check_state(state_of(), other)
    message = str(caught.value)
    saved, own = asdict(IDENTITY)[name], OTHERS[name]
    assert f" {saved!r}, and the loader has {own!r};" in message
    check_state(state_of(other), other)


def test_a_field_that_a_state_does_not_have_is_another_value():
    state = state_of()
    del state["loader"]["drop_last"]
    with pytest.raises(StateError, match="drop_last None, and the loader has False"):
        check_state(state, IDENTITY)


@pytest.mark.parametrize("thing", [None, [], "state", 3])
def test_what_is_no_mapping_is_refused_by_its_type(thing):
    with pytest.raises(StateError, match=f"{type(thing).__name__} was given"):
        check_state(thing, IDENTITY)


def test_a_state_of_something_else_is_refused_by_its_keys():
    with pytest.raises(StateError, match=r"'bias', 'weight'.*another object's"):
        check_state({"weight": 1, "bias": 2}, IDENTITY)
    # A model's has thousands.
    with pytest.raises(StateError) as caught:
        check_state({f"layer {number}": 0 for number in range(10_000)}, IDENTITY)
    assert len(str(caught.value)) < 400


def test_torchdatas_state_is_refused_and_its_key_in_ours_is_not():
    with pytest.raises(StateError, match="StatefulDataLoader"):
        check_state({"_iterator_finished": False}, IDENTITY)
    check_state({**state_of(), "_iterator_finished": False}, IDENTITY)


@pytest.mark.parametrize("version", [0, 2, "1"])
def test_another_version_is_refused(version):
    with pytest.raises(StateError, match=f"version {version!r}.*reads version 1"):
        check_state({**state_of(), "penstock": version}, IDENTITY)


# The ways to what a state cannot do without.
TOP = [(key,) for key in state_of() if key != "penstock"]
ORIGIN = [("position", "origin", key) for key in beginning()]
REQUIRED = [
    *TOP,
    ("random", "own"),
    ("random", "program"),
    ("position", "origin"),
    ("position", "progress"),
    *ORIGIN,
    ("position", "origin", "random", "own"),
    ("position", "origin", "random", "program"),
]


def damaged(way: tuple[str, ...], change: Callable[[dict[str, Any], str], object]) -> Any:
    state = part = state_of()
    for step in way[:-1]:
        part = part[step]
    change(part, way[-1])
    return state


@pytest.mark.parametrize("way", REQUIRED, ids=".".join)
def test_a_part_that_is_missing_is_named(way):
    with pytest.raises(StateError, match=f"damaged: '{way[-1]}' is missing"):
        check_state(damaged(way, dict.pop), IDENTITY)


# What a dataset's own state is, is its own business.
@pytest.mark.parametrize("way", [way for way in REQUIRED if way[-1] != "dataset"], ids=".".join)
def test_a_part_of_another_type_is_named_with_it(way):
    state = damaged(way, lambda part, key: part.update({key: "text"}))
    with pytest.raises(StateError, match=f"damaged: '{way[-1]}' is of type str"):
        check_state(state, IDENTITY)


@pytest.mark.parametrize(
    "change",
    [
        lambda progress: progress.update(nonsense=1),
        lambda progress: progress.pop("streams"),
        lambda progress: progress.update(beyond=None),
        lambda progress: progress.update(streams=[{"pulled": 3}]),
    ],
)
def test_a_progress_that_makes_no_sense_is_damaged(change):
    state = state_of()
    change(state["position"]["progress"])
    with pytest.raises(StateError, match="damaged, in its progress: "):
        check_state(state, IDENTITY)
