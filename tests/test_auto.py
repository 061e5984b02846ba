"""A loader that chooses its workers gives what one gives that is told how many."""

from __future__ import annotations

import copy
import logging
import os
import pickle
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, IterDataPipe, get_worker_info

import penstock
from tests.support.choices import WORKERS, Choices
from tests.support.leaks import live_children

LENGTH = 61
BATCH_SIZE = 4
BATCHES = 16

pytestmark = pytest.mark.usefixtures("no_leaks")


@pytest.fixture(autouse=True)
def choices(monkeypatch) -> Choices:
    return Choices(monkeypatch)


class Drawn(Dataset[Any]):
    """Samples that draw random numbers of every kind.

    Args:
        bad: indices whose samples cannot be made.
        at: what is done before a sample is made, by index, in the process that makes it.
        large: how many numbers a sample has besides.
    """

    def __init__(
        self,
        bad: tuple[int, ...] = (),
        at: dict[int, Callable[[], object]] | None = None,
        large: int = 1,
    ) -> None:
        self.bad = bad
        self.at = at or {}
        self.large = large
        self.epoch = -1

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> Any:
        self.at.get(index, int)()
        if index in self.bad:
            raise ValueError(f"{index} is bad")
        numbers = random.random(), float(np.random.rand()), float(torch.rand(()))
        return index, *numbers, torch.full((self.large,), float(index))


def loader_of(dataset: Any, workers: Any = "auto", **settings: Any) -> penstock.DataLoader:
    settings = {"batch_size": BATCH_SIZE, "seed": 7, **settings}
    return penstock.DataLoader(dataset, num_workers=workers, **settings)


def stream(batches: Any) -> list[list[float]]:
    """All numbers of all batches, batch by batch."""
    return [[float(n) for part in batch for n in part.flatten()] for batch in batches]


def made_here(loader: penstock.DataLoader) -> bool:
    chosen = loader.statistics().chosen
    assert chosen is not None
    return chosen.workers == 0


class TestTheStream:
    @pytest.mark.parametrize("shuffle", [False, True])
    @pytest.mark.parametrize("point", range(BATCHES + 1))
    def test_is_the_same_wherever_the_training_process_takes_over(self, choices, point, shuffle):
        choices.alone_from(point)
        expected = loader_of(Drawn(), 0, shuffle=shuffle)
        loader = loader_of(Drawn(), shuffle=shuffle)
        for _ in range(3):
            assert stream(loader) == stream(expected)
        assert made_here(loader) == (point < BATCHES - 1) or loader.num_workers == WORKERS

    @pytest.mark.parametrize("again", [False, True])
    @pytest.mark.parametrize("point", range(0, BATCHES, 3))
    def test_is_the_same_where_workers_go_on_behind_a_trial(self, choices, point, again):
        choices.alone_from(point, for_good=False, again=again)
        loader = loader_of(Drawn(), shuffle=True)
        expected = loader_of(Drawn(), 0, shuffle=True)
        for _ in range(2):
            assert stream(loader) == stream(expected)
        assert loader.num_workers == WORKERS

    def test_is_the_same_under_every_start_method(self, choices, start_method):
        choices.alone_from(5)
        loader = loader_of(Drawn(large=1 << 15), multiprocessing_context=start_method)
        assert stream(loader) == stream(loader_of(Drawn(large=1 << 15), 0))
        assert made_here(loader)

    @pytest.mark.parametrize("point", range(0, BATCHES, 2))
    @pytest.mark.parametrize("for_good", [False, True])
    @pytest.mark.parametrize("given", [False, True])
    def test_is_the_same_with_bad_samples(self, choices, point, for_good, given):
        choices.alone_from(point, for_good=for_good)
        bad = (0, 5, 6, 7, 20, 21, 33, 47, 60)
        settings: dict[str, Any] = {"on_error": "skip", "max_skipped": None}
        if given:
            # Left short, in place of being filled up.
            batches = [list(range(k, min(k + 4, LENGTH))) for k in range(0, LENGTH, 4)]
            settings |= {"batch_sampler": batches, "batch_size": 1}
        loader = loader_of(Drawn(bad), **settings)
        expected = loader_of(Drawn(bad), 0, **settings)
        assert stream(loader) == stream(expected)
        assert [e.index for e in loader.skipped] == [e.index for e in expected.skipped]

    @pytest.mark.parametrize("point", range(0, BATCHES, 4))
    def test_is_the_same_where_samples_are_replaced(self, choices, point):
        choices.alone_from(point)
        dataset, replacement = Drawn((3, 30, 31)), (0, 0.0, 0.0, 0.0, torch.zeros(1))
        loader = loader_of(dataset, on_error=lambda _: replacement)
        assert stream(loader) == stream(loader_of(dataset, 0, on_error=lambda _: replacement))

    @pytest.mark.parametrize("point", range(0, BATCHES, 4))
    @pytest.mark.parametrize("for_good", [False, True])
    def test_has_each_sample_once_out_of_order(self, choices, point, for_good):
        choices.alone_from(point, for_good=for_good)
        loader = loader_of(Drawn((9,)), in_order=False, on_error="skip", max_skipped=1)
        indices = [int(index) for batch in loader for index in batch[0]]
        assert sorted(indices) == [n for n in range(LENGTH) if n != 9]

    @pytest.mark.parametrize("point", range(0, BATCHES, 5))
    def test_goes_on_behind_an_error(self, choices, point):
        choices.alone_from(point)

        def told(workers: Any) -> list[Any]:
            batches = iter(loader_of(Drawn((9, 50)), workers))
            parts: list[Any] = []
            while True:
                try:
                    parts += stream([next(batches)])
                except StopIteration:
                    return parts
                except ValueError:
                    parts.append("bad")

        assert told("auto") == told(0)

    @pytest.mark.parametrize("persistent", [False, True])
    def test_is_the_same_in_every_epoch(self, choices, persistent):
        loader = loader_of(Drawn(), shuffle=True, persistent_workers=persistent)
        expected = loader_of(Drawn(), 0, shuffle=True)
        assert stream(loader) == stream(expected)
        choices.alone_from(6)
        for _ in range(3):
            assert stream(loader) == stream(expected)
        assert loader.num_workers == 0
        chooser = loader._chooser
        chooser.choice = penstock.engines.chooser.Choice(1, "a test says so")
        choices.never()
        for _ in range(2):
            assert stream(loader) == stream(expected)
        assert loader.statistics().workers == 1

    # Behind the last two a sampler that is asked four batches ahead has come to its end.
    @pytest.mark.parametrize("read", [1, 5, 12, 13])
    def test_is_the_same_behind_an_epoch_that_was_broken_off(self, choices, read):
        choices.alone_from(4)

        def told(workers: Any) -> list[Any]:
            generator = torch.Generator().manual_seed(3)
            loader = loader_of(
                Drawn(), workers, shuffle=True, seed=None, generator=generator, prefetch_factor=2
            )
            parts = []
            for _ in range(3):
                for number, batch in enumerate(loader):
                    parts += stream([batch])
                    if number == read:
                        break
            return parts + stream(loader)

        assert told("auto") == told(WORKERS)

    def test_asks_a_sampler_as_far_ahead_with_workers_as_without(self, choices):
        asked: list[int] = []

        class Order:
            def __iter__(self) -> Iterator[int]:
                for index in range(LENGTH):
                    asked.append(index)
                    yield index

        def ahead() -> list[int]:
            asked.clear()
            loader = loader_of(Drawn(), seed=None, sampler=Order(), prefetch_factor=2)
            return [len(asked) for _ in loader]

        with_workers = ahead()
        choices.alone_from(5)
        assert ahead() == with_workers


class TestStates:
    @pytest.mark.parametrize("read", [0, 3, 7, 15])
    @pytest.mark.parametrize("point", [1, 5, 9])
    @pytest.mark.parametrize("resumed", ["auto", 0, 1])
    def test_of_before_and_behind_the_change_go_on(self, choices, read, point, resumed):
        choices.alone_from(point)
        settings: dict[str, Any] = {"shuffle": True, "on_error": "skip", "max_skipped": None}
        bad = (2, 40, 41)
        loader = loader_of(Drawn(bad), **settings)
        whole = stream(loader_of(Drawn(bad), 0, **settings))
        epoch = iter(loader)
        parts = stream([next(epoch) for _ in range(read)])
        state = loader.state_dict()
        del epoch
        other = loader_of(Drawn(bad), resumed, **settings)
        other.load_state_dict(state)
        assert parts + stream(other) == whole


class TestDeaths:
    @pytest.mark.parametrize("point", range(0, BATCHES, 3))
    @pytest.mark.parametrize("for_good", [False, True])
    def test_a_worker_killed_around_the_change_costs_nothing(self, choices, point, for_good):
        choices.alone_from(point, for_good=for_good)
        loader = loader_of(Drawn(large=1 << 14))
        parts = []
        for number, batch in enumerate(loader):
            parts += stream([batch])
            if number in (max(0, point - 1), point):
                for pid, _ in live_children()[:1]:
                    os.kill(pid, signal.SIGKILL)
        assert parts == stream(loader_of(Drawn(large=1 << 14), 0))

    def test_what_kills_workers_does_not_kill_the_training_process(self, choices, tmp_path):
        choices.alone_from(0)
        here = os.getpid()

        def die() -> None:
            assert os.getpid() != here, "this would have ended the training process"
            os.kill(os.getpid(), signal.SIGKILL)

        # Among the first that are lent: it is with a worker where the change comes.
        dataset = Drawn(at={2: die})
        loader = loader_of(dataset, on_error="skip", max_skipped=1, prefetch_factor=4)
        indices = [int(index) for batch in loader for index in batch[0]]
        assert sorted(indices) == [n for n in range(LENGTH) if n != 2]
        assert loader.num_workers == WORKERS
        assert "died" in str(loader.statistics().chosen)
        # It stays so, in a copy with what is known of the sample too.
        for again in (loader, copy.deepcopy(loader)):
            assert sum(len(batch[0]) for batch in again) == LENGTH - 1
            assert again.num_workers == WORKERS

    def test_a_loaded_quarantine_keeps_workers(self, choices):
        loader = loader_of(Drawn(at={2: lambda: os.kill(os.getpid(), 9)}), on_error="skip")
        loader.max_skipped = None
        list(loader)
        other = loader_of(Drawn(), on_error="skip", max_skipped=None)
        other.load_state_dict(loader.state_dict())
        choices.alone_from(0)
        list(other)
        assert other.num_workers == WORKERS
        assert "quarantine" in str(other.statistics().chosen)


class TestWorkersThatAreNotNeeded:
    def test_are_gone_amid_the_epoch(self, choices):
        choices.alone_from(3)
        kept = []
        for number, batch in enumerate(loader_of(Drawn(large=1 << 15), prefetch_factor=1)):
            kept.append(batch)
            if number == 12:
                assert not live_children()
        assert stream(kept) == stream(loader_of(Drawn(large=1 << 15), 0))

    def test_are_gone_when_the_epoch_is_dropped_amid_the_change(self, choices):
        choices.alone_from(3)
        for read in range(3, 9):
            epoch = iter(loader_of(Drawn(large=1 << 15), persistent_workers=True))
            for _ in range(read):
                next(epoch)
            del epoch

    def test_a_loader_that_was_dropped_keeps_none(self, choices):
        loader = loader_of(Drawn(), persistent_workers=True)
        list(loader)
        assert live_children()

    def test_two_epochs_at_once_are_apart(self, choices):
        choices.alone_from(4)
        loader = loader_of(Drawn())
        expected = stream(loader_of(Drawn(), 0))
        first, second = iter(loader), iter(loader)
        parts = [[next(first), next(second)] for _ in range(BATCHES)]
        assert next(first, None) is next(second, None) is None
        assert stream(one for one, _ in parts) == expected
        assert len(stream(other for _, other in parts)) == BATCHES


class Counted(Drawn):
    """A dataset with a state of its own."""

    def state_dict(self) -> dict[str, int]:
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        pass


class Asking(Drawn):
    """Says who makes a sample."""

    def __getitem__(self, index: int) -> Any:
        return index, -1 if get_worker_info() is None else get_worker_info().id


class Stream(IterableDataset[int]):
    """Does not divide itself among workers."""

    def __iter__(self) -> Iterator[int]:
        return iter(range(LENGTH))


class Pipe(IterDataPipe[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(LENGTH))


class TestLoadersThatDoNotChange:
    @pytest.mark.parametrize(
        ("dataset", "settings", "why"),
        [
            (Drawn(), {"worker_init_fn": lambda _: None}, "worker_init_fn"),
            (Counted(), {}, "state of its own"),
            (Asking(), {}, "get_worker_info"),
            (Drawn(), {"collate_fn": lambda _: [torch.tensor(get_worker_info().id)]}, "_info"),
            (Drawn(), {"timeout": 60}, "timeout"),
            (Drawn(), {"sample_timeout": 60}, "sample_timeout"),
            (Drawn(), {"memory_budget": 1 << 30}, "memory_budget"),
        ],
    )
    def test_stay_with_their_workers(self, choices, dataset, settings, why):
        choices.alone_from(0)
        loader = loader_of(dataset, **settings)
        for _ in range(2):
            assert len(stream(loader)) == BATCHES
            assert loader.num_workers == WORKERS == loader.statistics().workers
        assert why in loader.statistics().chosen.reason

    def test_a_stream_is_read_by_one_worker_once(self, choices):
        choices.alone_from(0)
        loader = loader_of(Stream())
        for _ in range(2):
            assert [int(n) for batch in loader for n in batch] == list(range(LENGTH))
        assert loader.num_workers == 1
        assert "iterable" in loader.statistics().chosen.reason

    def test_a_stream_of_more_workers_is_gone_on_with(self):
        loader = loader_of(Stream(), 2)
        epoch = iter(loader)
        first = [next(epoch) for _ in range(3)]
        state = loader.state_dict()
        rest = list(epoch)
        other = loader_of(Stream())
        other.load_state_dict(state)
        assert [b.tolist() for b in other] == [b.tolist() for b in rest]
        assert len(first) == 3

    def test_a_data_pipe_has_none(self):
        loader = loader_of(Pipe(), seed=None)
        assert [int(n) for batch in loader for n in batch] == list(range(LENGTH))
        assert loader.num_workers == 0 == loader.statistics().workers

    def test_a_dataset_that_cannot_be_sent_stays_here(self):
        dataset = Drawn()
        dataset.file = Path(__file__).open()  # type: ignore[attr-defined]  # noqa: SIM115
        try:
            loader = loader_of(dataset, multiprocessing_context="spawn")
            for _ in range(2):
                assert stream(loader) == stream(loader_of(Drawn(), 0))
                loader.set_epoch(0)
            assert "cannot be sent" in str(loader.statistics().chosen)
        finally:
            dataset.file.close()  # type: ignore[attr-defined]


class TestWhatIsTold:
    def test_the_choice_and_why(self, choices, caplog):
        choices.alone_from(4)
        loader = loader_of(Drawn())
        assert loader.statistics().chosen is None
        with caplog.at_level(logging.INFO, "penstock"):
            epoch = iter(loader)
            assert loader.statistics().chosen.workers == WORKERS == loader.statistics().workers
            list(epoch)
        chosen = loader.statistics().chosen
        assert (chosen.workers, loader.statistics().workers, loader.num_workers) == (0, 0, 0)
        assert "ms" in chosen.reason
        assert chosen.waited_s is not None
        told = [record.getMessage() for record in caplog.records if record.levelname == "INFO"]
        assert len(told) == 2
        assert f"{WORKERS} workers, since this process may use {WORKERS} processors" in told[0]
        assert "no workers, since the loop waited" in told[1]

    @pytest.mark.parametrize("workers", [0, 1])
    def test_nothing_where_a_number_was_given(self, workers):
        loader = loader_of(Drawn(), workers)
        list(loader)
        assert loader.statistics().chosen is None

    @pytest.mark.filterwarnings("ignore:This DataLoader will create")
    def test_ranks_share_the_processors(self, monkeypatch):
        monkeypatch.setattr("penstock.automatic.usable_processors", lambda: 9)
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
        assert loader_of(Drawn()).num_workers == 2
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "64")
        assert loader_of(Drawn()).num_workers == 1
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "many")
        assert loader_of(Drawn()).num_workers == 9

    @pytest.mark.filterwarnings("ignore:This DataLoader will create")
    def test_no_more_than_sixteen_at_first(self, monkeypatch):
        monkeypatch.setattr("penstock.automatic.usable_processors", lambda: 128)
        assert loader_of(Drawn()).num_workers == 16
        assert loader_of(Drawn(), worker_init_fn=print).num_workers == 16


class TestTheArgument:
    @pytest.mark.parametrize("value", ["many", "Auto", "", "4"])
    def test_another_text_is_refused(self, value):
        with pytest.raises(penstock.OptionError, match=r'num_workers=.*"auto"'):
            loader_of(Drawn(), value)
        with pytest.raises(penstock.OptionError, match=r'workers=.*"auto"'):
            penstock.iterate([1], workers=value)

    def test_another_type_is_told_of_it(self):
        with pytest.raises(penstock.OptionError, match='"auto"'):
            loader_of(Drawn(), 1.5)

    def test_goes_with_what_needs_workers(self):
        settings = {"prefetch_factor": 3, "timeout": 5, "persistent_workers": True}
        loader = loader_of(Drawn(), **settings, multiprocessing_context="fork")
        assert (loader.prefetch_factor, loader.num_workers) == (3, WORKERS)
        assert len(loader) == BATCHES

    def test_is_kept_where_a_loader_is_taken_apart(self):
        assert vars(loader_of(Drawn()))["num_workers"] == "auto"

    @pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
    def test_is_kept_by_copies(self, choices, copied):
        choices.alone_from(3)
        loader = loader_of(Drawn())
        expected = stream(loader)
        other = copied(loader)
        if isinstance(other, bytes):
            other = pickle.loads(other)
        assert (loader.num_workers, other.num_workers) == (0, WORKERS)
        other.set_epoch(0)
        assert stream(other) == expected
        assert other.num_workers == 0

    def test_may_be_taken_back_and_given_later(self, choices):
        choices.alone_from(3)
        loader = loader_of(Drawn())
        loader.num_workers = 1
        list(loader)
        assert (loader.num_workers, loader.statistics().chosen) == (1, None)
        loader.num_workers = "auto"
        list(loader)
        assert loader.num_workers == 0
        assert made_here(loader)


class TestIterate:
    @pytest.mark.parametrize("order", ["plan", "completed"])
    @pytest.mark.parametrize("point", [0, 2, 20])
    def test_gives_each_sample_once(self, choices, order, point):
        choices.alone_from(point)
        samples = penstock.iterate(Drawn(), workers="auto", order=order)
        expected = {index: value[:4] for index, value in penstock.iterate(Drawn(), workers=0)}
        found = [(index, value[:4]) for index, value in samples]
        assert dict(found) == expected
        assert len(found) == LENGTH
        assert samples.statistics().chosen is not None
        if order == "plan":
            assert [index for index, _ in found] == list(range(LENGTH))

    def test_has_workers_where_they_are_needed(self, choices):
        choices.alone_from(0)
        samples = penstock.iterate(Drawn(), workers="auto", sample_timeout=60)
        assert len(list(samples)) == LENGTH
        assert samples.statistics().workers == WORKERS


def test_beside_other_loaders(choices):
    choices.alone_from(3)
    loaders = {name: loader_of(Drawn()) for name in "ab"}
    parts: dict[str, list[Any]] = {"a": [], "b": []}
    for name, batch in penstock.concurrent(loaders):
        parts[name] += stream([batch])
    expected = stream(loader_of(Drawn(), 0))
    assert parts == {"a": expected, "b": expected}
    assert all(made_here(loader) for loader in loaders.values())
