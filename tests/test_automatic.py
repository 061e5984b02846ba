"""`num_workers="auto"`: how many workers a loader begins with, and what it goes on with."""

from __future__ import annotations

import copy
import logging
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, default_collate
from torch.utils.data.datapipes.iter import IterableWrapper

import penstock
from penstock.automatic import Choice
from penstock.observe import Statistics

BEGUN = Choice(8, "this process may use 8 processors", 8)
EPOCH = Statistics(batches=100, workers=8, looped_s=10.0, first_wait_s=0.5)


class Quick(Dataset[tuple[torch.Tensor, int]]):
    """Samples that take next to no time."""

    def __len__(self) -> int:
        return 160

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.rand(3) + index, index


class Stateful(Quick):
    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class Numbers(IterableDataset[int]):
    def __iter__(self) -> Any:
        return iter(range(40))


class TestReview:
    def test_nothing_is_concluded_of_a_few_batches(self):
        seen = replace(EPOCH, batches=7, waited_s=9.0, busy_s=0.1)
        assert BEGUN.reviewed(seen, persistent=False) == BEGUN

    def test_nor_of_an_epoch_that_had_other_workers(self):
        seen = replace(EPOCH, workers=2, waited_s=9.0, busy_s=0.1)
        assert BEGUN.reviewed(seen, persistent=False) == BEGUN

    def test_where_batches_take_less_than_the_wait_for_them_there_are_none(self):
        choice = BEGUN.reviewed(replace(EPOCH, waited_s=5.0, busy_s=2.0), persistent=False)
        assert (choice.workers, choice.is_final) == (0, True)
        assert (
            "waited 50 ms for a batch that would take the training process about 15 ms"
            in choice.reason
        )

    def test_a_worker_is_slower_than_the_training_process_where_they_share_processors(self):
        assert (
            BEGUN.reviewed(replace(EPOCH, waited_s=4.0, busy_s=5.0), persistent=False).workers == 0
        )
        assert (
            BEGUN.reviewed(replace(EPOCH, waited_s=4.0, busy_s=6.0), persistent=False).workers > 0
        )

    def test_the_start_of_workers_that_live_on_is_not_counted(self):
        seen = replace(EPOCH, waited_s=0.6, busy_s=0.5)
        assert BEGUN.reviewed(seen, persistent=False).workers == 0
        assert BEGUN.reviewed(seen, persistent=True).workers > 0

    def test_nor_is_what_the_program_did_before_its_loop(self):
        seen = replace(EPOCH, elapsed_s=99.0, waited_s=0.6, busy_s=45.0)
        assert BEGUN.reviewed(seen, persistent=True) == BEGUN

    def test_samples_that_ended_a_worker_are_not_made_in_the_training_process(self):
        certificate: Any = object()
        seen = replace(EPOCH, waited_s=5.0, busy_s=2.0, deaths=(certificate,))
        choice = BEGUN.reviewed(seen, persistent=False)
        assert choice.workers == 8
        again = choice.reviewed(replace(seen, deaths=()), persistent=False)
        assert again.workers == 8, "not later either"
        assert choice.reviewed(replace(EPOCH, busy_s=0.1), persistent=False).workers == 1

    def test_idle_workers_are_not_kept(self):
        choice = BEGUN.reviewed(replace(EPOCH, waited_s=0.1, busy_s=11.0), persistent=False)
        assert choice.workers == 3
        assert not choice.is_final
        assert choice.reason == "1.1 of 8 were busy on average, and the loop did not wait"

    def test_one_is_kept_at_least(self):
        assert (
            BEGUN.reviewed(replace(EPOCH, waited_s=0.0, busy_s=0.0), persistent=False).workers == 1
        )

    def test_busy_workers_are_kept(self):
        assert BEGUN.reviewed(replace(EPOCH, waited_s=0.1, busy_s=45.0), persistent=False) == BEGUN

    def test_where_fewer_do_not_suffice_all_come_back_and_stay(self):
        fewer = replace(BEGUN, workers=3)
        seen = replace(EPOCH, workers=3, waited_s=1.0, busy_s=25.0)
        choice = fewer.reviewed(seen, persistent=False)
        assert (choice.workers, choice.is_final) == (8, True)
        assert choice.reason == "with 3 the loop waited for 10% of its time"
        idle = replace(EPOCH, waited_s=0.1, busy_s=1.0)
        assert choice.reviewed(idle, persistent=False) == choice

    def test_a_loop_that_waits_for_all_of_them_keeps_all_of_them(self):
        assert BEGUN.reviewed(replace(EPOCH, waited_s=4.0, busy_s=70.0), persistent=False) == BEGUN


@pytest.fixture
def processors(monkeypatch):
    def have(count: int) -> None:
        told = count, f"this process may use {count} processors"
        monkeypatch.setattr("penstock.automatic.processors_of_rank", lambda: told)

    have(2)
    return have


@pytest.fixture
def script(monkeypatch):
    """Has choices answer from a list, whatever an epoch has cost; the last one is repeated."""
    answers: list[int] = []

    def answer(choice: Choice, seen: Statistics, *, persistent: bool) -> Choice:
        workers = answers.pop(0) if len(answers) > 1 else answers[0]
        return Choice(workers, "a test says so", 3)

    monkeypatch.setattr(Choice, "reviewed", answer)
    return answers


def values(loader: penstock.DataLoader[Any]) -> list[Any]:
    return [[part.tolist() for part in batch] for batch in loader]


def workers_of_this() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "resource_tracker" not in str(child)]


pytestmark = [
    pytest.mark.usefixtures("processors"),
    # There may be fewer processors than workers here.
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
]


def test_it_begins_with_one_worker_for_each_processor(processors, caplog):
    caplog.set_level(logging.INFO, "penstock")
    processors(3)
    loader = penstock.DataLoader(Quick(), 8, num_workers="auto")
    assert loader.num_workers == vars(loader)["num_workers"] == 3
    assert loader.prefetch_factor == 2
    told = "3 workers, since this process may use 3 processors"
    assert loader.statistics().choice == told
    assert [record.getMessage() for record in caplog.records] == [f'num_workers="auto": {told}']


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("counts", [[0], [1, 2, 0], [2, 1, 2]], ids=str)
def test_epochs_are_the_same_whatever_is_chosen(script, counts, persistent):
    script += counts
    plain = penstock.DataLoader(Quick(), 8, shuffle=True, seed=3)
    loader = penstock.DataLoader(
        Quick(), 8, shuffle=True, seed=3, num_workers="auto", persistent_workers=persistent
    )
    for count in [2, *counts, counts[-1]]:
        assert values(loader) == values(plain)
        assert loader.num_workers == loader.statistics().workers == count


def test_it_goes_by_what_an_epoch_has_cost(monkeypatch, caplog):
    caplog.set_level(logging.INFO, "penstock")
    loader = penstock.DataLoader(Quick(), 8, num_workers="auto")
    values(loader)
    seen = replace(loader.statistics(), waited_s=2.0, busy_s=1.0, first_wait_s=0.1)
    monkeypatch.setattr(loader, "statistics", lambda: seen)
    values(loader)
    assert loader.num_workers == 0
    assert str(loader._choice).startswith("no workers, since the loop waited 100 ms for a batch")
    assert len(caplog.records) == 2
    values(loader)
    assert len(caplog.records) == 2


class Opening(Quick):
    """Opens its file when it is first read, and goes to and fro in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file: Any = None

    def __getitem__(self, index: int) -> int:
        if self.file is None:
            self.file = self.path.open("rb")
        self.file.seek(index)
        return self.file.read(1)[0]


@pytest.mark.parametrize("persistent", [False, True])
def test_a_file_that_is_kept_open_is_not_opened_in_the_training_process(
    script, tmp_path, persistent
):
    script += [0]
    path = tmp_path / "numbers"
    path.write_bytes(bytes(range(160)))
    dataset = Opening(path)
    loader = penstock.DataLoader(
        dataset,
        8,
        num_workers="auto",
        persistent_workers=persistent,
        multiprocessing_context="fork",
    )
    for _ in range(3):
        assert [number for batch in loader for number in batch.tolist()] == list(range(160))
        assert loader.num_workers == 2
    assert dataset.file is None
    assert loader.statistics().choice.endswith("for files that the dataset keeps open")


def test_a_loop_that_is_not_done_keeps_its_workers(script):
    script += [2, 0]
    loader = penstock.DataLoader(Quick(), 8, num_workers="auto")
    values(loader)
    first = iter(loader)
    next(first)
    second = iter(loader)
    assert loader.num_workers == 2
    first.close()
    second.close()
    iter(loader).close()
    assert loader.num_workers == 0


def test_samples_that_are_known_to_kill_keep_a_worker(monkeypatch):
    loader = penstock.DataLoader(Quick(), 8, num_workers="auto", on_error="skip", max_skipped=None)
    values(loader)
    loader._quarantine[3] = object()
    monkeypatch.setattr(penstock.DataLoader, "statistics", lambda _: replace(EPOCH, workers=2))
    loader._review_choice()
    assert loader._choice.least == 1


def test_a_state_is_taken_up_with_another_number(script):
    script += [1]
    settings = {"batch_size": 8, "shuffle": True, "seed": 3, "num_workers": "auto"}
    loader = penstock.DataLoader(Quick(), **settings)
    values(loader)
    batches = iter(loader)
    for _ in range(3):
        next(batches)
    state = loader.state_dict()
    rest = [[part.tolist() for part in batch] for batch in batches]
    other = penstock.DataLoader(Quick(), **settings)
    other.load_state_dict(state)
    assert values(other) == rest
    assert (loader.num_workers, other.num_workers) == (1, 2)


def test_workers_that_lived_on_are_ended(script):
    script += [0]
    before = workers_of_this()
    loader = penstock.DataLoader(
        Quick(), 8, num_workers="auto", persistent_workers=True, multiprocessing_context="fork"
    )
    values(loader)
    assert len(workers_of_this()) == len(before) + 2
    values(loader)
    assert workers_of_this() == before


def test_fewer_workers_take_the_place_of_more(script, processors):
    script += [1]
    processors(3)
    before = workers_of_this()
    loader = penstock.DataLoader(
        Quick(), 8, num_workers="auto", persistent_workers=True, multiprocessing_context="fork"
    )
    values(loader)
    assert len(workers_of_this()) == len(before) + 3
    values(loader)
    assert len(workers_of_this()) == len(before) + 1


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_number_that_is_set_counts(script, count):
    script += [3]
    loader = penstock.DataLoader(Quick(), 8, num_workers="auto")
    loader.num_workers = count
    for _ in range(2):
        values(loader)
        assert loader.num_workers == loader.statistics().workers == count
        assert loader.statistics().choice == ""


def test_it_may_be_set_later():
    loader = penstock.DataLoader(Quick(), 8, num_workers=1)
    values(loader)
    loader.num_workers = "auto"
    assert loader.num_workers == 2
    values(loader)
    assert loader.statistics().workers == 2
    with pytest.raises(penstock.OptionError, match="num_workers='Auto'"):
        loader.num_workers = "Auto"


@pytest.mark.parametrize(
    "settings",
    [
        {"collate_fn": list},
        {"batch_size": None},
        {"timeout": 600},
        {"sample_timeout": 600.0},
        {"memory_budget": 1 << 28},
        {"worker_init_fn": print},
        {"shuffle": True, "generator": torch.Generator()},
        {"dataset": Stateful()},
        {"sampler": list(range(40))},
        {"batch_sampler": [[1, 2], [3]], "batch_size": 1},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_what_would_not_be_the_same_without_workers_keeps_them(script, settings):
    script += [0]
    settings = {"dataset": Quick(), "batch_size": 8, **settings}
    loader = penstock.DataLoader(num_workers="auto", **settings)
    for _ in range(2):
        for _ in loader:
            pass
    assert loader.num_workers == 2
    assert "it stays so for" in loader.statistics().choice


def test_what_is_set_later_binds_as_well(script):
    script += [0]
    loader = penstock.DataLoader(Quick(), 8, num_workers="auto")
    values(loader)
    loader.sample_timeout = 600.0
    values(loader)
    assert loader.num_workers == 2
    assert loader.statistics().choice.endswith("it stays so for sample_timeout")


def test_the_default_function_that_is_given_is_the_default(script):
    script += [0]
    loader = penstock.DataLoader(Quick(), 8, num_workers="auto", collate_fn=default_collate)
    values(loader)
    values(loader)
    assert loader.num_workers == 0


def test_what_a_stream_gives_does_not_depend_on_the_machine(processors):
    processors(3)
    loader = penstock.DataLoader(Numbers(), 8, num_workers="auto")
    for _ in range(2):
        assert [number for batch in loader for number in batch.tolist()] == list(range(40))
        assert loader.num_workers == 1


def test_a_pipe_is_refused_as_with_any_number():
    with pytest.raises(penstock.OptionError, match="give num_workers=0"):
        penstock.DataLoader(IterableWrapper([1]), num_workers="auto")


@pytest.mark.parametrize("copied", [copy.copy, lambda it: pickle.loads(pickle.dumps(it))])
def test_a_copy_chooses_for_itself(script, copied):
    script += [0]
    loader = penstock.DataLoader(Quick(), 8, num_workers="auto", persistent_workers=True)
    values(loader)
    other = copied(loader)
    values(loader)
    values(other)
    assert (loader.num_workers, other.num_workers) == (0, 2)
    values(other)
    assert other.statistics().choice == "no workers, since a test says so"


@pytest.mark.parametrize("counts", [[1], [0]], ids=str)
def test_a_loader_that_is_made_again_of_its_attributes_goes_on_choosing(script, counts):
    script += counts
    loader = penstock.DataLoader(Quick(), 8, num_workers="auto", persistent_workers=True)
    values(loader)
    values(loader)
    taken = ("batch_sampler", "num_workers", "prefetch_factor", "persistent_workers")
    made = loader._make_again(loader.dataset, **{name: getattr(loader, name) for name in taken})
    assert made.num_workers == counts[-1]
    assert made.statistics().choice.endswith("since a test says so")
    assert len(values(made)) == len(loader)


@pytest.mark.parametrize("text", ["Auto", "4", ""])
def test_another_text_is_refused(text):
    with pytest.raises(penstock.OptionError, match='give an int, or "auto" to have it chosen'):
        penstock.DataLoader(Quick(), num_workers=text)
    with pytest.raises(penstock.OptionError, match='give an int, or "auto" to have it chosen'):
        penstock.iterate(Quick(), workers=text)


def test_a_pool_has_one_for_each_processor(monkeypatch):
    monkeypatch.setattr("penstock.pool.processors_of_rank", lambda: (3, "so it is"))
    with penstock.iterate(Quick(), workers="auto") as samples:
        assert sorted(sample.index for sample in samples) == list(range(160))
        assert samples.statistics().workers == 3
