from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.datasets.split import Part, check_part
from penstock.errors import OptionError


@given(st.integers(0, 60), st.integers(1, 12), st.integers(1, 12))
def test_parts_of_parts_hold_each_item_exactly_once_and_are_even(length, ranks, workers):
    parts = [
        Part(w, workers).of(Part(r, ranks).of(range(length)))
        for r in range(ranks)
        for w in range(workers)
    ]
    assert sorted(item for part in parts for item in part) == list(range(length))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    assert all(isinstance(part, range) for part in parts)


@given(st.integers(0, 60), st.integers(1, 12))
def test_taking_from_the_parts_in_turn_gives_the_items_in_order(length, workers):
    parts = [list(Part(w, workers).of(range(length))) for w in range(workers)]
    in_turn = [part[k] for k in range(length) for part in parts if k < len(part)]
    assert in_turn == list(range(length))


def test_numbers_of_numpy_are_numbers():
    num_shards: Any = np.int64(4)
    shard: Any = np.int32(3)
    found = check_part(num_shards, shard)
    assert found == (4, 3)
    assert {type(value) for value in found} == {int}


@pytest.mark.parametrize(
    ("num_shards", "shard", "message"),
    [
        (0, None, "num_shards=0 must be at least 1"),
        (-2, 0, "num_shards=-2 must be at least 1"),
        (4, 4, "shard=4 must be from 0 to 3"),
        (4, -1, "shard=-1 must be from 0 to 3"),
        (None, 1, "shard=1 says nothing without num_shards"),
        (2.0, 0, "num_shards=2.0 must be a whole number"),
        (True, 0, "num_shards=True must be a whole number"),
        (4, "1", "shard='1' must be a whole number"),
    ],
)
def test_a_part_that_is_none_is_an_option_error(num_shards, shard, message):
    with pytest.raises(OptionError, match=message):
        check_part(num_shards, shard)
