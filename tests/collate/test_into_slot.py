from __future__ import annotations

import collections
import decimal
import enum
import fractions
import warnings
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import default_collate
from torch.utils.data._utils import collate as torch_collate

from penstock.collate import SlotCollate
from penstock.collate.into_slot import SMALL_BATCH_BYTES

Point = collections.namedtuple("Point", "x y")


class Color(enum.IntEnum):
    RED = 1
    BLUE = 2


class Frozen(collections.abc.Mapping):
    """A mapping that can neither be copied nor changed."""

    def __init__(self, content):
        self._content = dict(content)

    def __getitem__(self, key):
        return self._content[key]

    def __iter__(self):
        return iter(self._content)

    def __len__(self):
        return len(self._content)


class Marked(torch.Tensor):
    pass


class Rooms:
    """Gives ordinary memory, and remembers it."""

    def __init__(self) -> None:
        self.given: list[np.ndarray[Any, Any]] = []

    def allocate(self, size):
        self.given.append(np.full(size, 0xEE, np.uint8))
        return self.given[-1]

    def holds(self, tensor):
        return any(np.shares_memory(tensor.detach().numpy(), room) for room in self.given)


def outcome(function, samples):
    """What becomes of samples, or the type of the error."""
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        try:
            return function(samples)
        except Exception as error:
            return type(error)


def assert_same(found, expected):
    assert type(found) is type(expected)
    if isinstance(expected, torch.Tensor):
        assert (found.dtype, found.shape, found.layout) == (
            expected.dtype,
            expected.shape,
            expected.layout,
        )
        assert found.requires_grad == expected.requires_grad
        found, expected = found.detach(), expected.detach()
        if expected.layout is not torch.strided:
            found, expected = found.to_dense(), expected.to_dense()
        torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    elif isinstance(expected, collections.abc.Mapping):
        assert list(found) == list(expected)
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, collections.abc.Sequence) and not isinstance(expected, (str, bytes)):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, np.ndarray):
        np.testing.assert_array_equal(found, expected)
    else:
        assert found == expected


def check(samples):
    expected = outcome(default_collate, samples)
    assert_same(outcome(SlotCollate(Rooms().allocate), samples), expected)
    assert_same(outcome(SlotCollate(None), samples), expected)


# Large enough for a slot with four samples.
SIDE = 64


def image(number, dtype=torch.float32):
    return torch.arange(SIDE * SIDE).remainder(100).add(number).to(dtype).view(SIDE, SIDE)


BATCHES = {
    "ints": [1, 2, 3],
    "bools": [True, False],
    "a bool, then an int": [True, 2],
    "an int, then a bool": [2, True],
    "an int, then a float": [1, 2.5],
    "a float, then an int": [1.0, 2],
    "a float, then a bool": [1.0, True],
    "a float, then a huge int": [1.0, 2**70],
    "a float, then an int beyond floats": [1.0, 10**400],
    "ints of 64 bits": [2**63 - 1, -(2**63)],
    "an int of 65 bits": [2**63, 1],
    "a huge int": [1, 2**100],
    "ints of mixed width": [-1, 2**63],
    "numbers of an enumeration": [Color.RED, Color.BLUE],
    "special floats": [float("nan"), float("inf"), -0.0],
    "an int, then text": [1, "one"],
    "a float, then text": [1.0, "1.0"],
    "an int, then nothing": [1, None],
    "a float, then nothing": [1.0, None],
    "an int, then a list": [1, [2]],
    "an int, then a complex": [1, 2j],
    "a float, then a complex": [1.0, 2j],
    "complex numbers": [1j, 2j],
    "an int, then a NumPy int": [1, np.int64(2)],
    "an int, then a NumPy float": [1, np.float32(2)],
    "an int, then a short NumPy int": [1, np.int8(2)],
    "a float, then a NumPy float": [1.0, np.float32(2)],
    "an int, then a tensor": [1, torch.tensor(2)],
    "a float, then a tensor": [1.0, torch.tensor(2.0)],
    "a float, then a tensor of one": [1.0, torch.tensor([2.0])],
    "an int, then a tensor of one": [1, torch.tensor([2])],
    "an int, then a tensor of a bool": [1, torch.tensor(True)],
    "an int, then a tensor of a float": [1, torch.tensor(2.5)],
    "a float, then a tensor of an int": [1.0, torch.tensor(2)],
    "a float, then an array of one": [1.0, np.array([2.0])],
    "a float, then a decimal": [1.0, decimal.Decimal("2.5")],
    "a float, then a fraction": [1.0, fractions.Fraction(1, 2)],
    "an int, then a fraction": [1, fractions.Fraction(4, 2)],
    "an int, then an array": [1, np.array(2)],
    "an int, then a longer array": [1, np.array([2, 3])],
    "NumPy scalars": [np.float32(1), np.float32(2)],
    "NumPy doubles": [np.float64(1), np.float64(2)],
    "NumPy bools": [np.bool_(True), np.bool_(False)],
    "NumPy ints of different kinds": [np.int8(1), np.int64(2)],
    "a NumPy double, then a float": [np.float64(1), 2.0],
    "strings": ["a", "b"],
    "bytes": [b"a", b"b"],
    "nothing": [None, None],
    "objects": [object(), object()],
    "no samples": [],
    "arrays": [np.ones(3), np.zeros(3)],
    "arrays without dimensions": [np.array(1), np.array(2)],
    "arrays of text": [np.array(["a"]), np.array(["b"])],
    "arrays of objects": [np.array([None]), np.array([None])],
    "arrays of unlike shape": [np.ones(3), np.ones(4)],
    "arrays of half": [np.ones(3, np.float16)] * 2,
    "tensors": [torch.ones(3), torch.zeros(3)],
    "tensors without dimensions": [torch.tensor(1), torch.tensor(2)],
    "tensors without elements": [torch.ones(0, 3), torch.ones(0, 3)],
    "tensors of unlike shape": [torch.ones(3), torch.ones(4)],
    "tensors of unlike dtype": [torch.ones(3), torch.ones(3, dtype=torch.int64)],
    "a tensor, then an int": [torch.ones(3), 1],
    "large tensors": [image(n) for n in range(4)],
    "large tensors of unlike dtype": [image(0), image(1, torch.float64), image(2, torch.int8)],
    "large tensors of unlike shape": [image(0), image(1)[:-1], image(2)],
    "a large tensor, then a scalar": [image(0), torch.tensor(1.0), image(2)],
    "large tensors with gradient": [image(n).requires_grad_() for n in range(4)],
    "a large tensor with gradient": [image(0), image(1).requires_grad_(), image(2)],
    "large parameters": [torch.nn.Parameter(image(n)) for n in range(4)],
    "large tensors of a subclass": [image(n).as_subclass(Marked) for n in range(4)],
    "large tensors, one of a subclass": [image(0), image(1).as_subclass(Marked), image(2)],
    "large transposed tensors": [image(n).T for n in range(4)],
    "large expanded tensors": [torch.tensor([1.0]).expand(SIDE * SIDE) for _ in range(4)],
    "large conjugated tensors": [image(n, torch.complex64).mul(1j).conj() for n in range(4)],
    "large tensors of bools": [image(n, torch.uint8) > 50 for n in range(16)],
    "large tensors of half": [image(n, torch.bfloat16) for n in range(8)],
    "large arrays": [image(n).numpy() for n in range(4)],
    "large sparse tensors": [image(n).to_sparse() for n in range(4)],
    "lists": [[1, "a", 2.0], [2, "b", 3.0]],
    "tuples": [(1, image(0)), (2, image(1)), (3, image(2))],
    "lists of unlike length": [[1, 2], [1]],
    "tuples of unlike length": [(1, 2), (1,)],
    "tuples, the first one shorter": [(1,), (1, 2)],
    "empty tuples": [(), ()],
    "one tuple": [(1, "a", None)],
    "a tuple, then a list": [(1, 2.0), [3, 4.0]],
    "a list, then a tuple": [[1, 2.0], (3, 4.0)],
    "a tuple, then text as long": [("a", "b"), "cd"],
    "a tuple, then a dictionary": [(1, 2), {3: 4, 5: 6}],
    "a tuple, then an int": [(1, 2), 3],
    "a tuple, then nothing": [(1, 2), None],
    "a tuple, then a set": [(1,), {2}],
    "a tuple, then a tensor": [(torch.tensor(1), torch.tensor(2)), torch.tensor([3, 4])],
    "tuples in tuples": [((n, image(n)), (float(n), str(n))) for n in range(3)],
    "tuples of subclasses": [(Color.RED, image(0).as_subclass(Marked), True)] * 2,
    "empty lists": [[], []],
    "named tuples": [Point(1, image(0)), Point(2, image(1))],
    "dictionaries": [{"a": 1, "b": image(0)}, {"a": 2, "b": image(1)}],
    "dictionaries with unlike keys": [{"a": 1}, {"b": 1}],
    "a dictionary with more keys": [{"a": 1}, {"a": 2, "b": 3}],
    "ordered dictionaries": [collections.OrderedDict(a=1), collections.OrderedDict(a=2)],
    "default dictionaries": [collections.defaultdict(int, a=1), collections.defaultdict(int, a=2)],
    "read-only dictionaries": [MappingProxyType({"a": image(n)}) for n in range(3)],
    "mappings": [Frozen({"a": image(n)}) for n in range(3)],
    "nested": [{"a": [(image(n), n), Point(str(n), {"b": [float(n)]})]} for n in range(4)],
    "ranges": [range(3), range(3)],
    "a list subclass": [collections.UserList([1, 2]), collections.UserList([3, 4])],
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("samples", BATCHES.values(), ids=BATCHES)
def test_a_batch_is_what_torch_makes_of_it(samples):
    check(samples)


numbers = st.one_of(
    st.booleans(),
    st.integers(-(2**65), 2**65),
    st.floats(),
    st.integers(-5, 5).map(np.int64),
    st.floats(width=32).map(np.float32),
)


@settings(max_examples=300)
@given(st.lists(numbers, min_size=1, max_size=4))
def test_mixed_numbers_become_what_torch_makes_of_them(samples):
    check(samples)


leaves = st.one_of(numbers, st.text(max_size=2), st.just(torch.ones(2)), st.just(np.ones(3)))


@given(
    st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
            st.builds(Point, inner, inner),
            st.tuples(inner, inner),
        ),
        max_leaves=6,
    ),
    st.integers(1, 3),
)
def test_any_structure_becomes_what_torch_makes_of_it(sample, count):
    check([sample] * count)


def test_large_tensors_are_stacked_in_the_room_they_were_given():
    rooms = Rooms()
    batch = SlotCollate(rooms.allocate)([{"image": image(n), "label": n} for n in range(4)])
    assert rooms.holds(batch["image"])
    assert not rooms.holds(batch["label"])
    assert [room.size for room in rooms.given] == [4 * SIDE * SIDE * 4]


def test_large_arrays_are_stacked_in_the_room_they_were_given():
    rooms = Rooms()
    assert rooms.holds(SlotCollate(rooms.allocate)([image(n).numpy() for n in range(4)]))


def test_small_tensors_take_no_room():
    rooms = Rooms()
    elements = SMALL_BATCH_BYTES // 4 - 1
    SlotCollate(rooms.allocate)([torch.ones(elements, dtype=torch.uint8) for _ in range(4)])
    assert rooms.given == []


def test_a_batch_shares_no_memory_with_its_samples():
    sample = image(0)
    batch = SlotCollate(Rooms().allocate)([sample])
    assert not np.shares_memory(batch.numpy(), sample.numpy())


def test_no_shared_memory_of_torchs_own_is_taken_in_a_worker(monkeypatch):
    monkeypatch.setattr(torch.utils.data, "get_worker_info", lambda: object())
    for samples in ([image(n) for n in range(4)], [torch.ones(3)] * 2):
        assert not SlotCollate(Rooms().allocate)(samples).is_shared()


def test_the_error_for_ragged_tensors_is_torchs():
    samples = [image(0), image(1)[:-1]]
    with pytest.raises(RuntimeError) as expected:
        default_collate(samples)
    with pytest.raises(RuntimeError) as found:
        SlotCollate(Rooms().allocate)(samples)
    assert str(found.value) == str(expected.value)


# Programs may extend torch's map of functions.


@pytest.fixture
def functions(monkeypatch):
    functions = dict(torch_collate.default_collate_fn_map)
    monkeypatch.setattr(torch_collate, "default_collate_fn_map", functions)
    return functions


class Box:
    def __init__(self, value):
        self.value = value


def collate_boxes(boxes, *, collate_fn_map=None):
    return torch_collate.collate([box.value for box in boxes], collate_fn_map=collate_fn_map)


def test_a_function_that_the_program_adds_is_used_and_may_collate_into_the_slot(functions):
    rooms = Rooms()
    collate = SlotCollate(rooms.allocate)
    # Also when it adds it late.
    assert collate([1, 2]).tolist() == [1, 2]
    functions[Box] = collate_boxes
    batch = collate([Box(image(n)) for n in range(4)])
    assert rooms.holds(batch)
    assert torch.equal(batch, torch.stack([image(n) for n in range(4)]))


@pytest.mark.parametrize("kind", [tuple, (list, tuple), object, collections.abc.Sequence])
def test_a_function_of_the_program_that_takes_tuples_gets_them(functions, kind):
    collate = SlotCollate(None)
    samples = [(1, 2), (3, 4)]
    assert torch.stack(collate(samples), 1).tolist() == [[1, 2], [3, 4]]
    functions[kind] = lambda samples, *, collate_fn_map=None: ["its own", *samples]
    assert collate(samples) == ["its own", *samples]


def test_without_a_slot_numbers_go_where_the_program_wants_tensors():
    samples = [(1, 2.0), (3, 4.0)]
    with torch.device("meta"):
        found = SlotCollate(None)(samples)
        assert [part.device.type for part in found] == ["meta", "meta"]
        assert [part.dtype for part in found] == [part.dtype for part in default_collate(samples)]


def test_without_a_slot_tensors_may_be_resized():
    ints, floats = SlotCollate(None)([(1, 2.0), (3, 4.0)])
    assert ints.resize_(200).shape == floats.resize_(200).shape == (200,)


@pytest.mark.parametrize(
    ("kind", "samples"),
    [
        (torch.Tensor, [image(n) for n in range(4)]),
        (int, [1, 2]),
        (float, [1.0, 2.0]),
        (str, ["a", "b"]),
        (dict, [{"a": 1}, {"a": 2}]),
        (np.ndarray, [np.ones(3)] * 2),
    ],
)
def test_a_function_that_the_program_replaces_is_used(functions, kind, samples):
    functions[kind] = lambda batch, *, collate_fn_map=None: ("theirs", len(batch))
    assert SlotCollate(Rooms().allocate)(samples) == ("theirs", len(samples))
    check(samples)


def test_a_function_that_the_program_removes_is_not_used(functions):
    del functions[str]
    check(["a", "b"])


def test_a_function_for_a_tensor_subclass_is_used(functions):
    functions[Marked] = lambda batch, *, collate_fn_map=None: "marked"
    assert SlotCollate(Rooms().allocate)([image(0).as_subclass(Marked)] * 2) == "marked"
