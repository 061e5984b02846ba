"""Iterable datasets: whose turn it is, what is left over, and the length that they claim."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from torch.utils.data import ChainDataset, IterableDataset, get_worker_info
from torch.utils.data.datapipes.iter import IterableWrapper

from tests.conformance.roles import SizedStream, Stream, Uneven, end, flat, is_torchs, lists


def test_workers_take_turns_from_the_first_in_every_epoch(
    loader_class: Any, start_method: str
) -> None:
    loader = loader_class(
        Stream(9), batch_size=2, num_workers=2, multiprocessing_context=start_method
    )
    epoch = [[0, 2], [1, 3], [4, 6], [5, 7], [8]]
    assert [lists(loader) for _ in range(2 if start_method == "fork" else 1)] == [epoch] * (
        2 if start_method == "fork" else 1
    )


def test_persistent_workers_begin_again_with_the_first(loader_class: Any) -> None:
    loader = loader_class(Stream(6), batch_size=2, num_workers=2, persistent_workers=True)
    epoch = [[0, 2], [1, 3], [4], [5]]
    assert [lists(loader) for _ in range(3)] == [epoch] * 3


def test_without_workers_there_is_one_stream(loader_class: Any) -> None:
    assert lists(loader_class(Stream(5), batch_size=2)) == [[0, 1], [2, 3], [4]]
    assert lists(loader_class(Stream(5), batch_size=2, drop_last=True)) == [[0, 1], [2, 3]]


@pytest.mark.parametrize(
    ("lengths", "drop_last", "batches"),
    [
        ([3, 2], False, [[0, 1], [100, 101], [2]]),
        ([3, 2], True, [[0, 1], [100, 101]]),
        ([1, 4], False, [[0], [100, 101], [102, 103]]),
        ([1, 4], True, [[100, 101], [102, 103]]),
        ([0, 3], False, [[100, 101], [102]]),
        ([5, 0], False, [[0, 1], [2, 3], [4]]),
        ([0, 0], False, []),
        ([1, 1], True, []),
    ],
)
def test_each_worker_has_an_incomplete_batch_of_its_own(
    loader_class: Any, lengths: list[int], drop_last: bool, batches: list[list[int]]
) -> None:
    loader = loader_class(Uneven(lengths), batch_size=2, drop_last=drop_last, num_workers=2)
    assert [lists(loader) for _ in range(2)] == [batches, batches]


def test_a_dataset_that_does_not_split_itself_is_read_by_every_worker(loader_class: Any) -> None:
    class Whole(IterableDataset[int]):
        def __iter__(self) -> Iterator[int]:
            return iter(range(3))

    loader = loader_class(Whole(), batch_size=2, num_workers=2)
    assert lists(loader) == [[0, 1], [0, 1], [2], [2]]


def test_without_a_batch_size_samples_come_in_turns(loader_class: Any, workers: int) -> None:
    assert list(loader_class(Stream(5), batch_size=None, num_workers=workers)) == [0, 1, 2, 3, 4]


def test_chained_datasets_follow_each_other_in_each_worker(loader_class: Any, workers: int) -> None:
    chained = ChainDataset([Stream(4), Stream(3)])
    loader = loader_class(chained, batch_size=2, num_workers=workers)
    both = [[0, 2], [1, 3], [0, 2], [1]]
    assert lists(loader) == (both if workers else [[0, 1], [2, 3], [0, 1], [2]])
    assert flat(loader_class(Stream(2) + Stream(1), num_workers=0)) == [0, 1, 0]


def test_a_generator_function_is_begun_anew_for_each_epoch(loader_class: Any, workers: int) -> None:
    class Generated(IterableDataset[int]):
        def __iter__(self) -> Iterator[int]:
            info = get_worker_info()
            yield 10 * (info.id if info else 0)

    loader = loader_class(Generated(), num_workers=workers, persistent_workers=workers > 0)
    expected = [0, 10] if workers else [0]
    assert [flat(loader) for _ in range(3)] == [expected] * 3


class Broken(IterableDataset[int]):
    """Raises for one sample, and can go on behind it."""

    def __iter__(self) -> Iterator[int]:
        self.number = -1
        return self

    def __next__(self) -> int:
        self.number += 1
        if self.number == 2:
            raise LookupError("two is missing")
        if self.number == 6:
            raise StopIteration
        return self.number


def test_an_error_of_a_stream_is_raised_in_the_place_of_its_batch(
    loader_class: Any, workers: int
) -> None:
    batches = iter(loader_class(Broken(), batch_size=2, num_workers=min(workers, 1)))
    assert next(batches).tolist() == [0, 1]
    with pytest.raises(LookupError, match="two is missing"):
        next(batches)
    assert lists(batches) == [[3, 4], [5]]
    end(batches)


def told_by(loader: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in loader:
            pass
    return [str(each.message) for each in caught]


@pytest.mark.parametrize("batch_size", [1, None])
def test_a_stream_that_yields_more_than_it_claimed_is_warned_about(
    loader_class: Any, workers: int, batch_size: int | None
) -> None:
    loader = loader_class(SizedStream(5, claimed=3), batch_size=batch_size, num_workers=workers)
    assert told_by(loader) == []
    assert len(loader) == 3
    first, *more = told_by(loader)
    assert first.startswith("Length of IterableDataset ")
    assert " was reported to be 3" in first
    assert "but 4 samples have been fetched" in first
    # torch says it again with each sample, which the default filter shows once.
    assert len(more) == is_torchs(loader_class)


def test_in_batches_samples_are_counted_for_the_claim(loader_class: Any, workers: int) -> None:
    """torch compares the number of batches with the claimed number of samples.

    So with a batch size it says nothing until there are as many batches; ours says so at once.
    """
    loader = loader_class(SizedStream(17, claimed=5), batch_size=4, num_workers=workers)
    assert len(loader) == 2
    assert len(told_by(loader)) == (0 if is_torchs(loader_class) else 1)


def test_a_stream_that_keeps_to_its_claim_is_not_warned_about(
    loader_class: Any, workers: int
) -> None:
    loader = loader_class(SizedStream(5, claimed=5), batch_size=2, num_workers=workers)
    assert len(loader) == 3
    assert told_by(loader) == []


def test_a_length_is_only_an_estimate_of_the_batches(loader_class: Any) -> None:
    loader = loader_class(SizedStream(10, claimed=10), batch_size=4, num_workers=2)
    assert len(loader) == 3
    assert len(list(loader)) == 4
    loader = loader_class(SizedStream(10, claimed=10), batch_size=4, drop_last=True)
    assert len(loader) == 2


def test_a_data_pipe_is_read_by_one_process(loader_class: Any) -> None:
    assert lists(loader_class(IterableWrapper([3, -4, 5]).map(abs), batch_size=2)) == [[3, 4], [5]]


def test_only_torchs_loader_divides_a_data_pipe_among_workers(loader_class: Any) -> None:
    """Ours refuses it rather than have every worker yield all of it."""
    pipe = IterableWrapper(range(5)).sharding_filter()
    if is_torchs(loader_class):
        assert sorted(flat(loader_class(pipe, batch_size=2, num_workers=2))) == [0, 1, 2, 3, 4]
    else:
        with pytest.raises(ValueError, match="DataPipe"):
            loader_class(pipe, batch_size=2, num_workers=2)
