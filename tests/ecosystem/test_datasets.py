"""Hugging Face's datasets in Penstock's loader, beside the same in torch's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader as TorchDataLoader

from penstock import DataLoader

datasets = pytest.importorskip("datasets", reason="needs the extra 'ecosystem'")

SIZE = 40


def make_table(**options: Any) -> Any:
    return datasets.Dataset.from_dict(
        {"id": [*range(SIZE)], "text": [f"sample {i}" for i in range(SIZE)]}, **options
    )


def add_square(sample: dict[str, Any]) -> dict[str, Any]:
    return {"square": sample["id"] ** 2}


def plain(batch: Any) -> Any:
    return {
        key: value.tolist() if isinstance(value, torch.Tensor) else value
        for key, value in batch.items()
    }


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_table_with_a_map_is_read_as_with_torchs_loader(shuffle: bool, start_method: str) -> None:
    table = make_table().map(add_square).with_format("torch", columns=["id", "square"])
    batches = []
    for loader_class in (TorchDataLoader, DataLoader):
        torch.manual_seed(1)
        loader = loader_class(
            table,
            batch_size=6,
            shuffle=shuffle,
            num_workers=2,
            multiprocessing_context=start_method,
        )
        batches.append([plain(batch) for batch in loader])
    assert batches[1] == batches[0]
    ids = [number for batch in batches[1] for number in batch["id"]]
    assert sorted(ids) == [*range(SIZE)]
    assert (ids == [*range(SIZE)]) is not shuffle
    assert [square for batch in batches[1] for square in batch["square"]] == [i**2 for i in ids]


def test_a_table_on_the_disk_with_a_transform_is_read_in_place(tmp_path: Path) -> None:
    make_table().save_to_disk(tmp_path)
    table = datasets.load_from_disk(tmp_path)
    table.set_transform(lambda batch: {"id": [torch.tensor(i) * 2 for i in batch["id"]]})
    loader = DataLoader(table, batch_size=6, num_workers=2, seed=1, shuffle=True)
    ids = [number for batch in loader for number in batch["id"].tolist()]
    assert sorted(ids) == [*range(0, 2 * SIZE, 2)]


def fail_at_seven(batch: dict[str, Any]) -> dict[str, Any]:
    if 7 in batch["id"]:
        raise ValueError("seven")
    return {"id": batch["id"]}


def test_a_sample_that_a_transform_refuses_is_skipped_alone() -> None:
    # The table is asked for whole batches, of which each would be lost for one sample of it.
    loader = DataLoader(
        make_table().with_transform(fail_at_seven),
        batch_size=6,
        num_workers=2,
        on_error="skip",
        max_skipped=1,
    )
    ids = [number for batch in loader for number in batch["id"].tolist()]
    assert sorted(ids) == [i for i in range(SIZE) if i != 7]
    assert [(error.index, str(error.cause)) for error in loader.skipped] == [(7, "seven")]


def make_stream(shards: int = 4) -> Any:
    return make_table().to_iterable_dataset(num_shards=shards).map(add_square).with_format("torch")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_of_shards_is_read_once_as_with_torchs_loader(workers: int) -> None:
    batches = []
    for loader_class in (TorchDataLoader, DataLoader):
        loader = loader_class(make_stream(), batch_size=6, num_workers=workers)
        batches.append([plain(batch) for batch in loader])
    assert batches[1] == batches[0]
    ids = [number for batch in batches[1] for number in batch["id"]]
    assert sorted(ids) == [*range(SIZE)]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_shuffled_stream_has_another_order_in_each_epoch_that_it_is_told(workers: int) -> None:
    orders = []
    for loader_class in (TorchDataLoader, DataLoader):
        stream = make_stream().shuffle(seed=5, buffer_size=10)
        loader = loader_class(stream, batch_size=6, num_workers=workers)
        epochs = []
        for epoch in range(3):
            stream.set_epoch(epoch)
            epochs.append([number for batch in loader for number in batch["id"].tolist()])
        orders.append(epochs)
    assert orders[1] == orders[0]
    assert orders[1][0] != orders[1][1]
    assert all(sorted(epoch) == [*range(SIZE)] for epoch in orders[1])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batches", [1, 4])
@pytest.mark.parametrize("every", [1, 3])
def test_a_stream_goes_on_from_the_state_that_it_tells(
    workers: int, batches: int, every: int
) -> None:
    def make() -> Any:
        return DataLoader(
            make_stream(), batch_size=6, num_workers=workers, snapshot_every_n_steps=every
        )

    loader = make()
    iterator = iter(loader)
    for _ in range(batches):
        next(iterator)
    state = loader.state_dict()
    expected = [plain(batch) for batch in iterator]
    again = make()
    again.load_state_dict(state)
    assert [plain(batch) for batch in again] == expected
