from __future__ import annotations

import pickle
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from penstock.datasets.labels import LabelTable
from penstock.datasets.paths import PathTable
from penstock.errors import OptionError

PATHS = PathTable(["a.jpg", "b.jpg", "c.jpg"])


def collected(labels):
    table = LabelTable.collect(labels, PATHS)
    return [table[k] for k in range(len(table))]


@pytest.mark.parametrize(
    "labels",
    [
        [3, 1, 2],
        [0.5, 1.5, -2.0],
        [True, False, True],
        ["dog", "cat", "dog"],
        [2**70, 1, 2],
        [2**63, 1, -1],
        [1, 2.5, 3],
        [(1, 2), (3, 4), (5, 6)],
        [None, "a", 3],
        [signal.SIGINT, signal.SIGTERM, signal.SIGKILL],
        [[1], [2, 3], []],
    ],
)
def test_labels_come_back_equal_to_what_was_given(labels):
    found = collected(labels)
    assert found == labels
    assert [type(label) for label in found] == [type(label) for label in labels]


@pytest.mark.parametrize(
    "labels",
    [np.array([3, 1, 2]), torch.tensor([3, 1, 2]), [np.int32(3), np.int32(1), np.int32(2)]],
)
def test_numbers_of_arrays_come_back_as_pythons_own(labels):
    found = collected(labels)
    assert found == [3, 1, 2]
    assert {type(label) for label in found} == {int}


def test_rows_come_back_as_arrays_of_their_own():
    given = np.arange(6).reshape(3, 2)
    table = LabelTable.collect(torch.from_numpy(given), PATHS)
    table[1][:] = -1
    given[:] = -1
    np.testing.assert_array_equal(table[1], [2, 3])


def test_a_mapping_is_looked_up_by_path_however_it_is_typed():
    assert collected({"a.jpg": 1, b"b.jpg": 2, Path("c.jpg"): 3, "other.jpg": 4}) == [1, 2, 3]


def test_a_function_is_called_once_for_each_path():
    calls = []

    def label_of(path):
        calls.append(path)
        return path[0]

    assert collected(label_of) == ["a", "b", "c"]
    assert calls == list(PATHS)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1, 2], "labels has 2 items for 3 images"),
        ([1, 2, 3, 4], "labels has 4 items for 3 images"),
        ({"a.jpg": 1}, "no label for 2 of 3 images, the first is 'b.jpg'"),
        ({7: 1}, "key that is not a path"),
        ("abc", "labels='abc' cannot label images"),
        ({1, 2, 3}, "cannot label images"),
        (7, "labels=7 cannot label images"),
        (np.array(1), "without dimensions"),
    ],
)
def test_labels_that_do_not_fit_are_named_with_the_remedy(labels, message):
    with pytest.raises(OptionError, match=message):
        LabelTable.collect(labels, PATHS)


def test_a_function_that_raises_is_named_with_the_path():
    with pytest.raises(OptionError, match=r"raised KeyError: 'b\.jpg' for 'b\.jpg'") as caught:
        LabelTable.collect(lambda path: {"a.jpg": 1}[path], PATHS)
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_million_labels_are_one_array():
    numbers = LabelTable(list(range(1_000_000)))
    names = LabelTable([f"class_{k % 1000}" for k in range(1_000_000)])
    assert len(pickle.dumps(numbers, 5)) < 8_100_000
    assert len(pickle.dumps(names, 5)) < 4_100_000
    assert names[999_999] == "class_999"
