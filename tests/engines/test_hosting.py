"""Several streams of an iterable dataset, read by one process."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import IterableDataset, get_worker_info

from penstock.engines.hosting import StreamHost
from penstock.engines.outcome import Broken, Held, Made, StreamEnded
from penstock.engines.protocol import EpochStart, StreamStart
from penstock.errors import SerializationError
from penstock.schedule import Fill
from tests.engines.driving import job_of, lease

SEED = 11


@pytest.fixture(autouse=True)
def generators_put_back() -> Iterator[None]:
    """A process that owns its stream is seeded for good; this one goes on to other tests."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    yield
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])


def drawn() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


class Told(IterableDataset[Any]):
    """Samples that say which worker made them, and its random numbers."""

    def __init__(self, length: int = 6) -> None:
        self.length = length
        self.made = 0

    def __iter__(self) -> Iterator[Any]:
        for number in range(self.length):
            self.made += 1
            info = get_worker_info()
            name = None if info is None else (info.id, info.num_workers)
            yield name, number, drawn()


class Infos(IterableDataset[Any]):
    """Samples that are what their worker is told."""

    def __iter__(self) -> Iterator[Any]:
        return (get_worker_info() for _ in range(2))


def host_of(dataset: Any, *, seat: int | None = 0, **settings: Any) -> StreamHost:
    """A host that has begun an epoch."""
    settings = {"collate": None, "default_collate": False, "batch_size": 2, **settings}
    host = StreamHost(job_of(dataset, stream=True, **settings), seat, SEED)
    host.begin_epoch(EpochStart(SEED))
    return host


def fetch(host: StreamHost, stream: int, number: int = 0) -> list[Any]:
    """The samples of a stream's next batch."""
    outcome = host.fetch(lease(100 * stream + number, [stream, number]))
    assert isinstance(outcome, Made)
    samples: list[Any] = outcome.value
    return samples


def names(samples: list[Any]) -> set[Any]:
    return {name for name, _, _ in samples}


# Which streams, under which names.


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"seat": 0, "seats": 1, "streams": 3}, {0: (0, 3), 1: (1, 3), 2: (2, 3)}),
        ({"seat": 1, "seats": 2, "streams": 4}, {1: (1, 4), 3: (3, 4)}),
        ({"seat": None, "seats": 0, "streams": 2}, {0: (0, 2), 1: (1, 2)}),
        # One that was read without workers is told of none, in a worker or in this process.
        ({"seat": None, "seats": 0, "streams": 0}, {0: None}),
        ({"seat": 0, "seats": 1, "streams": 0}, {0: None}),
        # A worker with its own stream alone has its name already, and is lent none.
        ({"seat": 1, "seats": 2, "streams": 3}, {1: None}),
    ],
)
def test_each_stream_is_told_that_it_is_the_worker_which_it_was(settings, expected):
    host = host_of(Told(), **settings)
    assert {stream: names(fetch(host, stream)) for stream in expected} == {
        stream: {name} for stream, name in expected.items()
    }
    for stream in set(range(4)).difference(expected):
        with pytest.raises(KeyError):
            host.fetch(lease(9, [stream, 0]))


def test_in_between_the_process_is_nobodys_worker():
    host = host_of(Told(), seats=1, streams=2)
    for stream in (0, 1, 0):
        fetch(host, stream)
        assert get_worker_info() is None


def test_the_copies_are_told_their_worker_seed_and_dataset():
    dataset = Infos()
    host = host_of(dataset, seats=1, streams=2)
    infos = [fetch(host, stream)[0] for stream in (0, 1)]
    assert [info.seed for info in infos] == [SEED, SEED + 1]
    assert len({id(info.dataset) for info in infos} | {id(dataset)}) == 3


# Random numbers.


def test_a_stream_draws_the_same_whoever_reads_it_and_whatever_is_read_in_between():
    alone = []
    for seat in range(3):
        host = host_of(Told(), seat=seat, seats=3)
        alone.append([fetch(host, seat, number) for number in range(3)])
    shared = host_of(Told(), seats=1, streams=3)
    mixed: list[list[Any]] = [[], [], []]
    for stream in (0, 1, 2, 2, 1, 0, 1, 0, 2):
        mixed[stream].append(fetch(shared, stream, len(mixed[stream])))

    def numbers(streams: Any) -> Any:
        return [[[sample[2] for sample in batch] for batch in stream] for stream in streams]

    assert numbers(mixed) == numbers(alone)
    assert len({sample[2] for stream in alone for batch in stream for sample in batch}) == 18


@pytest.mark.parametrize("streams", [2, 0])
def test_the_training_process_draws_what_it_would_have_drawn(streams):
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    expected = drawn()
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    host = host_of(Told(), seat=None, seats=0, streams=streams)
    if streams:
        fetch(host, 0)
        fetch(host, 1)
        assert drawn() == expected
    else:
        # A stream that never was a worker's draws from the program's generators, as it did.
        assert fetch(host, 0)[0][2] == expected


def test_each_epoch_draws_from_its_own_seed():
    host = host_of(Told(), seats=1, streams=2)
    first = fetch(host, 1)
    host.begin_epoch(EpochStart(SEED + 1))
    second = fetch(host, 1)
    host.begin_epoch(EpochStart(SEED))
    assert fetch(host, 1) == first != second


# Copies.


def test_each_stream_is_read_from_a_copy_of_its_own():
    dataset = Told()
    host = host_of(dataset, seats=1, streams=2)
    for stream, number in ((0, 0), (0, 1), (1, 0)):
        fetch(host, stream, number)
    copies = [hosted.fetcher._job.dataset for hosted in host._hosted.values()]
    assert [copy.made for copy in copies] == [4, 2]
    assert dataset.made == 0


def test_a_stream_that_is_read_alone_needs_no_copy():
    dataset = Told()
    dataset.lock = threading.Lock()  # type: ignore[attr-defined]
    fetch(host_of(dataset, seats=1), 0)
    assert dataset.made == 2


def test_a_dataset_that_cannot_be_copied_says_what_keeps_it_and_how_many_workers_can_go_on():
    dataset = Told()
    dataset.lock = threading.Lock()  # type: ignore[attr-defined]
    with pytest.raises(SerializationError, match=r"in 3 streams.*\.lock.*num_workers=3"):
        host_of(dataset, seats=1, streams=3)


def test_the_workers_function_is_called_for_each_stream_as_its_worker():
    called = []

    def note(number: int) -> None:
        info = get_worker_info()
        assert info is not None
        info.dataset.length = 2 + 2 * number  # type: ignore[attr-defined]
        called.append((number, info.id, torch.initial_seed()))

    settings = {"worker_init_fn": note, "own_randomness": False}
    host = host_of(Told(), seats=1, streams=2, **settings)
    assert called == [(0, 0, SEED), (1, 1, SEED + 1)]
    assert isinstance(host.fetch(lease(0, [0, 0])), Made)
    assert isinstance(host.fetch(lease(1, [0, 1])), StreamEnded)
    assert [number for _, number, _ in fetch(host, 1, 0) + fetch(host, 1, 1)] == [0, 1, 2, 3]


def test_a_function_that_fails_leaves_the_process_as_it_was():
    def refuse(number: int) -> None:
        raise OSError("no such disk")

    random.seed(5)
    before = random.getstate(), torch.get_rng_state().tolist()
    with pytest.raises(OSError, match="no such disk"):
        host_of(Told(), seats=1, streams=2, worker_init_fn=refuse)
    assert get_worker_info() is None
    assert (random.getstate(), torch.get_rng_state().tolist()) == before


# Where streams begin, and what is held.


def test_streams_go_on_where_they_were_left():
    dataset = Told()
    host = host_of(dataset, seats=1, streams=3)
    host.begin_epoch(EpochStart(SEED, {1: StreamStart(3)}))
    assert [host.pulled(stream) for stream in range(3)] == [0, 3, 0]
    assert [number for _, number, _ in fetch(host, 1)] == [3, 4]
    assert [number for _, number, _ in fetch(host, 0)] == [0, 1]
    assert [host.pulled(stream) for stream in range(3)] == [2, 5, 0]


class BadAtOne(IterableDataset[int]):
    """Its second sample cannot be made, and says whose it was."""

    def __iter__(self) -> Any:
        return _BadAtOne()


class _BadAtOne:
    def __init__(self) -> None:
        self.next = 0

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        self.next += 1
        info = get_worker_info()
        assert info is not None
        if self.next == 2:
            raise ValueError(f"stream {info.id}")
        if self.next == 7:
            raise StopIteration
        return info.id, self.next


def test_a_held_batch_goes_on_in_its_own_stream():
    host = host_of(BadAtOne(), seats=1, streams=2, sample_errors="ask")
    for batch, stream in ((4, 0), (5, 1)):
        outcome = host.fetch(lease(batch, [stream, 0]))
        assert isinstance(outcome, Held)
        assert f"stream {stream}" in outcome.failures[0].traceback
    # The answers come in any order.
    second = host.amend(5, {1: Fill("value", "filled")})
    first = host.amend(4, {1: Fill("drop")})
    assert isinstance(first, Made)
    assert isinstance(second, Made)
    assert first.value == [(0, 1), (0, 3)]
    assert second.value == [(1, 1), "filled"]


def test_a_held_batch_that_is_taken_back_is_forgotten_and_its_stream_goes_on():
    host = host_of(BadAtOne(), seats=1, streams=2, sample_errors="ask")
    assert isinstance(host.fetch(lease(4, [1, 0])), Held)
    host.forget(4)
    host.forget(77)
    with pytest.raises(KeyError):
        host.amend(4, {})
    assert fetch(host, 1, 1) == [(1, 3), (1, 4)]


def test_an_epoch_begins_with_nothing_held():
    host = host_of(BadAtOne(), seats=1, streams=2, sample_errors="ask")
    assert isinstance(host.fetch(lease(4, [1, 0])), Held)
    host.begin_epoch(EpochStart(SEED))
    with pytest.raises(KeyError):
        host.amend(4, {})


def test_a_bad_sample_leaves_the_process_as_it_was():
    before = random.getstate()
    host = host_of(BadAtOne(), seats=1, streams=2)
    outcome = host.fetch(lease(4, [1, 0]))
    assert isinstance(outcome, Broken)
    assert get_worker_info() is None
    assert random.getstate() == before
