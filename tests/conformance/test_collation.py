"""What becomes of samples: `default_collate`, its map, and functions of the program's own."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch.utils.data._utils.collate import default_collate_fn_map

from tests.conformance.roles import Given, Numbers, as_it_is, error_of, is_torchs, lists, same


class Point(NamedTuple):
    x: torch.Tensor
    y: float


class Frozen(Mapping[str, Any]):
    """A mapping that is made of a dict."""

    def __init__(self, content: Any) -> None:
        self.content = dict(content)

    def __getitem__(self, key: str) -> Any:
        return self.content[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.content)

    def __len__(self) -> int:
        return len(self.content)


class Stubborn(Frozen):
    """A mapping that cannot be made of a dict."""

    def __init__(self, key: str, value: Any) -> None:
        super().__init__({key: value})


class Row(Sequence[Any]):
    """A sequence that is made of a list."""

    def __init__(self, content: Any) -> None:
        self.content = list(content)

    def __getitem__(self, at: Any) -> Any:
        return self.content[at]

    def __len__(self) -> int:
        return len(self.content)


@dataclasses.dataclass
class Box:
    number: int


T = torch.tensor

# Two samples, and the batch of them.
BATCHES: dict[str, tuple[Any, Any, Any]] = {
    "ints": (1, 2, T([1, 2])),
    "floats": (1.0, 2.0, T([1.0, 2.0], dtype=torch.float64)),
    "bools": (True, False, T([True, False])),
    "int-and-float": (1, 2.5, T([1.0, 2.5])),
    "bool-and-int": (True, 2, T([1, 2])),
    "strings": ("a", "b", ["a", "b"]),
    "bytes": (b"a", b"b", [b"a", b"b"]),
    "tensors": (T([1, 2]), T([3, 4]), T([[1, 2], [3, 4]])),
    "half": (T([1.0]).half(), T([2.0]).half(), T([[1.0], [2.0]]).half()),
    "bfloat": (T([1.0]).bfloat16(), T([2.0]).bfloat16(), T([[1.0], [2.0]]).bfloat16()),
    "complex": (T(1 + 2j), T(2j), T([1 + 2j, 2j])),
    "no-elements": (torch.empty(0, 3), torch.empty(0, 3), torch.empty(2, 0, 3)),
    "zero-dimensions": (T(1), T(2), T([1, 2])),
    "transposed": (torch.ones(2, 3).t(), torch.zeros(2, 3).t(),
                   torch.stack([torch.ones(3, 2), torch.zeros(3, 2)])),
    "large": (torch.ones(3, 99, 99), torch.zeros(3, 99, 99),
              torch.stack([torch.ones(3, 99, 99), torch.zeros(3, 99, 99)])),
    "arrays": (np.array([1, 2], np.int16), np.array([3, 4], np.int16),
               T([[1, 2], [3, 4]], dtype=torch.int16)),
    "large-arrays": (np.ones((99, 99, 3), np.uint8), np.zeros((99, 99, 3), np.uint8),
                     torch.stack([torch.ones(99, 99, 3), torch.zeros(99, 99, 3)]).byte()),
    "numpy-scalars": (np.float32(1), np.float32(2), T([1.0, 2.0])),
    "numpy-integers": (np.int32(1), np.int32(2), T([1, 2], dtype=torch.int32)),
    "numpy-bools": (np.bool_(True), np.bool_(False), T([True, False])),
    "arrays-without-dimensions": (np.array(1.5), np.array(2.5), T([1.5, 2.5]).double()),
    "tuples": ((1, "a"), (2, "b"), [T([1, 2]), ("a", "b")]),
    "lists": ([1, "a"], [2, "b"], [T([1, 2]), ("a", "b")]),
    "no-content": ([], [], []),
    "dicts": ({"n": 1, "s": "a"}, {"n": 2, "s": "b"}, {"n": T([1, 2]), "s": ["a", "b"]}),
    "dicts-of-other-order": ({"n": 1, "m": 2}, {"m": 4, "n": 3}, {"n": T([1, 3]), "m": T([2, 4])}),
    "dict-with-more": ({"n": 1}, {"n": 2, "more": 3}, {"n": T([1, 2])}),
    "ordered-dicts": (collections.OrderedDict(n=1), collections.OrderedDict(n=2),
                      collections.OrderedDict(n=T([1, 2]))),
    "named-tuples": (Point(T([1]), 1.0), Point(T([2]), 2.0),
                     Point(T([[1], [2]]), T([1.0, 2.0], dtype=torch.float64))),
    "nesting": ([{"deep": (1, "a")}], [{"deep": (2, "b")}], [{"deep": [T([1, 2]), ("a", "b")]}]),
}  # fmt: skip


@pytest.mark.parametrize(("first", "second", "batch"), BATCHES.values(), ids=BATCHES)
def test_samples_become_a_batch(
    loader_class: Any, workers: int, first: Any, second: Any, batch: Any
) -> None:
    loader = loader_class(Given([first, second]), batch_size=2, num_workers=workers)
    assert same(list(loader), [batch])


def test_mappings_and_sequences_of_the_programs_own_keep_their_type(
    loader_class: Any, workers: int
) -> None:
    def batch_of(first: Any, second: Any) -> Any:
        (batch,) = loader_class(Given([first, second]), batch_size=2, num_workers=workers)
        return batch

    frozen = batch_of(Frozen({"n": 1}), Frozen({"n": 2}))
    assert type(frozen) is Frozen
    assert same(frozen.content, {"n": T([1, 2])})
    row = batch_of(Row([1, "a"]), Row([2, "b"]))
    assert type(row) is Row
    assert same(row.content, [T([1, 2]), ("a", "b")])
    counts = batch_of(collections.Counter(n=1), collections.Counter(n=2))
    assert type(counts) is collections.Counter
    stubborn = batch_of(Stubborn("n", 1), Stubborn("n", 2))
    assert same(stubborn, {"n": T([1, 2])})
    assert same(batch_of(range(2), range(2, 4)), [T([0, 2]), T([1, 3])])


REFUSED: dict[str, tuple[list[Any], Any, str]] = {
    "unknown-type": ([Box(1), Box(2)], TypeError, "default_collate: batch must contain tensors"),
    "sets": ([{1}, {2}], TypeError, "default_collate: batch must contain tensors"),
    "object-arrays": ([np.array([None])] * 2, TypeError, "default_collate: batch must contain"),
    "string-arrays": ([np.array(["a"])] * 2, TypeError, "default_collate: batch must contain"),
    "structured-arrays": ([np.zeros(2, [("a", "i4")])] * 2, TypeError, "can't convert"),
    "sparse-tensors": ([torch.eye(2).to_sparse()] * 2, RuntimeError,
                       "Batches of sparse tensors are not currently supported"),
    "shapes": ([torch.ones(2), torch.ones(3)], RuntimeError,
               "stack expects each tensor to be equal size"),
    "lengths": ([[1, 2], [3]], RuntimeError, "each element in list of batch should be of equal"),
    "keys": ([{"n": 1}, {"m": 1}], KeyError, "n"),
    "large-numbers": ([2**70, 1], (ValueError, RuntimeError), "Overflow"),
}  # fmt: skip


@pytest.mark.parametrize(("samples", "kind", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_collated_says_so(
    loader_class: Any, workers: int, samples: list[Any], kind: type[Exception], words: str
) -> None:
    loader = loader_class(Given(samples), batch_size=2, num_workers=workers)
    error = error_of(loader)
    assert isinstance(error, kind)
    assert words in str(error)


def test_a_sample_none_cannot_be_collated(loader_class: Any, workers: int) -> None:
    """Both raise a `TypeError`; ours is about the sample, and says how to skip it."""
    loader = loader_class(Given([None, 1]), batch_size=2, num_workers=workers)
    words = "NoneType" if is_torchs(loader_class) else "returned None for sample 0"
    error = error_of(loader)
    assert isinstance(error, TypeError)
    assert words in str(error)


def test_none_is_a_sample_to_a_collate_function_that_takes_it(
    loader_class: Any, workers: int
) -> None:
    loader = loader_class(Given([1, None]), batch_size=2, collate_fn=as_it_is, num_workers=workers)
    assert list(loader) == [[1, None]]


def boxes(batch: list[Box], *, collate_fn_map: Any = None) -> Any:
    return Box(sum(box.number for box in batch))


def nones(batch: list[None], *, collate_fn_map: Any = None) -> Any:
    return len(batch)


def first_of(batch: list[torch.Tensor], *, collate_fn_map: Any = None) -> Any:
    return batch[0]


def test_the_map_of_collate_functions_may_be_extended(
    loader_class: Any, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(default_collate_fn_map, Box, boxes)
    samples = [{"box": Box(1), "n": 1}, {"box": Box(2), "n": 2}]
    loader = loader_class(Given(samples), batch_size=2, num_workers=workers)
    assert same(list(loader), [{"box": Box(3), "n": T([1, 2])}])


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_what_the_map_was_extended_by_reaches_workers_that_inherit_nothing(
    loader_class: Any, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With torch they have only what the import of the program's main module puts there.

    Our workers do not import it, and may be forked by a server where torch would fork.
    """
    monkeypatch.setitem(default_collate_fn_map, Box, boxes)
    loader = loader_class(
        Given([Box(1), Box(2)]), batch_size=2, num_workers=1, multiprocessing_context=method
    )
    if is_torchs(loader_class):
        assert "default_collate: batch must contain" in str(error_of(loader))
    else:
        assert list(loader) == [Box(3)]


def test_what_the_map_has_may_be_replaced(
    loader_class: Any, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(default_collate_fn_map, torch.Tensor, first_of)
    loader = loader_class(Given([T([1]), T([2])]), batch_size=2, num_workers=workers)
    assert same(list(loader), [T([1])])


def test_the_map_may_be_extended_by_none(
    loader_class: Any,
    workers: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(default_collate_fn_map, type(None), nones)
    loader = loader_class(Given([None, None]), batch_size=2, num_workers=workers)
    assert list(loader) == [2]


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
def test_a_sparse_tensor_arrives_sparse(loader_class: Any, workers: int) -> None:
    samples = [torch.eye(2).to_sparse(), torch.ones(2, 2).to_sparse()]
    arrived = list(loader_class(Given(samples), batch_size=None, num_workers=workers))
    assert same(arrived, samples)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_a_collate_function_may_make_nested_tensors(loader_class: Any, workers: int) -> None:
    loader = loader_class(
        Given([torch.ones(2), torch.ones(3)]),
        batch_size=2,
        collate_fn=torch.nested.nested_tensor,
        num_workers=workers,
    )
    (batch,) = loader
    assert batch.is_nested
    assert same(list(batch.unbind()), [torch.ones(2), torch.ones(3)])


@pytest.mark.parametrize(
    "value",
    [
        np.zeros(2, [("a", "i4"), ("b", "U3")]),
        np.array(["text"], object),
        np.datetime64("2024-01-01"),
        np.asfortranarray(np.ones((40, 50))),
        {1, 2},
        2**70,
        slice(1, 2),
        "text",
        None,
        Box(3),
    ],
    ids=lambda value: type(value).__name__,
)
def test_whatever_a_collate_function_returns_arrives(
    loader_class: Any, workers: int, value: Any
) -> None:
    loader = loader_class(Given([value]), collate_fn=lambda batch: batch[0], num_workers=workers)
    (arrived,) = loader
    assert same(arrived, value)


def test_the_collate_function_gets_a_list_of_the_samples(loader_class: Any, workers: int) -> None:
    def told(samples: Any) -> tuple[type, int]:
        return type(samples), len(samples)

    loader = loader_class(Numbers(5), batch_size=3, collate_fn=told, num_workers=workers)
    assert list(loader) == [(list, 3), (list, 2)]


def test_batches_can_be_written_to(loader_class: Any, workers: int) -> None:
    samples = [torch.zeros(3, 99, 99), torch.zeros(3, 99, 99)]
    for batch in loader_class(Given(samples), batch_size=2, num_workers=workers):
        batch += 1
        assert batch.sum() == batch.numel()
        assert batch.numpy().flags.writeable


def test_batches_that_are_kept_stay_as_they_are(loader_class: Any, workers: int) -> None:
    samples = [torch.full((3, 64, 64), number) for number in range(40)]
    kept = list(loader_class(Given(samples), batch_size=2, num_workers=workers))
    assert [int(batch[0, 0, 0, 0]) for batch in kept] == list(range(0, 40, 2))
    assert all(same(batch[1], samples[2 * at + 1]) for at, batch in enumerate(kept))


def test_a_batch_made_in_a_worker_lies_in_memory_that_others_can_map(loader_class: Any) -> None:
    """torch's lies in a file of its own, so `is_shared()`; ours in the loader's, which it hides."""
    (batch,) = loader_class(Given([torch.ones(3, 99, 99)]), num_workers=1)
    assert batch.is_shared() == is_torchs(loader_class)


def test_collate_functions_travel_under_every_start_method(
    loader_class: Any, start_method: str
) -> None:
    loader = loader_class(
        Numbers(3),
        batch_size=3,
        collate_fn=as_it_is,
        num_workers=1,
        multiprocessing_context=start_method,
    )
    assert lists(loader) == [[0, 1, 2]]
