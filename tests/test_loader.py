"""The loader, as a training program meets it."""

import dataclasses
import logging
import os
import random
import signal
import time
import weakref
from typing import Any, NamedTuple

import numpy as np
import psutil
import pytest
import torch
from torch.utils.data import BatchSampler, Dataset, IterableDataset, get_worker_info
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data.datapipes.iter import IterableWrapper

import penstock
from penstock.errors import (
    DatasetError,
    IndexOutOfRangeError,
    OptionError,
    SerializationError,
)

pytestmark = pytest.mark.usefixtures("no_leaks")

WORKERS = 2


class Squares(Dataset[dict[str, Any]]):
    """Samples that show where they come from."""

    def __init__(self, length: int = 40, bad: tuple[int, ...] = ()) -> None:
        self.length = length
        self.bad = frozenset(bad)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index in self.bad:
            raise ValueError(f"{index} is bad")
        return {"index": index, "image": torch.full((3, 64, 64), index), "name": f"square {index}"}


class Dice(Dataset[tuple[float, float, float]]):
    """Samples that draw from all three generators."""

    def __len__(self) -> int:
        return 30

    def __getitem__(self, index: int) -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))


class Point(NamedTuple):
    x: torch.Tensor
    y: np.ndarray[Any, Any]


@dataclasses.dataclass
class Box:
    corner: np.ndarray[Any, Any]
    label: str


class Zoo(Dataset[Any]):
    """Samples of every structure that a collate function could meet."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Any:
        return {
            "tensor": torch.full((2, 3), index, dtype=torch.float16),
            "large": torch.full((3, 128, 128), index, dtype=torch.uint8),
            "array": np.full((2, 2), index, dtype=np.int16),
            "nested": [{"deep": (index, float(index), str(index))}],
            "point": Point(torch.tensor(index), np.arange(3) + index),
            "flag": index % 2 == 0,
            "bytes": bytes([index]),
        }


def batches_of(loader: Any) -> list[Any]:
    return list(loader)


def flat_indices(batches: list[Any]) -> list[int]:
    return [int(index) for batch in batches for index in batch["index"]]


def same(left: Any, right: Any) -> bool:
    """Whether two values are equal, in type, dtype, shape and content."""
    if type(left) is not type(right):
        return False
    if isinstance(left, torch.Tensor):
        return left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and np.array_equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if dataclasses.is_dataclass(left):
        return same(vars(left), vars(right))
    return bool(left == right)


def as_list(samples: list[Any]) -> list[Any]:
    return samples


def boxes(samples: list[Any]) -> list[Box]:
    return [Box(np.asfortranarray(sample["array"]), str(sample["flag"])) for sample in samples]


def test_it_is_one_of_torchs_loaders():
    assert isinstance(penstock.DataLoader(Squares()), TorchDataLoader)


@pytest.mark.parametrize("options", [
    {"batch_size": 7},
    {"batch_size": 7, "drop_last": True},
    {"batch_size": 4, "shuffle": True},
    {"batch_size": None},
    {"batch_size": 5, "collate_fn": as_list},
    {"batch_size": 2, "collate_fn": boxes},
    {"batch_sampler": [[3, 1], [0], [5, 4, 2]]},
    {"batch_size": 3, "sampler": [5, 0, 0, 2]},
])  # fmt: skip
@pytest.mark.parametrize("workers", [0, WORKERS])
def test_batches_equal_torchs(options: dict[str, Any], workers: int) -> None:
    torch.manual_seed(3)
    expected = batches_of(TorchDataLoader(Zoo(), num_workers=0, **options))
    torch.manual_seed(3)
    arrived = batches_of(penstock.DataLoader(Zoo(), num_workers=workers, **options))
    assert same(arrived, expected)


def test_batches_are_the_same_under_every_start_method(start_method: str) -> None:
    loader = penstock.DataLoader(
        Squares(), batch_size=8, num_workers=WORKERS, multiprocessing_context=start_method
    )
    assert flat_indices(batches_of(loader)) == list(range(40))


@pytest.mark.parametrize("prefetch_factor", [1, 5])
@pytest.mark.parametrize("persistent", [False, True])
def test_every_epoch_has_every_sample_once(persistent: bool, prefetch_factor: int) -> None:
    loader = penstock.DataLoader(
        Squares(),
        batch_size=6,
        shuffle=True,
        num_workers=WORKERS,
        persistent_workers=persistent,
        prefetch_factor=prefetch_factor,
    )
    epochs = [flat_indices(batches_of(loader)) for _ in range(3)]
    assert all(sorted(epoch) == list(range(40)) for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_persistent_workers_live_on_and_others_do_not() -> None:
    def pids(persistent: bool) -> list[set[int]]:
        loader = penstock.DataLoader(
            Pids(), batch_size=4, num_workers=WORKERS, persistent_workers=persistent
        )
        return [{int(pid) for batch in loader for pid in batch} for _ in range(2)]

    first, second = pids(True)
    assert first == second
    first, second = pids(False)
    assert not first & second


class Pids(Dataset[int]):
    def __len__(self) -> int:
        return 32

    def __getitem__(self, index: int) -> int:
        return os.getpid()


def test_the_policy_may_be_another_in_the_next_epoch() -> None:
    loader = penstock.DataLoader(Squares(bad=(3,)), batch_size=4)
    with pytest.raises(ValueError, match="sample 3"):
        list(loader)
    loader.on_error, loader.max_skipped = "skip", 1
    assert 3 not in flat_indices(batches_of(loader))
    assert [error.index for error in loader.skipped] == [3]


def test_out_of_order_still_gives_every_sample_once() -> None:
    loader = penstock.DataLoader(Squares(), batch_size=3, num_workers=WORKERS, in_order=False)
    assert sorted(flat_indices(batches_of(loader))) == list(range(40))


class Counting(IterableDataset[int]):
    def __init__(self, length: int | None = None) -> None:
        self.length = length

    def __iter__(self) -> Any:
        info = get_worker_info()
        seat, step = (info.id, info.num_workers) if info is not None else (0, 1)
        return iter(range(seat, 23, step))


class CountingWithLength(Counting):
    def __len__(self) -> int:
        return 10


@pytest.mark.parametrize("workers", [0, 1, WORKERS])
@pytest.mark.parametrize("options", [{"batch_size": 4}, {"batch_size": 4, "drop_last": True},
                                     {"batch_size": None}])  # fmt: skip
def test_streams_come_as_torchs_do(workers: int, options: dict[str, Any]) -> None:
    expected = batches_of(TorchDataLoader(Counting(), num_workers=workers, **options))
    arrived = batches_of(penstock.DataLoader(Counting(), num_workers=workers, **options))
    assert same(arrived, expected)


def test_a_stream_that_is_longer_than_it_says_is_warned_of() -> None:
    loader = penstock.DataLoader(CountingWithLength(), batch_size=4)
    assert len(loader) == 3
    with pytest.warns(UserWarning, match="reported to be 10 .* samples have been fetched"):
        batches_of(loader)


# Randomness.


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_random_samples_do_not_depend_on_the_number_of_workers(workers: int) -> None:
    def epochs(workers: int) -> list[Any]:
        loader = penstock.DataLoader(
            Dice(), batch_size=4, shuffle=True, seed=11, num_workers=workers
        )
        return [batches_of(loader) for _ in range(2)]

    inline = epochs(0)
    assert same(epochs(workers), inline)
    assert not same(inline[0], inline[1])


def test_a_seeded_loader_leaves_the_programs_own_random_numbers_alone() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    def seed() -> None:
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)

    seed()
    expected = draw()
    seed()
    batches_of(penstock.DataLoader(Dice(), batch_size=4, seed=5, num_workers=0))
    assert draw() == expected


def test_worker_init_fn_seeds_workers_as_torch_does() -> None:
    def epoch(loader_class: type) -> list[Any]:
        torch.manual_seed(9)
        return batches_of(
            loader_class(Rolls(), batch_size=4, num_workers=WORKERS, worker_init_fn=_nothing)
        )

    assert same(epoch(penstock.DataLoader), epoch(TorchDataLoader))


class Rolls(Dataset[tuple[float, float, float]]):
    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> tuple[float, float, float]:
        return random.random(), float(torch.rand(())), np.random.rand()


def _nothing(seat: int) -> None:
    pass


def test_worker_info_is_there() -> None:
    loader = penstock.DataLoader(Infos(), batch_size=None, num_workers=WORKERS)
    assert {tuple(info) for info in batches_of(loader)} == {(0, 2, 8), (1, 2, 8)}


class Infos(Dataset[tuple[int, int, int]]):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> tuple[int, int, int]:
        info = get_worker_info()
        assert info is not None
        return info.id, info.num_workers, len(info.dataset)  # type: ignore[arg-type]


# The memory of batches.


def test_batches_stay_intact_for_as_long_as_anything_of_them_is_kept() -> None:
    loader = penstock.DataLoader(Squares(200), batch_size=4, num_workers=WORKERS)
    kept: list[tuple[int, Any]] = []
    for number, batch in enumerate(loader):
        image = batch["image"]
        with torch.inference_mode():
            under_inference = image[1].view(-1)
        parts = (image[0].detach(), image[2].numpy(), image[3:4], under_inference)
        kept.extend((number, part) for part in parts)
    for at, (number, part) in enumerate(kept):
        place = (0, 2, 3, 1)[at % 4]
        assert (torch.as_tensor(part) == 4 * number + place).all()


def test_batches_can_be_written_to() -> None:
    for batch in penstock.DataLoader(Squares(), batch_size=4, num_workers=WORKERS):
        batch["image"].add_(1)
        assert (batch["image"][0] == batch["index"][0] + 1).all()


class Growing(Dataset[torch.Tensor]):
    """From 1 kB to 300 MB and back."""

    SIZES = (250, 75_000_000, 250, 1000, 10_000_000, 10)

    def __len__(self) -> int:
        return len(self.SIZES)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.full((self.SIZES[index],), index, dtype=torch.float32)


def test_batches_of_any_size_follow_each_other() -> None:
    for index, batch in enumerate(penstock.DataLoader(Growing(), num_workers=WORKERS)):
        assert batch.shape == (1, Growing.SIZES[index])
        assert bool((batch == index).all())


# Workers that die.


def test_an_epoch_in_which_workers_are_killed_equals_an_undisturbed_one(start_method: str) -> None:
    def epoch(kill_every: int | None) -> list[Any]:
        picks = random.Random(2)
        loader = penstock.DataLoader(
            Slow(), batch_size=4, shuffle=True, seed=4, num_workers=WORKERS,
            multiprocessing_context=start_method,
            # Not all at once while a worker comes up: none would be left to kill.
            prefetch_factor=2,
        )  # fmt: skip
        batches = []
        for number, batch in enumerate(loader):
            batches.append(batch)
            if kill_every and number % kill_every == 1:
                workers = [
                    child
                    for child in psutil.Process().children(recursive=True)
                    if child.pid in _worker_pids()
                ]
                if workers:
                    os.kill(picks.choice(workers).pid, signal.SIGKILL)
        if kill_every:
            assert loader.statistics().restarts >= 3
        return batches

    undisturbed = epoch(None)
    # A spawned worker takes a second to come up, so fewer are killed.
    assert same(epoch(3 if start_method != "spawn" else 8), undisturbed)


def _worker_pids() -> set[int]:
    import multiprocessing

    return {child.pid or 0 for child in multiprocessing.active_children()}


class Slow(Dataset[tuple[torch.Tensor, int, float]]):
    """Takes long enough that a worker is usually in the middle of something."""

    def __len__(self) -> int:
        return 120

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int, float]:
        noise = torch.rand(3, 128, 128)
        for _ in range(20):
            noise = noise.sqrt()
        return noise, index, random.random()


def test_a_sample_that_kills_every_worker_is_named_in_the_place_of_its_batch() -> None:
    loader = penstock.DataLoader(Poison(), batch_size=2, num_workers=WORKERS)
    batches = iter(loader)
    arrived = [next(batches).tolist() for _ in range(3)]
    with pytest.raises(
        penstock.SampleKilledWorker, match=r"SIGKILL while it made sample 7 .Poison\[7\]"
    ):
        next(batches)
    arrived += [batch.tolist() for batch in batches]
    assert arrived == [[0, 1], [2, 3], [4, 5], [8, 9], [10, 11]]


class PoisonedStream(IterableDataset[int]):
    """Its second worker is killed by its fifth sample."""

    def __iter__(self) -> Any:
        for number in range(10):
            worker = get_worker_info()
            if worker is not None and worker.id == 1 and number == 4:
                os.kill(os.getpid(), signal.SIGKILL)
            yield number


def test_a_stream_that_kills_every_worker_ends_with_its_place_named() -> None:
    loader = penstock.DataLoader(PoisonedStream(), batch_size=2, num_workers=WORKERS)
    place = r"not the first to do so at batch 2 of the stream of worker 1\."
    with pytest.raises(penstock.WorkerDiedError, match=place):
        list(loader)


def test_all_workers_killed_at_once_in_a_later_epoch_are_replaced() -> None:
    loader = penstock.DataLoader(
        Squares(), batch_size=2, num_workers=WORKERS, persistent_workers=True
    )
    batches_of(loader)
    for _ in range(3):
        iterator = iter(loader)
        arrived = [next(iterator)]
        for pid in _worker_pids():
            os.kill(pid, signal.SIGKILL)
        arrived.extend(iterator)
        assert flat_indices(arrived) == list(range(40))
    assert flat_indices(batches_of(loader)) == list(range(40))


class Pictures(Dataset[tuple[np.ndarray[Any, Any], torch.Tensor, int]]):
    """Large samples that take so long that each goes to its row of the batch at once."""

    def __len__(self) -> int:
        return 60

    def __getitem__(self, index: int) -> tuple[np.ndarray[Any, Any], torch.Tensor, int]:
        time.sleep(0.0005)
        if index % 7 == 3 or index < 3:
            raise ValueError("bad")
        return np.full((2, 128, 128), index, np.float32), torch.rand(128, 256), index


class PictureStream(IterableDataset[tuple[np.ndarray[Any, Any], torch.Tensor, int]]):
    def __iter__(self) -> Any:
        return PictureIterator()


class PictureIterator:
    def __init__(self) -> None:
        self.at = -1

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> tuple[np.ndarray[Any, Any], torch.Tensor, int]:
        self.at += 1
        if self.at == 60:
            raise StopIteration
        time.sleep(0.0005)
        if self.at % 7 == 3 or self.at < 3:
            raise ValueError("bad")
        return np.full((2, 128, 128), self.at, np.float32), torch.ones(128, 256), self.at


def ask(error: penstock.SampleError) -> Any:
    """Every way of deciding, by turns."""
    if error.index % 2:
        return "skip"
    return np.zeros((2, 128, 128), np.float32), torch.zeros(128, 256), -error.index


@pytest.mark.parametrize("batching", ["batch_size", "batch_sampler", "stream"])
@pytest.mark.parametrize("on_error", ["skip", ask])
def test_large_samples_with_bad_ones_among_them_come_as_without_workers(
    batching: str, on_error: Any
) -> None:
    options: dict[str, Any] = {"on_error": on_error, "max_skipped": 1.0}
    if batching == "batch_sampler":
        options["batch_sampler"] = BatchSampler(range(60), batch_size=8, drop_last=False)
    else:
        options["batch_size"] = 8

    def epochs(workers: int) -> list[Any]:
        torch.manual_seed(0)
        dataset = PictureStream() if batching == "stream" else Pictures()
        loader = penstock.DataLoader(dataset, num_workers=workers, **options)
        return [batches_of(loader) for _ in range(2)]

    assert same(epochs(1 if batching == "stream" else WORKERS), epochs(0))


class FaultyStream(IterableDataset[int]):
    """Its sample 5 is bad; goes on behind it."""

    def __iter__(self) -> Any:
        return FaultyIterator()


class FaultyIterator:
    def __init__(self) -> None:
        self.at = -1

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> int:
        self.at += 1
        if self.at == 5:
            raise ValueError("bad")
        if self.at == 30:
            raise StopIteration
        return self.at


class Nameless(FaultyIterator):
    def describe(self) -> str:
        raise LookupError("no name")


class NamelessStream(FaultyStream):
    def __iter__(self) -> Any:
        return Nameless()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_stream_that_cannot_name_its_samples_loses_none(workers: int) -> None:
    loader = penstock.DataLoader(
        NamelessStream(), batch_size=4, num_workers=workers, on_error="skip", max_skipped=1
    )
    assert [int(i) for batch in loader for i in batch] == [i for i in range(30) if i != 5]
    assert "describe() raised LookupError('no name')" in loader.skipped[0].source


def test_a_streams_bad_sample_is_decided_on_once_though_its_worker_dies() -> None:
    asked = []

    def decide(error: penstock.SampleError) -> str:
        asked.append(error.index)
        os.kill(min(_worker_pids()), signal.SIGKILL)
        return "skip"

    loader = penstock.DataLoader(
        FaultyStream(), batch_size=4, num_workers=1, on_error=decide, max_skipped=1
    )
    assert [int(i) for batch in loader for i in batch] == [i for i in range(30) if i != 5]
    assert asked == [5]
    assert [error.index for error in loader.skipped] == [5]
    assert loader.statistics().restarts == 1


class Key:
    """An index that cannot be sent anywhere."""

    def __reduce__(self) -> Any:
        raise TypeError("stays here")


def test_an_index_that_cannot_be_sent_is_reported_in_its_turn() -> None:
    loader = penstock.DataLoader(Squares(), sampler=[0, 1, Key(), 3, 4, 5, 6], num_workers=WORKERS)
    iterator = iter(loader)
    arrived = [next(iterator), next(iterator)]
    with pytest.raises(SerializationError, match=r"of batch 2 cannot be sent .*stays here"):
        next(iterator)
    arrived.extend(iterator)
    assert flat_indices(arrived) == [0, 1, 3, 4, 5, 6]


def test_a_forked_process_gets_workers_of_its_own() -> None:
    loader = penstock.DataLoader(
        Squares(), batch_size=4, num_workers=WORKERS, persistent_workers=True
    )
    iterator = iter(loader)
    arrived = [next(iterator)]
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writer, bytes(flat_indices(batches_of(loader))))
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    assert list(os.read(reader, 100)) == list(range(40))
    os.close(reader)
    arrived.extend(iterator)
    assert flat_indices(arrived) == list(range(40))


def test_many_large_batches_ahead_take_few_descriptors() -> None:
    loader = penstock.DataLoader(
        Squares(800), batch_size=4, num_workers=WORKERS, prefetch_factor=90
    )
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    most = 0
    for batch in loader:
        assert batch["image"].shape == (4, 3, 64, 64)
        most = max(most, len(os.listdir("/proc/self/fd")))  # noqa: PTH208
    assert most - before < 90


class Poison(Dataset[int]):
    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> int:
        if index == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        return index


def test_a_streams_worker_that_is_killed_goes_on_where_it_was() -> None:
    loader = penstock.DataLoader(Counting(), batch_size=2, num_workers=WORKERS)
    expected = batches_of(loader)
    arrived = []
    for number, batch in enumerate(loader):
        arrived.append(batch)
        if number in (1, 4):
            os.kill(min(_worker_pids()), signal.SIGKILL)
    assert same(arrived, expected)


# Errors.


@pytest.mark.parametrize("workers", [0, WORKERS])
def test_a_bad_sample_raises_its_own_type_and_names_itself(workers: int) -> None:
    loader = penstock.DataLoader(Squares(bad=(13,)), batch_size=5, num_workers=workers)
    iterator = iter(loader)
    arrived = [next(iterator), next(iterator)]
    with pytest.raises(ValueError, match=r"sample 13 \(Squares\[13\]\)") as caught:
        next(iterator)
    assert "13 is bad" in str(caught.value)
    assert "in __getitem__" in str(caught.value)
    assert isinstance(caught.value.__cause__, penstock.SampleError)
    assert caught.value.__cause__.index == 13
    # Only that batch is lost.
    arrived.extend(iterator)
    assert flat_indices(arrived) == [*range(10), *range(15, 40)]


@pytest.mark.parametrize("workers", [0, WORKERS])
@pytest.mark.parametrize("drop_last", [False, True])
def test_skipped_places_are_filled_from_the_end(workers: int, drop_last: bool) -> None:
    loader = penstock.DataLoader(
        Squares(bad=(2, 3, 21, 39)),
        batch_size=6,
        num_workers=workers,
        drop_last=drop_last,
        on_error="skip",
        max_skipped=4,
    )
    batches = [batch["index"].tolist() for batch in loader]
    # 2 takes 39 and 3 takes 38; 39 is bad itself, so its place takes 37; 21 takes 36.
    expected = [
        [0, 1, 37, 38, 4, 5],
        [6, 7, 8, 9, 10, 11],
        [12, 13, 14, 15, 16, 17],
        [18, 19, 20, 36, 22, 23],
        [24, 25, 26, 27, 28, 29],
        [30, 31, 32, 33, 34, 35],
    ]
    assert batches == expected
    assert [error.index for error in loader.skipped] == [2, 3, 39, 21]


@pytest.mark.parametrize("workers", [0, WORKERS])
def test_with_a_batch_sampler_of_ones_own_a_batch_is_short(workers: int) -> None:
    loader = penstock.DataLoader(
        Squares(bad=(1, 2)),
        batch_sampler=[[0, 1], [2], [3, 4]],
        num_workers=workers,
        on_error="skip",
        max_skipped=None,
    )
    assert [batch["index"].tolist() for batch in loader] == [[0], [3, 4]]
    assert [error.index for error in loader.skipped] == [1, 2]


@pytest.mark.parametrize("workers", [0, WORKERS])
def test_a_function_decides_about_each_bad_sample(workers: int) -> None:
    seen = []

    def decide(error: penstock.SampleError) -> object:
        seen.append(error.index)
        return "skip" if error.index == 3 else Squares()[0]

    loader = penstock.DataLoader(
        Squares(length=10, bad=(3, 4)), batch_size=5, num_workers=workers, on_error=decide,
        max_skipped=1,
    )  # fmt: skip
    assert [batch["index"].tolist() for batch in loader] == [[0, 1, 2, 9, 0], [5, 6, 7, 8]]
    assert seen == [3, 4]


@pytest.mark.parametrize("workers", [0, WORKERS])
@pytest.mark.parametrize("answer", [None, "Skip"])
def test_a_function_that_returns_nothing_useful_is_told_so(workers: int, answer: Any) -> None:
    loader = penstock.DataLoader(
        Squares(bad=(3,)), batch_size=5, num_workers=workers, on_error=lambda error: answer
    )
    with pytest.raises(OptionError, match=f"on_error returned {answer!r} for sample 3"):
        batches_of(loader)


class Exhausted(Squares):
    def __getitem__(self, index: int) -> Any:
        return next(iter([])) if index == 7 else index


@pytest.mark.parametrize("workers", [0, WORKERS])
def test_a_stop_iteration_in_the_dataset_ends_the_epoch_and_the_log_says_so(workers, caplog):
    loader = penstock.DataLoader(Exhausted(), batch_size=5, num_workers=workers)
    with caplog.at_level(logging.WARNING, "penstock"):
        assert len(batches_of(loader)) == 1
    assert "sample 7 (Exhausted[7]) raised StopIteration, which ends the epoch" in caplog.text


class OddError(Exception):
    def __init__(self, code: int, *, path: str) -> None:
        super().__init__(code, path)
        self.code = code
        self.path = path

    def __reduce__(self) -> Any:
        return rebuild_odd, (self.code, self.path)


def rebuild_odd(code: int, path: str) -> OddError:
    return OddError(code, path=path)


class Odd(Squares):
    def __getitem__(self, index: int) -> Any:
        if index == 2:
            raise OddError(5, path="a")
        raise OSError(28, "no space")


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.skipif(not hasattr(Exception, "add_note"), reason="exceptions take no notes")
def test_an_exception_keeps_its_type_and_attributes(workers: int) -> None:
    iterator = iter(penstock.DataLoader(Odd(), sampler=[2, 3], num_workers=workers))
    with pytest.raises(OddError) as caught:
        next(iterator)
    assert (caught.value.code, caught.value.path) == (5, "a")
    assert "at sample 2 (Odd[2])" in "".join(caught.value.__notes__)
    with pytest.raises(OSError, match="at sample 3") as full:
        next(iterator)
    assert full.value.errno == 28


@pytest.mark.parametrize("workers", [0, WORKERS])
def test_more_bad_samples_than_allowed_stop_the_epoch(workers: int) -> None:
    loader = penstock.DataLoader(
        Squares(bad=(1, 11, 21)), batch_size=4, num_workers=workers, on_error="skip", max_skipped=2
    )
    with pytest.raises(penstock.TooManySkippedError, match=r"3 of 40 .*max_skipped=2") as caught:
        batches_of(loader)
    assert "21 is bad" in str(caught.value)
    assert [error.index for error in caught.value.skipped] == [1, 11, 21]


class Nones(Dataset[Any]):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:
        return None if index == 2 else index


@pytest.mark.parametrize("workers", [0, WORKERS])
def test_none_is_a_bad_sample(workers: int) -> None:
    with pytest.raises(TypeError, match="None for sample 2"):
        batches_of(penstock.DataLoader(Nones(), batch_size=4, num_workers=workers))
    loader = penstock.DataLoader(
        Nones(), batch_size=4, num_workers=workers, on_error="skip", max_skipped=1
    )
    assert [batch.tolist() for batch in loader] == [[0, 1, 7, 3], [4, 5, 6]]


@pytest.mark.parametrize("workers", [0, WORKERS])
def test_a_collate_function_of_ones_own_may_take_none(workers: int) -> None:
    loader = penstock.DataLoader(Nones(), batch_size=8, num_workers=workers, collate_fn=as_list)
    assert batches_of(loader) == [[0, 1, None, 3, 4, 5, 6, 7]]


class GeneratorStream(IterableDataset[int]):
    def __iter__(self) -> Any:
        yield 1
        raise ValueError("no second")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_generator_that_cannot_go_on_is_not_cut_short_in_silence(workers: int) -> None:
    loader = penstock.DataLoader(GeneratorStream(), num_workers=workers, on_error="skip")
    iterator = iter(loader)
    with pytest.raises(DatasetError, match="is a generator, which cannot go on"):
        list(iterator)


@pytest.mark.parametrize("workers", [0, WORKERS])
def test_a_sampler_that_raises_is_heard_after_the_good_batches(workers: int) -> None:
    def sampler() -> Any:
        yield from range(4)
        raise LookupError("the sampler is broken")

    loader = penstock.DataLoader(Squares(), batch_size=2, sampler=sampler(), num_workers=workers)
    iterator = iter(loader)
    assert flat_indices([next(iterator), next(iterator)]) == [0, 1, 2, 3]
    with pytest.raises(LookupError, match="the sampler is broken"):
        next(iterator)
    with pytest.raises(StopIteration):
        next(iterator)


class BrokenError(RuntimeError):
    pass


def failing_collate(samples: list[Any]) -> Any:
    raise BrokenError("cannot collate")


@pytest.mark.parametrize("workers", [0, WORKERS])
def test_a_collate_function_that_raises_is_named(workers: int) -> None:
    loader = penstock.DataLoader(
        Squares(), batch_size=4, collate_fn=failing_collate, num_workers=workers
    )
    with pytest.raises(
        BrokenError, match=r"cannot collate\n\(failing_collate raised this for batch 0"
    ):
        next(iter(loader))


class Liar(Squares):
    """Says that it is longer than it is."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index >= 35:
            raise IndexError("list index out of range")
        return super().__getitem__(index)


@pytest.mark.parametrize("workers", [0, WORKERS])
def test_a_length_that_lies_is_called_that(workers: int) -> None:
    with pytest.raises(IndexError, match=r"Liar has no sample 35, its __len__, which says 40"):
        batches_of(penstock.DataLoader(Liar(), batch_size=5, num_workers=workers))


@pytest.mark.parametrize("workers", [0, WORKERS])
def test_an_index_out_of_range_is_the_samplers_fault(workers: int) -> None:
    loader = penstock.DataLoader(
        list(range(5)),
        sampler=[0, 7],
        num_workers=workers,  # type: ignore[arg-type]
    )
    with pytest.raises(IndexOutOfRangeError, match="sampler asked for sample 7, and list has 5"):
        batches_of(loader)


@pytest.mark.parametrize(("options", "message"), [
    ({"num_workers": -1}, "num_workers=-1"),
    ({"num_workers": 1.5}, "num_workers=1.5"),
    ({"prefetch_factor": 2}, "prefetch_factor=2, num_workers=0"),
    ({"prefetch_factor": 0, "num_workers": 1}, "prefetch_factor=0"),
    ({"batch_size": 0}, "batch_size=0"),
    ({"timeout": -1}, "timeout=-1"),
    ({"seed": -3}, "seed=-3"),
    ({"on_error": "ignore"}, "on_error='ignore'"),
    ({"max_skipped": 1.5}, r"max_skipped=1\.5"),
    ({"dataset": [], "shuffle": True}, "num_samples=0"),
    ({"dataset": "photos"}, "dataset='photos' is a text"),
    ({"collate_fn": "x"}, "collate_fn='x' cannot be called"),
    ({"worker_init_fn": 3}, "worker_init_fn=3 cannot be called"),
    ({"sampler": 3}, "sampler=3 cannot be iterated"),
    ({"timeout": float("nan")}, "timeout=nan"),
    ({"memory_budget": 1 << 30}, "memory_budget=1073741824 .* num_workers=0;"),
    ({"dataset": (n for n in range(3))}, "dataset=<generator .* has no samples to ask for"),
])  # fmt: skip
def test_bad_arguments_are_named_with_their_values(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        penstock.DataLoader(**{"dataset": Squares(), **options})


@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_size_may_be_a_number_of_numpys(workers: int) -> None:
    loader = penstock.DataLoader(Squares(6), batch_size=np.int64(4), num_workers=workers)  # type: ignore[arg-type]
    assert [len(batch["index"]) for batch in loader] == [4, 2]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(("length", "allowed"), [(100, 1), (300, 3)])
def test_a_fraction_of_a_stream_is_one_of_its_length(
    length: int, allowed: int, workers: int
) -> None:
    loader = penstock.DataLoader(
        FaultyStreamWithLength(length), batch_size=4, num_workers=workers, on_error="skip"
    )
    with pytest.raises(penstock.TooManySkippedError, match=f"which is {allowed}\\.") as caught:
        batches_of(loader)
    assert len(caught.value.skipped) == allowed + 1


class FaultyStreamWithLength(IterableDataset[int]):
    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Any:
        return FaultyAtFirst(20)


class FaultyAtFirst:
    def __init__(self, end: int | None, good_from: int | None = None) -> None:
        self.at = -1
        self.end = end
        self.good_from = good_from

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> int:
        self.at += 1
        if self.at == self.end:
            raise StopIteration
        if self.good_from is None or self.at < self.good_from:
            raise ValueError("bad")
        return self.at


class EndlesslyFaulty(IterableDataset[int]):
    def __init__(self, good_from: int | None = None) -> None:
        self.good_from = good_from

    def __iter__(self) -> Any:
        return FaultyAtFirst(None, self.good_from)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_endless_stream_of_bad_samples_stops_at_the_limit(workers: int) -> None:
    options: dict[str, Any] = {"batch_size": 4, "num_workers": workers, "on_error": "skip"}
    with pytest.raises(penstock.TooManySkippedError) as caught:
        next(iter(penstock.DataLoader(EndlesslyFaulty(), **options, max_skipped=150)))
    assert [error.index for error in caught.value.skipped] == list(range(151))
    loader = penstock.DataLoader(EndlesslyFaulty(1000), **options, max_skipped=1000)
    assert next(iter(loader)).tolist() == [1000, 1001, 1002, 1003]
    assert [error.index for error in loader.skipped] == list(range(1000))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_generator_that_raises_says_that_its_rest_is_lost(workers: int) -> None:
    iterator = iter(penstock.DataLoader(Generated(), batch_size=2, num_workers=workers))
    assert next(iterator).tolist() == [0, 1]
    with pytest.raises(ValueError, match="the rest of its part of the stream is lost"):
        next(iterator)


class Generated(IterableDataset[int]):
    def __iter__(self) -> Any:
        yield from range(3)
        raise ValueError("bad")


def test_a_batch_size_beside_a_batch_sampler_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_sampler option is mutually exclusive"):
        penstock.DataLoader(Squares(), batch_size=3, batch_sampler=[[1]])


class Holder(Squares):
    def __init__(self) -> None:
        super().__init__()
        self.reader = (i for i in range(3))


def test_a_dataset_that_cannot_travel_names_the_attribute() -> None:
    loader = penstock.DataLoader(Holder(), num_workers=1, multiprocessing_context="spawn")
    with pytest.raises(
        SerializationError, match=r"^dataset\.reader, of type generator cannot be sent .*'fork'"
    ):
        iter(loader)


def test_lambdas_travel_under_every_start_method(start_method: str) -> None:
    loader = penstock.DataLoader(
        Squares(8),
        batch_size=4,
        num_workers=1,
        collate_fn=lambda samples: [sample["index"] * 10 for sample in samples],
        multiprocessing_context=start_method,
    )
    assert batches_of(loader) == [[0, 10, 20, 30], [40, 50, 60, 70]]


class Stuck(Squares):
    def __getitem__(self, index: int) -> dict[str, Any]:
        signal.pause()
        raise AssertionError


def test_a_batch_that_does_not_come_in_time_says_so() -> None:
    loader = penstock.DataLoader(Stuck(), num_workers=1, timeout=0.3)
    with pytest.raises(RuntimeError, match=r"timed out after 0\.3 seconds"):
        next(iter(loader))


def failing_init(seat: int) -> None:
    raise BrokenError(f"no init in {seat}")


def test_an_error_in_worker_init_fn_comes_with_its_type() -> None:
    loader = penstock.DataLoader(Squares(), num_workers=1, worker_init_fn=failing_init)
    with pytest.raises(BrokenError, match=r"no init in 0 \(raised by worker_init_fn\)"):
        next(iter(loader))


# Beginning and ending.


def test_break_frees_the_workers_at_once() -> None:
    for _ in penstock.DataLoader(Squares(), num_workers=WORKERS):
        break
    assert not _worker_pids()


@pytest.mark.parametrize("persistent", [False, True])
def test_an_epoch_can_be_broken_off_again_and_again(persistent: bool) -> None:
    loader = penstock.DataLoader(
        Squares(), batch_size=2, num_workers=WORKERS, persistent_workers=persistent
    )
    for number in range(30):
        for at, batch in enumerate(loader):
            assert batch["index"].tolist() == [2 * at, 2 * at + 1]
            if at == number % 5:
                break
    assert flat_indices(batches_of(loader)) == list(range(40))


def test_iterators_of_one_loader_are_independent() -> None:
    loader = penstock.DataLoader(Squares(12), batch_size=3, num_workers=1)
    pairs = [(a["index"][0].item(), b["index"][0].item()) for a in loader for b in loader]
    assert pairs == [(a, b) for a in range(0, 12, 3) for b in range(0, 12, 3)]


def test_persistent_workers_have_one_iterator_which_goes_on_with_the_new_epoch() -> None:
    loader = penstock.DataLoader(Squares(6), num_workers=1, persistent_workers=True)
    first = iter(loader)
    next(first)
    second = iter(loader)
    assert second is first
    assert [int(batch["index"]) for batch in second] == list(range(6))
    with pytest.raises(StopIteration):
        next(first)
    assert [int(batch["index"]) for batch in loader] == list(range(6))


def test_the_iterator_of_persistent_workers_may_be_all_that_is_kept() -> None:
    loader = penstock.DataLoader(Squares(6), num_workers=1, persistent_workers=True)
    iterator = iter(loader)
    del loader
    assert len(list(iterator)) == 6


def test_a_data_pipe_with_workers_is_left_to_torchs_loader() -> None:
    pipe = IterableWrapper(range(6))
    with pytest.raises(OptionError, match=r"DataPipe.*num_workers=0"):
        penstock.DataLoader(pipe, num_workers=2)
    assert [int(number) for number in penstock.DataLoader(pipe)] == list(range(6))


def test_an_iterator_that_was_dropped_holds_nothing_of_its_epoch() -> None:
    loader = penstock.DataLoader(Squares(), num_workers=1, persistent_workers=True)
    iterator = iter(loader)
    next(iterator)
    held = weakref.ref(iterator)
    del iterator
    assert held() is None


def test_statistics_count_what_happened() -> None:
    loader = penstock.DataLoader(
        Squares(bad=(5,)), batch_size=4, num_workers=WORKERS, on_error="skip", max_skipped=1
    )
    assert loader.statistics().batches == 0
    batches_of(loader)
    statistics = loader.statistics()
    assert (statistics.batches, statistics.samples, statistics.skipped) == (10, 39, 1)
    assert statistics.first_batch_s is not None
    assert 0 < statistics.first_batch_s <= statistics.elapsed_s
    assert 0 < statistics.busy_share <= 1
    assert 0 < statistics.wait_share <= 1
