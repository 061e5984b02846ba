"""A shared list beside a real one: whatever is done to both, they stay the same."""

from __future__ import annotations

import copy
import dataclasses
import json
import operator
import pickle
import random
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from penstock.transport import unpacking
from penstock.transport.packing import pack
from penstock.transport.shared_file import SharedFile, arriving, carrying
from penstock.transport.shared_list import SharedList

INTS = st.integers(-(2**63), 2**63 - 1)
# Lone halves of surrogate pairs too, which file names may have, and the character that parts texts.
TEXTS = st.text(st.characters() | st.sampled_from("\ud83d\ude00\0"), max_size=8)
ROWS = st.tuples(TEXTS, INTS, st.floats(allow_nan=False), st.binary(max_size=5))
LISTS = st.one_of(
    *(st.lists(kind, min_size=1, max_size=30) for kind in (INTS, TEXTS, ROWS)),
    st.lists(st.binary(max_size=8), min_size=1, max_size=30),
    st.lists(st.floats(allow_nan=False), min_size=1, max_size=30),
)
PLACES = st.integers(-35, 35) | st.none()


@pytest.fixture(autouse=True, params=[1 << 10, 3])
def stretch(request, monkeypatch):
    """As it is, and with a list in many stretches."""
    monkeypatch.setattr(unpacking, "STRETCH", request.param)
    monkeypatch.setattr("penstock.transport.shared_list.STRETCH", request.param)


def share(items: list[Any]) -> Any:
    file = SharedFile()
    packed = pack(items, file)
    assert packed is not None
    return SharedList.over(file, packed)


def outcome(function, *args):
    try:
        return function(*args)
    except Exception as error:
        return type(error)


def same(found, expected):
    """Equal in type and bits as well: 1 is not True, and 0.0 is not -0.0."""
    assert repr(found) == repr(expected)
    assert found == expected


@given(LISTS)
def test_everything_comes_out_as_it_went_in(items):
    shared = share(items)
    assert len(shared) == len(items)
    same(list(shared), items)
    same([shared[at] for at in range(len(items))], items)
    same(list(reversed(shared)), items[::-1])
    for found, item in zip(shared, items, strict=True):
        assert type(found) is type(item)


@given(LISTS, PLACES, PLACES, st.integers(-4, 4) | st.none())
def test_indices_and_slices(items, begin, end, step):
    shared = share(items)
    cut = slice(begin, end, step)
    assert outcome(operator.getitem, shared, cut) == outcome(operator.getitem, items, cut)
    if begin is not None:
        assert outcome(operator.getitem, shared, begin) == outcome(operator.getitem, items, begin)
    for odd in ("1", 1.0, None):
        with pytest.raises(TypeError, match="list indices must be integers or slices, not"):
            shared[odd]
    assert shared[np.int64(0)] == items[0]


@given(LISTS, st.data(), PLACES, PLACES)
def test_searching(items, data, begin, end):
    shared = share(items)
    value = data.draw(st.sampled_from(items) | TEXTS)
    assert (value in shared) == (value in items)
    assert shared.count(value) == items.count(value)
    assert outcome(shared.index, value) == outcome(items.index, value)
    if begin is not None and end is not None:
        found = outcome(shared.index, value, begin, end)
        assert found == outcome(items.index, value, begin, end)


@given(LISTS, LISTS)
def test_comparing_and_adding(items, others):
    shared, other = share(items), share(others)
    for against, expected in ((others, others), (other, others), (items, items), (shared, items)):
        for relation in (operator.eq, operator.ne, operator.lt, operator.ge, operator.add):
            want = outcome(relation, items, expected)
            assert outcome(relation, shared, against) == want
            assert outcome(relation, items, against) == want
        assert outcome(relation, against, shared) == outcome(relation, expected, items)
    assert shared * 2 == 2 * shared == items * 2
    assert shared != tuple(items)
    with pytest.raises(TypeError):
        shared + tuple(items)
    with pytest.raises(TypeError):
        tuple(items) + shared
    with pytest.raises(TypeError):
        hash(shared)


CHANGES = st.one_of(
    st.tuples(st.just("append"), TEXTS),
    st.tuples(st.just("extend"), st.lists(TEXTS, max_size=3)),
    st.tuples(st.just("insert"), st.integers(-5, 5), TEXTS),
    st.tuples(st.just("pop"), st.integers(-5, 5)),
    st.tuples(st.just("remove"), TEXTS),
    st.tuples(st.just("__setitem__"), st.integers(-5, 5), TEXTS),
    st.tuples(st.just("__setitem__"), st.just(slice(1, 3)), st.lists(TEXTS, max_size=3)),
    st.tuples(st.just("__delitem__"), st.integers(-5, 5)),
    st.tuples(st.just("reverse")),
    st.tuples(st.just("sort")),
    st.tuples(st.just("clear")),
    st.tuples(st.just("__imul__"), st.integers(0, 2)),
    st.tuples(st.just("__iadd__"), st.lists(TEXTS, max_size=3)),
)


@given(st.lists(TEXTS, min_size=1, max_size=10), st.lists(CHANGES, max_size=5))
def test_changes_are_its_own(items, changes):
    shared, twin, real = share(items), share(items), list(items)
    before = copy.copy(shared)
    for name, *args in changes:
        found, expected = outcome(getattr(shared, name), *args), outcome(getattr(real, name), *args)
        assert found == expected
        assert shared == real
        assert (len(shared), list(shared), shared[1:]) == (len(real), real, real[1:])
        assert list(reversed(shared)) == real[::-1]
        assert [value in shared for value in items] == [value in real for value in items]
        assert [shared.count(value) for value in items] == [real.count(value) for value in items]
    assert twin == items
    assert before == items


def test_an_iterator_sees_what_is_changed_meanwhile():
    for items in (share(["a", "b", "c"]), ["a", "b", "c"]):
        iterator, backward = iter(items), reversed(items)
        assert (next(iterator), next(backward)) == ("a", "c")
        items[1] = "x"
        items.append("d")
        assert list(iterator) == ["x", "c", "d"]
        assert list(iterator) == []
        assert list(backward) == ["x", "a"]


@pytest.mark.parametrize("way", [pickle, cloudpickle])
def test_iterators_are_pickled_where_they_are(way):
    for make in (iter, reversed):
        iterator = make(share([1, 2, 3, 4]))
        next(iterator)
        assert operator.length_hint(iterator) == 3
        found = way.loads(way.dumps(iterator))
        assert list(found) == list(iterator)
        assert list(way.loads(way.dumps(iterator))) == []


def test_the_iterator_of_a_list_can_be_made_one_of_a_shared_list():
    # As pickle does where the list in it travels as a shared one.
    iterator = iter(share([1, 2, 3]))
    iterator.__setstate__(2)
    assert list(iterator) == [3]


def test_it_is_a_list_for_whoever_asks():
    shared = share(["a", "b"])
    assert isinstance(shared, list)
    assert shared.__class__ is list
    assert repr(shared) == "['a', 'b']"
    assert sorted(shared, reverse=True) == ["b", "a"]
    assert "-".join(shared) == "a-b"
    assert [*shared, *shared] == ["a", "b"] * 2
    first, *rest = shared
    assert (first, rest) == ("a", ["b"])
    assert operator.add(["x"], shared) == ["x", "a", "b"]
    plain = ["x"]
    plain += shared
    plain[1:1] = shared
    assert plain == ["x", "a", "b", "a", "b"]
    assert np.array(shared).tolist() == ["a", "b"]
    assert torch.tensor(share([1, 2])).tolist() == [1, 2]
    assert random.Random(0).choice(shared) == random.Random(0).choice(["a", "b"])
    assert type(shared)(reversed(shared)) == ["b", "a"]
    assert type(type(shared)()) is list
    match shared:
        case [one, two]:
            assert (one, two) == ("a", "b")
        case _:
            raise AssertionError


def test_dataclasses_make_a_list_of_it():
    @dataclasses.dataclass
    class Record:
        paths: Any

    assert dataclasses.asdict(Record(share(["a"]))) == {"paths": ["a"]}


def test_what_takes_nothing_but_a_list_says_so():
    with pytest.raises(TypeError):
        json.dumps(share(["a"]))
    with pytest.raises(TypeError):
        list.__len__(share(["a"]))


def test_it_is_pickled_as_a_list_and_copied_without_its_items():
    shared = share(["a", "b"])
    for way in (pickle, cloudpickle):
        found = way.loads(way.dumps(shared))
        assert type(found) is list
        assert found == ["a", "b"]
    assert type(shared.copy()) is type(shared[:]) is list
    deep, flat = copy.deepcopy(shared), copy.copy(shared)
    deep.append("c")
    assert (shared, flat, deep) == (["a", "b"], ["a", "b"], ["a", "b", "c"])
    assert type(flat) is SharedList
    again = copy.deepcopy({"one": deep, "two": deep})
    assert again["one"] is again["two"]
    assert again["one"] == deep
    with carrying() as files:
        pickled = pickle.dumps([shared, deep])
    with arriving(files):
        shared_too, deep_too = pickle.loads(pickled)
    assert type(shared_too) is SharedList
    assert type(deep_too) is list
    assert (shared_too, deep_too) == (shared, deep)


class Path(str):
    __slots__ = ()


class Number(int):
    pass


class Pair(tuple):
    __slots__ = ()


@pytest.mark.parametrize(
    "items",
    [
        [],
        [None],
        ["a", 1],
        ["a", Path("b")],
        [1, True],
        [False, True],
        [1, Number(2)],
        [1, 1.0],
        [1, 2**63],
        [0.5, np.float64(0.5)],
        [b"a", bytearray(b"b")],
        [("a", 1), ("b",)],
        [("a", 1), ("b", "c")],
        [("a", 1), Pair(("b", 2))],
        [("a", 1), ["b", 2]],
        [()],
        [("a", None)],
        [["a"]],
    ],
)
def test_what_would_not_come_out_as_it_is_is_not_packed(items):
    file = SharedFile()
    before = file.size
    assert pack(items, file) is None
    assert file.size == before


@pytest.mark.parametrize("most", [10, 1 << 32])
def test_offsets_are_wider_where_they_have_to_be(monkeypatch, most):
    monkeypatch.setattr("penstock.transport.packing._NARROW_BYTES", most)
    monkeypatch.setattr("penstock.transport.packing._CHUNK", 2)
    items = [str(n) * (n % 4) for n in range(20)]
    shared = share(items)
    assert shared._packed.columns[0].wide == (most == 10)
    assert (list(shared), [shared[at] for at in range(20)]) == (items, items)


@pytest.mark.usefixtures("no_leaks")
def test_nobody_can_write_to_the_memory_and_it_goes_with_the_last_reference():
    shared = share([1, 2, 3])
    assert shared[0] == 1
    with pytest.raises(TypeError, match="read-only"):
        shared._file.memory[0] = 1
