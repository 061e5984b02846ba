"""Every kind of dataset in torch.utils.data, and those that programs write."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import (
    ConcatDataset,
    Dataset,
    StackDataset,
    Subset,
    TensorDataset,
    random_split,
)
from torch.utils.data.datapipes.map import SequenceWrapper

from tests.conformance.roles import Calls, Given, Numbers, as_it_is, flat, lists, same


def test_a_tensor_dataset_gives_lists_of_tensors(loader_class: Any, workers: int) -> None:
    dataset = TensorDataset(torch.arange(5), torch.arange(10.0).view(5, 2))
    batches = list(loader_class(dataset, batch_size=3, num_workers=workers))
    assert same(batches, [
        [torch.tensor([0, 1, 2]), torch.tensor([[0.0, 1], [2, 3], [4, 5]])],
        [torch.tensor([3, 4]), torch.tensor([[6.0, 7], [8, 9]])],
    ])  # fmt: skip


def test_a_stack_of_datasets_gives_tuples_or_dicts(loader_class: Any, workers: int) -> None:
    pairs = StackDataset(Numbers(4), Calls(str, 4))
    assert same(
        list(loader_class(pairs, batch_size=2, num_workers=workers)),
        [[torch.tensor([0, 1]), ("0", "1")], [torch.tensor([2, 3]), ("2", "3")]],
    )
    named = StackDataset(number=Numbers(2), name=Calls(str, 2))
    assert same(
        list(loader_class(named, batch_size=2, num_workers=workers)),
        [{"number": torch.tensor([0, 1]), "name": ["0", "1"]}],
    )


def test_concatenated_datasets_follow_each_other(loader_class: Any, workers: int) -> None:
    dataset = ConcatDataset([Numbers(3), Calls(lambda index: index + 10, 2)])
    forwards = loader_class(dataset, batch_size=2, num_workers=workers)
    assert lists(forwards) == [[0, 1], [2, 10], [11]]
    backwards = loader_class(dataset, batch_size=2, sampler=[-1, -5], num_workers=workers)
    assert lists(backwards) == [[11, 0]]


def test_a_subset_is_addressed_by_its_own_numbers(loader_class: Any, workers: int) -> None:
    dataset = Subset(Subset(Numbers(), [9, 8, 7, 6]), [2, 0])
    assert lists(loader_class(dataset, batch_size=2, num_workers=workers)) == [[7, 9]]


def test_a_random_split_has_every_sample_in_one_part(loader_class: Any, workers: int) -> None:
    parts = random_split(Numbers(), [0.5, 0.5], generator=torch.Generator().manual_seed(1))
    halves = [flat(loader_class(part, batch_size=4, num_workers=workers)) for part in parts]
    assert [len(half) for half in halves] == [6, 6]
    assert sorted(halves[0] + halves[1]) == list(range(12))
    assert halves == [list(part.indices) for part in parts]


@pytest.mark.parametrize(
    ("dataset", "options", "expected"),
    [
        ([10, 11, 12], {}, [[10, 11], [12]]),
        (range(3), {}, [[0, 1], [2]]),
        ({"a": 1, "b": 2}, {"sampler": ["b", "a"]}, [[2, 1]]),
        ([10, 11, 12], {"sampler": [-1, 0]}, [[12, 10]]),
        ([10, 11, 12], {"sampler": torch.tensor([2, 0])}, [[12, 10]]),
        ([], {}, []),
        (torch.arange(3), {}, [[0, 1], [2]]),
    ],
    ids=["list", "range", "dict", "from-the-end", "tensor-of-indices", "empty", "tensor"],
)
def test_whatever_can_be_indexed_is_a_dataset(
    loader_class: Any, workers: int, dataset: Any, options: dict[str, Any], expected: Any
) -> None:
    assert lists(loader_class(dataset, batch_size=2, num_workers=workers, **options)) == expected


class NoLength(Dataset[int]):
    def __getitem__(self, index: int) -> int:
        return index


def test_without_a_length_a_sampler_says_what_there_is(loader_class: Any, workers: int) -> None:
    loader = loader_class(NoLength(), sampler=[3, 4], batch_size=2, num_workers=workers)
    assert lists(loader) == [[3, 4]]
    with pytest.raises(TypeError, match="has no len"):
        list(loader_class(NoLength(), num_workers=workers))


class Many(Numbers):
    """Knows how to fetch many samples at once."""

    def __getitems__(self, indices: list[int]) -> list[int]:
        assert type(indices) is list
        return [index * 10 + len(indices) for index in indices]


def test_getitems_is_asked_for_whole_batches(loader_class: Any, workers: int) -> None:
    loader = loader_class(Many(5), batch_size=3, num_workers=workers)
    assert lists(loader) == [[3, 13, 23], [32, 42]]
    assert lists(loader_class(Subset(Many(5), [4, 1]), batch_size=2, num_workers=workers)) == [
        [42, 12]
    ]


def test_getitems_may_be_absent_by_being_none(loader_class: Any, workers: int) -> None:
    dataset = Many(3)
    dataset.__getitems__ = None  # type: ignore[method-assign,assignment]
    assert lists(loader_class(dataset, batch_size=3, num_workers=workers)) == [[0, 1, 2]]


def test_getitems_may_return_whatever_the_collate_function_takes(
    loader_class: Any, workers: int
) -> None:
    class Table(Numbers):
        def __getitems__(self, indices: list[int]) -> torch.Tensor:
            return torch.tensor(indices)

    loader = loader_class(Table(4), batch_size=2, collate_fn=as_it_is, num_workers=workers)
    assert same(list(loader), [torch.tensor([0, 1]), torch.tensor([2, 3])])


def test_getitems_is_not_asked_for_single_samples(loader_class: Any, workers: int) -> None:
    assert list(loader_class(Many(3), batch_size=None, num_workers=workers)) == [0, 1, 2]


def test_without_a_batch_size_samples_come_one_by_one_and_converted(
    loader_class: Any, workers: int
) -> None:
    samples = [np.arange(3), [np.float32(1.5), "text"], {"array": np.ones(2)}, None, 7]
    loader = loader_class(Given(samples), batch_size=None, num_workers=workers)
    assert len(loader) == 5
    arrived = list(loader)
    assert same(arrived[0], torch.arange(3))
    assert same(arrived[1], [torch.tensor(1.5), "text"])
    assert same(arrived[2], {"array": torch.ones(2, dtype=torch.float64)})
    assert arrived[3:] == [None, 7]


def test_without_a_batch_size_a_collate_function_gets_the_sample(
    loader_class: Any, workers: int
) -> None:
    loader = loader_class(
        Numbers(3), batch_size=None, collate_fn=lambda sample: [sample], num_workers=workers
    )
    assert list(loader) == [[0], [1], [2]]


@pytest.mark.parametrize(("drop_last", "sizes"), [(False, [5, 5, 2]), (True, [5, 5])])
def test_drop_last_leaves_the_incomplete_batch_out(
    loader_class: Any, workers: int, drop_last: bool, sizes: list[int]
) -> None:
    loader = loader_class(Numbers(), batch_size=5, drop_last=drop_last, num_workers=workers)
    assert len(loader) == len(sizes)
    assert [len(batch) for batch in loader] == sizes


def test_a_lock_or_a_lambda_in_the_dataset_does_not_matter_under_fork(loader_class: Any) -> None:
    dataset = Calls(lambda index: index + 1, 4)
    dataset.lock = threading.Lock()  # type: ignore[attr-defined]
    loader = loader_class(dataset, batch_size=2, num_workers=1, multiprocessing_context="fork")
    assert lists(loader) == [[1, 2], [3, 4]]


def test_a_data_pipe_over_indices_is_a_dataset(loader_class: Any, workers: int) -> None:
    pipe = SequenceWrapper([0, -2, 4, -6]).map(abs)
    loader = loader_class(pipe, batch_size=2, num_workers=workers)
    assert lists(loader) == [[0, 2], [4, 6]]
