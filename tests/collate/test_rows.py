from __future__ import annotations

import collections
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import default_collate
from torch.utils.data._utils import collate as torch_collate

from penstock.collate import SlotCollate
from penstock.collate.rows import LARGE_SAMPLE_BYTES, SLOW_SAMPLE_S, Rows
from penstock.errors import MemoryBudgetError
from tests.collate.test_into_slot import Rooms, assert_same, outcome

SIDE = 128
Pair = collections.namedtuple("Pair", "image label")


def image(number, dtype=torch.float32):
    return torch.full((SIDE, SIDE), number, dtype=dtype)


assert image(0).nbytes >= LARGE_SAMPLE_BYTES


def collated_in_rows(samples, rooms, count=None):
    """What becomes of samples that are placed one by one, as a worker does it."""
    collate = SlotCollate(rooms.allocate)
    collate.begin()
    rows = collate.rows(samples[0], count or len(samples), SLOW_SAMPLE_S)
    placed = [sample if rows is None else rows.place(sample) for sample in samples]
    return collate(placed)


BATCHES: dict[str, list[Any]] = {
    "tensors": [image(n) for n in range(3)],
    "arrays": [image(n).numpy() for n in range(3)],
    "tuples": [(image(n), n) for n in range(3)],
    "lists": [[n, image(n), "name"] for n in range(3)],
    "dicts": [{"image": image(n), "label": n} for n in range(3)],
    "two parts": [(image(n), image(-n, torch.float64)) for n in range(3)],
    "one tensor twice": [(image(n),) * 2 for n in range(3)],
    "the same sample thrice": [(image(1), 1)] * 3,
    "transposed": [image(n).add(torch.arange(SIDE)).T for n in range(3)],
    "conjugated": [image(n, torch.complex64).mul(1j).conj() for n in range(3)],
    "bools": [torch.ones(LARGE_SAMPLE_BYTES, dtype=torch.bool)] * 2,
    "half": [image(n, torch.bfloat16).repeat(2, 1) for n in range(3)],
    "reversed arrays": [image(n).numpy()[::-1] for n in range(3)],
    "big-endian arrays": [image(n).numpy().astype(">f4") for n in range(3)],
    "columns of records": [
        np.zeros(LARGE_SAMPLE_BYTES, [("a", "f4"), ("b", "i1")])["a"] for _ in range(2)
    ],
    "arrays of text": [np.full(LARGE_SAMPLE_BYTES, "a") for n in range(3)],
    "a small one, then large ones": [torch.ones(3), image(1), image(2)],
    "a large one, then small ones": [image(0), torch.ones(3), image(2)],
    "unlike shapes": [image(0), image(1).repeat(2, 1), image(2)],
    "unlike shapes of arrays": [image(0).numpy(), image(1).numpy()[:-1]],
    "unlike dtypes": [image(0), image(1, torch.float64), image(2, torch.int32)],
    "with gradient": [image(n).requires_grad_() for n in range(3)],
    "one with gradient": [image(0), image(1).requires_grad_(), image(2)],
    "parameters": [torch.nn.Parameter(image(n)) for n in range(3)],
    "sparse": [image(n).to_sparse() for n in range(3)],
    "an array among tensors": [(image(0),), (image(1).numpy(),), (image(2),)],
    "named tuples": [Pair(image(n), n) for n in range(3)],
    "nested": [{"pair": (image(n), n)} for n in range(3)],
    "unlike keys": [{"image": image(0)}, {"picture": image(1)}],
    "more keys": [{"image": image(0)}, {"image": image(1), "label": 1}],
    "unlike lengths": [[image(0)], [image(1), 1]],
    "unlike types": [(image(0), 1), [image(1), 1], {0: image(2), 1: 1}],
    "ordered dicts": [collections.OrderedDict(image=image(n)) for n in range(3)],
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("samples", BATCHES.values(), ids=BATCHES)
def test_a_batch_in_rows_is_what_torch_makes_of_it(samples):
    found = outcome(lambda samples: collated_in_rows(samples, Rooms()), samples)
    assert_same(found, outcome(default_collate, samples))


parts = st.sampled_from(
    [
        image(1),
        image(2),
        image(3, torch.float64),
        image(4).numpy(),
        image(5).T,
        torch.ones(2),
        7,
        "text",
        None,
    ]
)


@given(
    st.lists(
        st.one_of(parts, st.lists(parts, max_size=2), st.tuples(parts, parts)),
        min_size=1,
        max_size=4,
    )
)
def test_any_samples_in_rows_become_what_torch_makes_of_them(samples):
    found = outcome(lambda samples: collated_in_rows(samples, Rooms()), samples)
    assert_same(found, outcome(default_collate, samples))


@pytest.mark.parametrize("kind", ["tensors", "arrays", "tuples", "lists", "dicts"])
def test_each_sample_is_copied_once_to_where_the_batch_is(kind):
    rooms = Rooms()
    batch = collated_in_rows(BATCHES[kind], rooms)
    tensors = [batch] if torch.is_tensor(batch) else list(getattr(batch, "values", lambda: batch)())
    images = [part for part in tensors if torch.is_tensor(part) and part.dim() == 3]
    assert [room.size for room in rooms.given] == [3 * image(0).nbytes]
    assert len(images) == 1
    assert rooms.holds(images[0])


def test_samples_are_not_changed():
    held = {"image": image(1), "label": 1}
    listed = [image(2)]
    original = held["image"], listed[0]
    rooms = Rooms()
    for sample in (held, listed):
        placed = Rows(sample, 1, rooms.allocate).place(sample)
        assert placed is not sample
    assert (held["image"], listed[0]) == original or held["image"] is original[0]
    assert held["image"] is original[0]
    assert listed[0] is original[1]


def test_a_batch_with_fewer_samples_than_room_is_short():
    rooms = Rooms()
    batch = collated_in_rows([(image(n), n) for n in range(2)], rooms, count=5)
    assert batch[0].shape == (2, SIDE, SIDE)
    assert rooms.holds(batch[0])


def test_samples_made_anew_take_the_same_room():
    rooms = Rooms()
    collate = SlotCollate(rooms.allocate)
    collate.begin()
    for attempt in range(2):
        rows = collate.rows(image(0), 3, SLOW_SAMPLE_S * (1 - attempt))
        placed = [rows.place(image(10 * attempt + n)) for n in range(3)]
        assert_same(collate(placed), default_collate([image(10 * attempt + n) for n in range(3)]))
    assert len(rooms.given) == 1


def test_withdrawn_samples_outlive_their_rows():
    rooms = Rooms()
    gap = object()
    rows = Rows((image(0), 0), 3, rooms.allocate)
    placed = [rows.place((image(n), n)) for n in range(2)]
    withdrawn = rows.withdraw([*placed, gap])
    rooms.given[0][:] = 0
    assert_same(withdrawn[:2], [(image(0), 0), (image(1), 1)])
    assert withdrawn[2] is gap
    assert not rooms.holds(withdrawn[1][0])


@pytest.mark.parametrize("kind", ["tensors", "arrays"])
def test_withdrawn_samples_take_no_more_memory_than_their_own(kind):
    samples = BATCHES[kind]
    rows = Rows(samples[0], 3, Rooms().allocate)
    for copy in rows.withdraw([rows.place(sample) for sample in samples]):
        assert torch.as_tensor(copy).untyped_storage().nbytes() == samples[0].nbytes
        assert getattr(copy, "base", None) is None


def test_samples_beyond_the_room_are_left_alone():
    rows = Rows(image(0), 1, Rooms().allocate)
    rows.place(image(0))
    sample = image(1)
    assert rows.place(sample) is sample


def test_too_little_memory_is_left_to_the_collating_to_report():
    def allocate(size):
        raise MemoryBudgetError("full")

    collate = SlotCollate(allocate)
    collate.begin()
    assert collate.rows(image(0), 3, SLOW_SAMPLE_S) is None
    with pytest.raises(MemoryBudgetError):
        collate([image(0)] * 3)


@pytest.mark.parametrize("sample", [1, "text", torch.ones(2), (torch.ones(2), 1), [], {}, None])
def test_small_samples_are_not_placed(sample):
    collate = SlotCollate(Rooms().allocate)
    collate.begin()
    assert collate.rows(sample, 3, SLOW_SAMPLE_S) is None


def test_samples_that_were_only_looked_up_are_not_placed():
    collate = SlotCollate(Rooms().allocate)
    collate.begin()
    assert collate.rows(image(0), 3, SLOW_SAMPLE_S / 2) is None


def test_a_function_of_the_programs_is_not_lent_rows(monkeypatch):
    def keep(batch, *, collate_fn_map=None):
        return batch

    monkeypatch.setitem(torch_collate.default_collate_fn_map, tuple, keep)
    collate = SlotCollate(Rooms().allocate)
    collate.begin()
    assert collate.rows((image(0), 1), 3, SLOW_SAMPLE_S) is None
