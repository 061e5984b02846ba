"""Iterable datasets whose workers are killed: the stream is run again to where it was."""

import pytest
import torch

from penstock.errors import DatasetError
from tests.faults.deliveries import ids, ids_of, loader_of
from tests.faults.roles import Once, Raise, ShorterEachTime, ShuffledAnew, Stream, be_killed

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("no_leaks")]

LENGTH = 40


def test_row_35_a_stream_whose_worker_is_killed(start_method, tmp_path):
    expected = [ids_of(batch) for batch in loader_of(Stream(LENGTH), start_method)]
    assert sorted(index for batch in expected for index in batch) == list(range(LENGTH))
    # In either worker: before anything of it has arrived, midway, and at the last sample.
    kills = {index: Once(tmp_path, be_killed, index) for index in (0, 21, 39)}
    loader = loader_of(Stream(LENGTH, kills), start_method)
    assert [ids_of(batch) for batch in loader] == expected
    assert all(kill.pid for kill in kills.values())
    assert loader.statistics().restarts == len(kills)


def test_row_35_a_stream_that_is_shorter_when_it_is_run_again(start_method, tmp_path):
    once = Once(tmp_path, be_killed)
    dataset = ShorterEachTime(tmp_path / "read", [LENGTH, 6], {21: once})
    loader = loader_of(dataset, start_method, num_workers=1)
    batches = iter(loader)
    arrived = ids(next(batches) for _ in range(5))
    with pytest.raises(DatasetError, match="not the same stream each time"):
        next(batches)
    assert once.pid
    assert arrived == list(range(20))


def test_row_35_a_stream_that_is_shuffled_anew_when_it_is_run_again(start_method, tmp_path):
    """Samples would be lost and others delivered twice, and nobody could tell by their number."""
    once = Once(tmp_path, be_killed)
    loader = loader_of(ShuffledAnew(LENGTH, {21: once}), start_method, num_workers=1)
    batches = iter(loader)
    arrived = ids(next(batches) for _ in range(5))
    with pytest.raises(DatasetError, match=r"another sample 19 .* not the same stream each time"):
        next(batches)
    assert once.pid
    assert len(set(arrived)) == 20


def double_in_place(samples):
    return torch.stack([sample.mul_(2) for sample in samples])


def test_row_35_samples_that_collation_changes_are_known_again(start_method, tmp_path):
    options = {"num_workers": 1, "collate_fn": double_in_place}
    once = Once(tmp_path, be_killed)
    loader = loader_of(Stream(LENGTH, {21: once}), start_method, **options)
    assert ids(loader) == list(range(0, 2 * LENGTH, 2))
    assert once.pid
    assert loader.statistics().restarts == 1


def test_row_32_a_generator_that_raises_midway(start_method):
    dataset = Stream(LENGTH, {20: Raise(LookupError("the archive ends here"))})
    loader = loader_of(dataset, start_method, num_workers=1, persistent_workers=True)
    batches = iter(loader)
    arrived = ids(next(batches) for _ in range(5))
    with pytest.raises(LookupError, match="the archive ends here") as caught:
        next(batches)
    assert "the rest of its part of the stream is lost" in str(caught.value)
    assert list(batches) == []
    assert arrived == list(range(20))
    # The pool lives, and the next epoch is as far as this one.
    again = iter(loader)
    assert ids(next(again) for _ in range(5)) == list(range(20))
    assert loader.statistics().restarts == 0
