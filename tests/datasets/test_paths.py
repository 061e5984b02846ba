from __future__ import annotations

import gc
import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.datasets.paths import PathTable
from penstock.errors import OptionError

MILLION = 1_000_000


@given(st.lists(st.binary(min_size=1, max_size=12).filter(lambda path: b"\0" not in path)))
def test_every_path_comes_back_exactly_whatever_bytes_it_has(paths):
    table = PathTable(paths)
    assert [os.fsencode(path) for path in table] == paths
    assert len(table) == len(paths)
    assert [pickle.loads(pickle.dumps(table))[k] for k in range(len(paths))] == list(table)


def test_str_bytes_and_path_objects_may_be_mixed():
    assert list(PathTable(["a/b.jpg", b"a/c.jpg", Path("d.jpg")])) == [
        "a/b.jpg",
        "a/c.jpg",
        "d.jpg",
    ]


def test_slashes_are_kept_as_they_were_given():
    given_paths = ["/a.jpg", "//a.jpg", "b//c.jpg", "./d.jpg", "e/", "/"]
    assert list(PathTable(given_paths)) == given_paths


def test_negative_numbers_count_from_the_end():
    table = PathTable(["a", "b", "c"])
    assert (table[-1], table[-3]) == ("c", "a")


@pytest.mark.parametrize("index", [3, -4, 10**30])
def test_a_number_out_of_range_raises_index_error(index):
    with pytest.raises(IndexError, match="out of range for 3 images"):
        PathTable(["a", "b", "c"])[index]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (("a.jpg", 1), r"item 1 of source is \('a.jpg', 1\), which is not a path"),
        (7, "item 1 of source is 7"),
        ("", "is empty"),
        ("a\0b", "NUL"),
        ("\ud800", "not a path"),
    ],
)
def test_an_item_that_is_no_path_is_named_with_its_position(item, message):
    with pytest.raises(OptionError, match=message):
        PathTable(["fine.jpg", item])


def test_a_million_paths_are_few_objects_and_a_small_pickle():
    paths = (f"/data/pictures/class_{k % 1000:04d}/image_{k:07d}.jpg" for k in range(MILLION))
    gc.collect()
    before = len(gc.get_objects())
    table = PathTable(paths)
    gc.collect()
    assert len(gc.get_objects()) - before < 100
    assert objects_in(table) < 20
    data = pickle.dumps(table, protocol=5)
    text_bytes = len("image_0000000.jpg") * MILLION
    assert len(data) < text_bytes + 8.5 * MILLION
    restored = pickle.loads(data)
    assert restored[123_456] == "/data/pictures/class_0456/image_0123456.jpg"
    assert len(restored) == MILLION


def objects_in(root: object) -> int:
    """Count what is reachable from an object through slots, attributes and containers."""
    seen: dict[int, object] = {}
    pending = [root]
    while pending:
        value = pending.pop()
        if id(value) in seen or isinstance(value, type):
            continue
        seen[id(value)] = value
        pending += gc.get_referents(value)
    return len(seen)
