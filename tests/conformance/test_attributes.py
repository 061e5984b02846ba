"""What a loader knows of itself, and what becomes of a loader that is changed or copied."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
    default_collate,
    default_convert,
)
from torch.utils.data import DataLoader as TorchDataLoader

import penstock
from tests.conformance.roles import Calls, Numbers, Stream, flat, is_torchs, lists


def test_attributes_are_the_arguments(loader_class: Any) -> None:
    dataset, generator = Numbers(), torch.Generator()
    loader = loader_class(
        dataset,
        3,
        False,
        num_workers=2,
        drop_last=True,
        timeout=5,
        worker_init_fn=print,
        generator=generator,
        prefetch_factor=4,
        persistent_workers=True,
        in_order=False,
    )
    assert loader.dataset is dataset
    assert loader.generator is generator
    assert loader.worker_init_fn is print
    assert loader.collate_fn is default_collate
    assert (loader.batch_size, loader.num_workers, loader.prefetch_factor) == (3, 2, 4)
    assert (loader.drop_last, loader.persistent_workers, loader.in_order) == (True, True, False)
    assert (loader.timeout, loader.pin_memory, loader.pin_memory_device) == (5, False, "")
    assert type(loader.sampler) is SequentialSampler
    assert type(loader.batch_sampler) is BatchSampler


def test_attributes_have_torchs_defaults(loader_class: Any) -> None:
    loader = loader_class(Numbers())
    assert (loader.batch_size, loader.num_workers, loader.prefetch_factor) == (1, 0, None)
    assert (loader.drop_last, loader.persistent_workers, loader.in_order) == (False, False, True)
    assert (loader.timeout, loader.generator, loader.worker_init_fn) == (0, None, None)
    assert loader.multiprocessing_context is None
    assert loader_class(Numbers(), num_workers=1).prefetch_factor == 2
    assert type(loader_class(Numbers(), shuffle=True).sampler) is RandomSampler
    assert loader_class(Numbers(), batch_size=None).batch_sampler is None
    assert loader_class(Numbers(), batch_size=None).collate_fn is default_convert
    batches = [[1]]
    loader = loader_class(Numbers(), batch_sampler=batches)
    assert loader.batch_sampler is batches
    assert loader.batch_size is None


def test_a_loader_is_one_of_torchs_and_a_type_with_a_parameter(loader_class: Any) -> None:
    assert isinstance(loader_class(Numbers()), TorchDataLoader)
    assert loader_class[int](Numbers(2)).batch_size == 1

    class Own(loader_class[int]):  # type: ignore[misc]
        pass

    assert flat(Own(Numbers(2))) == [0, 1]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_size", 3),
        ("batch_sampler", []),
        ("sampler", [1]),
        ("drop_last", True),
        ("dataset", []),
        ("persistent_workers", True),
    ],
)
def test_what_shapes_the_batches_cannot_be_set_afterwards(
    loader_class: Any, name: str, value: Any
) -> None:
    loader = loader_class(Numbers())
    with pytest.raises(ValueError, match=f"{name} attribute should not be set after"):
        setattr(loader, name, value)


def test_what_shapes_the_work_can_be_set_afterwards(loader_class: Any) -> None:
    loader = loader_class(Numbers(4), batch_size=2)
    loader.num_workers = 1
    loader.prefetch_factor = 1
    loader.collate_fn = sum
    loader.multiprocessing_context = "fork"
    assert loader.multiprocessing_context.get_start_method() == "fork"
    assert list(loader) == [1, 5]
    loader.num_workers = 0
    loader.prefetch_factor = None
    loader.multiprocessing_context = None
    loader.worker_init_fn = print
    assert list(loader) == [1, 5]


@pytest.mark.parametrize(
    ("arguments", "length"),
    [
        ({"batch_size": 5}, 3),
        ({"batch_size": 5, "drop_last": True}, 2),
        ({"batch_size": None}, 12),
        ({"batch_size": 5, "sampler": [1, 2, 3, 4, 5, 6]}, 2),
        ({"batch_sampler": [[1], [2, 3]]}, 2),
        ({}, 12),
    ],
    ids=str,
)
def test_a_length_is_the_number_of_batches(
    loader_class: Any, workers: int, arguments: dict[str, Any], length: int
) -> None:
    loader = loader_class(Numbers(), num_workers=workers, **arguments)
    assert len(loader) == length == len(list(loader))


def test_without_a_length_there_is_none(loader_class: Any) -> None:
    with pytest.raises(TypeError, match="has no len"):
        len(loader_class(Stream()))
    with pytest.raises(TypeError, match="has no len"):
        len(loader_class(Numbers(), sampler=(i for i in range(3))))


def by_pickle(loader: Any) -> Any:
    return pickle.loads(pickle.dumps(loader))


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, by_pickle])
@pytest.mark.parametrize("used_before", [False, True])
def test_a_copy_of_a_loader_loads_the_same(
    loader_class: Any, workers: int, copied: Callable[[Any], Any], used_before: bool
) -> None:
    loader = loader_class(TensorDataset(torch.arange(5)), batch_size=2, num_workers=workers)
    if used_before:
        list(loader)
    twin = copied(loader)
    assert type(twin) is loader_class
    assert [batch[0].tolist() for batch in twin] == [[0, 1], [2, 3], [4]]
    assert [batch[0].tolist() for batch in loader] == [[0, 1], [2, 3], [4]]


def test_a_loader_with_live_persistent_workers_is_copied_without_them(loader_class: Any) -> None:
    """torch's, once it was iterated, cannot be pickled: it holds its iterator."""
    loader = loader_class(Numbers(4), batch_size=2, num_workers=1, persistent_workers=True)
    assert flat(loader) == [0, 1, 2, 3]
    if is_torchs(loader_class):
        with pytest.raises(NotImplementedError):
            pickle.dumps(loader)
    else:
        assert flat(by_pickle(loader)) == [0, 1, 2, 3]


class Multiplies(Numbers):
    factor = 1

    def __getitem__(self, index: int) -> int:
        return index * self.factor


@pytest.mark.parametrize(
    ("count", "persistent", "second"),
    [(0, False, [0, 10, 20]), (1, False, [0, 10, 20]), (1, True, [0, 1, 2])],
    ids=["inline", "workers", "persistent-workers"],
)
def test_a_change_to_the_dataset_reaches_workers_that_start_after_it(
    loader_class: Any, count: int, persistent: bool, second: list[int]
) -> None:
    dataset = Multiplies(3)
    loader = loader_class(dataset, num_workers=count, persistent_workers=persistent)
    assert flat(loader) == [0, 1, 2]
    dataset.factor = 10
    assert flat(loader) == second


def test_a_collate_function_set_later_does_not_reach_persistent_workers(loader_class: Any) -> None:
    loader = loader_class(Numbers(2), batch_size=2, num_workers=1, persistent_workers=True)
    assert lists(loader) == [[0, 1]]
    loader.collate_fn = sum
    assert lists(loader) == [[0, 1]]


# Subclasses as programs write them.


class Endless:
    """A batch sampler over and over, so that the workers of one iterator last for ever."""

    def __init__(self, batch_sampler: Any) -> None:
        self.batch_sampler = batch_sampler

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield from self.batch_sampler


def make_repeating(base: Any) -> Any:
    class Repeating(base):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            object.__setattr__(self, "batch_sampler", Endless(self.batch_sampler))
            self.iterator = super().__iter__()

        def __len__(self) -> int:
            return len(self.batch_sampler.batch_sampler)

        def __iter__(self) -> Iterator[Any]:
            for _ in range(len(self)):
                yield next(self.iterator)

    return Repeating


def test_a_subclass_may_keep_one_iterator_for_all_epochs(loader_class: Any, workers: int) -> None:
    loader = make_repeating(loader_class)(Numbers(5), batch_size=2, num_workers=workers)
    assert [lists(loader) for _ in range(3)] == [[[0, 1], [2, 3], [4]]] * 3


def test_a_subclass_may_move_or_change_the_batches(loader_class: Any, workers: int) -> None:
    class Doubling(loader_class):  # type: ignore[misc]
        def __iter__(self) -> Iterator[Any]:
            for batch in super().__iter__():
                yield batch * 2

    loader = Doubling(Numbers(3), batch_size=2, num_workers=workers)
    assert [lists(loader) for _ in range(2)] == [[[0, 2], [4]]] * 2


def test_a_new_loader_can_be_made_of_the_attributes_of_another(loader_class: Any) -> None:
    loader = loader_class(Numbers(5), batch_size=2, shuffle=True, drop_last=True)
    names = ("batch_size", "drop_last", "collate_fn", "num_workers", "pin_memory", "timeout",
             "worker_init_fn", "generator", "prefetch_factor", "persistent_workers", "in_order",
             "multiprocessing_context", "pin_memory_device")  # fmt: skip
    options = {name: getattr(loader, name) for name in names}
    again = loader_class(loader.dataset, sampler=SequentialSampler(loader.dataset), **options)
    assert lists(again) == [[0, 1], [2, 3]]


def test_only_a_loader_of_ours_has_what_is_ours(loader_class: Any) -> None:
    """`skipped`, `statistics()`, `set_epoch()` and a state are what Penstock adds."""
    added = ["skipped", "statistics", "set_epoch", "state_dict", "load_state_dict"]
    loader = loader_class(Numbers())
    assert [hasattr(loader, name) for name in added] == [not is_torchs(loader_class)] * len(added)


def test_an_iterable_dataset_has_a_sampler_that_means_nothing(loader_class: Any) -> None:
    loader = loader_class(Stream(), batch_size=2)
    assert next(iter(loader.sampler)) is None
    assert isinstance(loader.dataset, IterableDataset)


def test_a_dataset_may_iterate_a_loader_of_its_own(loader_class: Any) -> None:
    inner = loader_class(Numbers(3), batch_size=3)
    outer = Calls(lambda index: [index, *flat(inner)], 2)
    loader = penstock.DataLoader(outer, batch_size=None, num_workers=1)
    assert list(loader) == [[0, 0, 1, 2], [1, 0, 1, 2]]
