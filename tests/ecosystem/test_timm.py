"""Loaders as timm's `create_loader` makes them, with Penstock's class in the place of torch's.

timm needs torchvision. Where both can be imported its own function is called; what it does about
a loader is done here beside that, so that it is tested without them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import Dataset, Sampler, default_collate

import penstock

SIZE = 30


class Pictures(Dataset[Any]):
    """Small made-up pictures: pairs of an array of bytes and a class."""

    def __init__(self, *, augmented: bool = False, bad: tuple[int, ...] = ()) -> None:
        self.transform: Any = None
        self.augmented = augmented
        self.bad = bad

    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, index: int) -> tuple[Any, int]:
        if index in self.bad:
            raise OSError("truncated")
        picture = np.full((3, 8, 8), index, np.uint8)
        if self.augmented:
            picture[:, 0, 0] = [random.randrange(256), np.random.randint(256), torch.randint(9, ())]
        return picture, index


class RepeatedAugmentation(Sampler[int]):
    """Every sample several times, each time for another rank; told of epochs."""

    def __init__(self, size: int, *, repeats: int, ranks: int, rank: int) -> None:
        self.size = size
        self.repeats = repeats
        self.ranks = ranks
        self.rank = rank
        self.epoch = 0
        self.selected = -(-size // ranks)

    def __len__(self) -> int:
        return self.selected

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.epoch)
        order = torch.randperm(self.size, generator=generator).repeat_interleave(self.repeats)
        return iter(order.tolist()[self.rank :: self.ranks][: self.selected])

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


def fast_collate(samples: list[tuple[Any, int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Bytes to bytes, added up into zeros one by one."""
    labels = torch.tensor([label for _, label in samples], dtype=torch.int64)
    pictures = torch.zeros((len(samples), *samples[0][0].shape), dtype=torch.uint8)
    for number, (picture, _) in enumerate(samples):
        pictures[number] += torch.from_numpy(picture)
    return pictures, labels


def seed_worker(number: int, seeding: str = "all") -> None:
    info = torch.utils.data.get_worker_info()
    assert info is not None
    assert info.id == number
    if seeding == "all":
        np.random.seed(info.seed % (2**32 - 1))


def create_loader(loader_class: Any, dataset: Any, **options: Any) -> Any:
    """What timm's function of that name hands to torch's loader, with `use_prefetcher=False`."""
    training = options.pop("is_training", False)
    sampler = options.pop("sampler", None)
    return loader_class(
        dataset,
        batch_size=4,
        shuffle=sampler is None and training,
        num_workers=2,
        sampler=sampler,
        collate_fn=options.pop("collate_fn", default_collate),
        pin_memory=False,
        drop_last=training,
        worker_init_fn=partial(seed_worker, seeding=options.pop("worker_seeding", "all")),
        persistent_workers=True,
        **options,
    )


def contents(loader: Any) -> list[Any]:
    return [(pictures.clone(), labels.clone()) for pictures, labels in loader]


def assert_same_epochs(make: Any, epochs: int = 3) -> None:
    told = []
    for loader_class in (TorchDataLoader, penstock.DataLoader):
        torch.manual_seed(3)
        loader = make(loader_class)
        each = []
        for epoch in range(epochs):
            if hasattr(loader.sampler, "set_epoch"):
                loader.sampler.set_epoch(epoch)
            each.append(contents(loader))
        told.append(each)
        assert len(loader) == len(each[0])
    torch.testing.assert_close(told[1], told[0], rtol=0, atol=0)
    assert str(told[1][0]) != str(told[1][1])


def test_training_batches_are_those_of_torchs_loader() -> None:
    assert_same_epochs(
        lambda loader_class: create_loader(
            loader_class, Pictures(), is_training=True, collate_fn=fast_collate
        )
    )


def test_workers_that_seed_themselves_draw_other_numbers_in_each_epoch() -> None:
    loader = create_loader(penstock.DataLoader, Pictures(augmented=True), collate_fn=fast_collate)
    corners = [torch.cat([pictures[:, :, 0, 0] for pictures, _ in loader]) for _ in range(2)]
    assert not torch.equal(corners[0], corners[1])
    # NumPy's generator, which timm's function seeds, is another in each of the two workers.
    assert len({int(corner[1]) for corner in corners[0]}) > SIZE // 2


@pytest.mark.parametrize("rank", [0, 1])
def test_repeated_augmentation_gives_each_rank_what_it_gives_with_torch(rank: int) -> None:
    assert_same_epochs(
        lambda loader_class: create_loader(
            loader_class,
            Pictures(),
            is_training=True,
            sampler=RepeatedAugmentation(SIZE, repeats=3, ranks=2, rank=rank),
        )
    )


def test_validation_batches_come_in_order_with_the_short_one_last() -> None:
    loader = create_loader(penstock.DataLoader, Pictures(), collate_fn=fast_collate)
    batches = contents(loader)
    assert [number for _, labels in batches for number in labels.tolist()] == [*range(SIZE)]
    assert [len(labels) for _, labels in batches] == [4] * 7 + [2]
    assert all(torch.equal(pictures[:, 0, 1, 1], labels.byte()) for pictures, labels in batches)


def test_a_truncated_picture_is_skipped_in_training() -> None:
    loader = create_loader(
        penstock.DataLoader,
        Pictures(bad=(5,)),
        is_training=True,
        collate_fn=fast_collate,
        on_error="skip",
        max_skipped=1,
    )
    labels = [number for _, batch in contents(loader) for number in batch.tolist()]
    assert len(labels) == len(set(labels)) == 28
    assert [error.index for error in loader.skipped] == [5]


@pytest.mark.parametrize("training", [True, False])
def test_timms_own_function_gives_the_same_batches(
    training: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A torchvision without its compiled part raises something else at its import.
    data = pytest.importorskip(
        "timm.data", reason="needs timm and a torchvision for this torch", exc_type=Exception
    )

    def make(loader_class: Any) -> Any:
        monkeypatch.setattr(torch.utils.data, "DataLoader", loader_class)
        return data.create_loader(
            PilPictures(),
            input_size=(3, 8, 8),
            batch_size=4,
            is_training=training,
            num_workers=2,
            use_prefetcher=False,
            device=torch.device("cpu"),
        )

    told = []
    for loader_class in (TorchDataLoader, penstock.DataLoader):
        torch.manual_seed(3)
        loader = make(loader_class)
        assert type(loader) is loader_class
        told.append([contents(loader), contents(loader)])
    torch.testing.assert_close(told[1], told[0], rtol=0, atol=0)
    assert len(told[1][0]) == (7 if training else 8)


class PilPictures(Pictures):
    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = pytest.importorskip("PIL.Image")
        picture = image.fromarray(np.full((8, 8, 3), index, np.uint8))
        return self.transform(picture), index
