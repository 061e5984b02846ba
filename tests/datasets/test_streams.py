from __future__ import annotations

import pickle
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from penstock.datasets import DescribesCurrent, ImageDataset, ImageStream, ResizeCrop
from penstock.errors import OptionError
from tests.datasets.roles import as_rank, as_worker

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"


class Blank:
    """Stands for a picture that need not be read."""


@pytest.fixture
def unread(monkeypatch):
    """Make streams hand over their transform instead of pictures."""
    monkeypatch.setattr(
        "penstock.datasets.streams.load", lambda path, mode, transform, decoder: transform or Blank
    )


def indices(stream):
    return [index for _, index in stream]


def names(count):
    return [f"{k}.jpg" for k in range(count)]


FIXTURE_IS_FINE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@FIXTURE_IS_FINE
@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 9))
def test_every_image_is_yielded_exactly_once_and_evenly(unread, length, shards, workers):
    seen: Counter[int] = Counter()
    sizes, total = [], 0
    for shard in range(shards):
        stream = ImageStream(names(length), num_shards=shards, shard=shard)
        total += len(stream)
        for worker in range(workers):
            with as_worker(worker, workers):
                found = indices(stream)
            seen.update(found)
            sizes.append(len(found))
    assert seen == Counter(range(length))
    assert total == length
    assert max(sizes) - min(sizes) <= 1


@FIXTURE_IS_FINE
@given(st.integers(1, 30), st.integers(1, 4), st.integers(1, 4))
def test_ranks_split_like_shards(unread, length, ranks, workers):
    for rank in range(ranks):
        by_number = ImageStream(names(length), num_shards=ranks, shard=rank)
        with as_rank(rank, ranks):
            by_rank = ImageStream(names(length))
            assert len(by_rank) == len(by_number)
            for worker in range(workers):
                with as_worker(worker, workers):
                    assert indices(by_rank) == indices(by_number)


@pytest.mark.parametrize("workers", [0, 1, 2, 3, 7])
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_the_order_of_unbatched_images_does_not_depend_on_the_number_of_workers(workers):
    stream = ImageStream(good_photos(), ResizeCrop(4), num_shards=10, shard=3)
    method = "fork" if workers else None
    loader = DataLoader(
        stream, batch_size=None, num_workers=workers, multiprocessing_context=method
    )
    assert len(loader) == 5
    assert [int(index) for _, index in loader] == [3, 13, 23, 33, 43]
    del loader


def test_torchs_loader_sees_each_of_the_fifty_photographs_once(start_method):
    stream = ImageStream(good_photos(), ResizeCrop(16))
    loader = DataLoader(stream, batch_size=4, num_workers=2, multiprocessing_context=start_method)
    images, found = zip(*loader, strict=True)
    assert sorted(torch.cat(found).tolist()) == list(range(50))
    assert torch.cat(images).shape == (50, 3, 16, 16)
    del loader


def good_photos():
    broken = {"17_truncated.jpg", "34_not_a_picture.jpg"}
    return sorted(path for path in PHOTOS.glob("*.jpg") if path.name not in broken)


def test_broken_photographs_are_named_and_the_others_follow():
    stream = ImageStream(PHOTOS, ResizeCrop(8))
    iterator = iter(stream)
    assert isinstance(iterator, DescribesCurrent)
    found, failed = [], []
    while True:
        try:
            found.append(next(iterator)[1])
            assert iterator.describe() == stream.paths[found[-1]]
        except StopIteration:
            break
        except OSError as exc:
            failed.append((Path(iterator.describe()).name, iterator.describe() in str(exc)))
    assert failed == [("17_truncated.jpg", True), ("34_not_a_picture.jpg", True)]
    assert found == [k for k in range(52) if k not in (17, 34)]


def test_a_watcher_may_ask_for_the_name_at_the_end():
    stream = ImageStream(["a.jpg"])
    assert stream.describe_sample(range(1), 1) == "the end of range(0, 1)"


def test_indices_are_those_of_the_dataset_over_the_same_folder(draw, tmp_path):
    for name in ("p/b/1.jpg", "p/a-b/1.jpg", "p/a/x/2.jpg", "p/a/1.jpg"):
        draw(name)
    stream, dataset = ImageStream(tmp_path / "p"), ImageDataset(tmp_path / "p")
    assert list(stream.paths) == list(dataset.paths)
    for image, index in stream:
        assert torch.equal(image, dataset[index][0])


def test_a_mixed_folder_is_read_as_a_whole(draw, tmp_path):
    draw("p/a.jpg")
    draw("p/sub/b.jpg")
    assert indices(ImageStream(tmp_path / "p")) == [0, 1]


class Shard:
    """A transform that says for which shard it was made; does not serialise."""

    def __init__(self, number):
        self.number = number
        self.lock = threading.Lock()

    def __call__(self, image):
        return self.number


@pytest.mark.parametrize("workers", [0, 2])
def test_each_shard_has_its_own_transform_whoever_reads_it(workers):
    for shard in range(3):
        stream = ImageStream(good_photos(), None, 3, shard, transform_for=Shard)
        method = "fork" if workers else None
        loader = DataLoader(
            stream, batch_size=None, num_workers=workers, multiprocessing_context=method
        )
        assert {int(number) for number, _ in loader} == {shard}
        del loader


def test_with_num_shards_alone_all_shards_are_read_each_with_its_transform():
    stream = ImageStream(good_photos(), num_shards=4, transform_for=Shard)
    assert len(stream) == 50
    assert list(stream) == [(index % 4, index) for index in range(50)]
    with as_rank(1, 3), as_worker(1, 2):
        assert list(stream) == [(index % 4, index) for index in range(4, 50, 6)]


def test_without_num_shards_the_ranks_are_the_shards():
    stream = ImageStream(good_photos(), transform_for=Shard)
    assert {number for number, _ in stream} == {0}
    with as_rank(1, 3):
        assert {number for number, _ in stream} == {1}


def test_a_transform_is_made_once_for_each_shard_even_across_bad_images():
    calls = []

    def transform_for(shard):
        calls.append(shard)
        return ResizeCrop(4)

    stream = ImageStream(PHOTOS, num_shards=2, transform_for=transform_for)
    iterator = iter(stream)
    for _ in range(52):
        try:
            next(iterator)
        except OSError:
            continue
    assert calls == [0, 1]


def test_a_shard_without_a_transform_gives_tensors():
    stream = ImageStream(good_photos()[:2], num_shards=2, transform_for=lambda shard: None)
    assert [image.dtype for image, _ in stream] == [torch.uint8] * 2


def test_what_was_made_for_shards_stays_behind_when_the_stream_travels():
    stream = ImageStream(good_photos()[:2], num_shards=2, transform_for=Shard)
    list(stream)
    assert list(pickle.loads(pickle.dumps(stream))) == [(0, 0), (1, 1)]


def test_something_that_is_no_transform_is_named_with_its_shard():
    wrong: Any = lambda shard: 7  # noqa: E731
    stream = ImageStream(good_photos()[:1], transform_for=wrong)
    with pytest.raises(OptionError, match=r"transform_for\(0\)=7 cannot be called"):
        next(iter(stream))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": []}, "empty list"),
        ({"mode": "HSV"}, "mode='HSV'"),
        ({"transform": 1}, "transform=1 cannot be called"),
        ({"transform_for": 1}, "transform_for=1 cannot be called"),
        ({"transform": id, "transform_for": id}, "exclude each other"),
        ({"num_shards": 2}, "num_shards=2 without shard="),
        ({"shard": 2}, "says nothing without num_shards"),
        ({"shard": 2, "transform_for": id}, "says nothing without num_shards"),
        ({"num_shards": 2, "shard": 2}, "shard=2 must be from 0 to 1"),
        ({"num_shards": 0, "transform_for": id}, "num_shards=0 must be at least 1"),
    ],
)
def test_bad_arguments_are_refused_when_the_stream_is_made(options, message):
    with pytest.raises(OptionError, match=message):
        ImageStream(**{"source": ["a.jpg"], **options})


def test_a_million_paths_travel_in_a_small_pickle():
    stream = ImageStream(f"/data/{k:07d}.jpg" for k in range(1_000_000))
    assert len(pickle.dumps(stream, 5)) < 20_000_000
