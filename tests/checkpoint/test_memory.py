"""What a loader remembers of its epochs: the loader's part of an epoch, played by hand."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.data import DistributedSampler, RandomSampler

from penstock.checkpoint import Identity, LoaderMemory, Mark, Progress
from penstock.checkpoint.own_state import pack
from penstock.errors import StateError
from tests.checkpoint.roles import StatefulSampler

IDENTITY = Identity(
    kind="map",
    length=40,
    samples=40,
    batch_size=2,
    drop_last=False,
    sampler="RandomSampler",
    seed=None,
)


class Told:
    """Notes the epochs that it is told."""

    def __init__(self) -> None:
        self.told: list[int] = []

    def set_epoch(self, epoch: int) -> None:
        self.told.append(epoch)


class Kept(Told):
    """It has a state besides."""

    def __init__(self, at: int = 0) -> None:
        super().__init__()
        self.at = at

    def state_dict(self) -> dict[str, int]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.at = state["at"]


def memory_of(
    *samplers: Any,
    dataset: Any = None,
    generator: torch.Generator | None = None,
    **settings: Any,
) -> LoaderMemory:
    settings = {"draws": False, "redraws": True, "streams": None, **settings}
    memory = LoaderMemory(dataset, **settings)
    memory.look_at(list(samplers), generator)
    return memory


def begin(memory: LoaderMemory, draw: Callable[[], object] = lambda: None) -> Progress:
    """Begins an epoch, whose order is drawn by a function."""
    with memory.begin() as progress:
        pass
    with memory.order():
        draw()
    return progress


def begin_of(memory: LoaderMemory, draw: Callable[[], object]) -> Any:
    """The order of an epoch that begins."""
    drawn: list[object] = []
    begin(memory, lambda: drawn.append(draw()))
    return drawn[0]


def state_of(memory: LoaderMemory) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(json.dumps(memory.state(IDENTITY, [])))
    return state


# Epochs.


def test_epochs_are_counted_as_they_begin():
    memory = memory_of()
    assert (memory.epoch, memory.progress) == (0, None)
    first = begin(memory)
    assert (memory.epoch, memory.progress) == (1, first)
    assert begin(memory) is not first
    assert memory.epoch == 2


def test_between_epochs_a_state_has_no_position():
    memory = memory_of()
    assert state_of(memory)["position"] is None
    progress = begin(memory)
    assert state_of(memory)["position"]["origin"]["epoch"] == 0
    progress.finished = True
    assert (state_of(memory)["position"], state_of(memory)["epoch"]) == (None, 1)


def test_a_resumed_epoch_begins_with_what_was_handed_over():
    memory, other = memory_of(), memory_of()
    begin(memory).add([Mark(0, read=2), Mark(2, read=2)])
    other.load(state_of(memory), IDENTITY)
    progress = begin(other)
    assert (progress.passed, progress.beyond, progress.read) == (1, {2}, 4)
    assert other.epoch == 1
    begin(other)
    assert other.epoch == 2


def test_what_an_epoch_needs_is_brought_by_the_state():
    memory = memory_of(draws=True, redraws=False, streams=3)
    memory.drawn = 77, 2
    begin(memory)
    memory.drawn = 77, 3
    other = memory_of(draws=True, redraws=True, streams=8)
    other.load(state_of(memory), IDENTITY)
    with other.begin():
        # As they were when that epoch began.
        assert (other.drawn, other.redraws, other.streams) == ((77, 2), False, 3)


def test_an_epoch_that_came_to_nothing_is_still_to_be_begun():
    memory = memory_of()
    progress = begin(memory)
    progress.add([Mark(0)])
    other = memory_of()
    other.load(state_of(memory), IDENTITY)
    for _ in range(2):
        resumed = begin(other)
        assert (resumed.passed, other.epoch) == (1, 1)
        other.undo()
        assert (other.epoch, other.progress, other.drawn) == (0, None, None)
    assert state_of(other) == state_of(memory)


def test_a_state_that_is_loaded_and_not_taken_up_is_the_loaders_own():
    memory = memory_of()
    begin(memory).add([Mark(0)])
    state = state_of(memory)
    other = memory_of()
    other.load(state, IDENTITY)
    state["position"]["origin"]["epoch"] = 99
    assert state_of(other) == state_of(memory)
    # Nor is it the loader's when somebody else changes it.
    other.state(IDENTITY, [])["position"]["origin"]["epoch"] = 99
    assert state_of(other) == state_of(memory)


# Generators.


def test_an_order_is_drawn_again_from_the_loaders_generator():
    generator = torch.Generator().manual_seed(3)
    memory = memory_of(generator=generator)

    def draw() -> list[int]:
        return torch.randperm(9, generator=generator).tolist()

    begin_of(memory, draw)
    second = begin_of(memory, draw)
    state = state_of(memory)
    third = begin_of(memory, draw)
    generator.manual_seed(99)
    memory.load(state, IDENTITY)
    assert [begin_of(memory, draw), begin_of(memory, draw)] == [second, third]


def test_an_order_is_drawn_again_from_the_programs_generator_which_goes_on_undisturbed():
    def draw() -> list[int]:
        return torch.randperm(9).tolist()

    torch.manual_seed(3)
    memory = memory_of(RandomSampler(range(9)), draws=True)
    second = (begin_of(memory, draw), begin_of(memory, draw))[1]
    memory.progress.started = True  # type: ignore[union-attr]
    state = state_of(memory)
    third = begin_of(memory, draw)
    torch.manual_seed(99)
    expected = torch.rand(1)
    torch.manual_seed(99)
    other = memory_of(RandomSampler(range(9)), draws=True)
    other.load(state, IDENTITY)
    assert [begin_of(other, draw), begin_of(other, draw)] == [second, third]
    assert torch.rand(1) == expected


def test_a_seed_is_drawn_again_as_an_order_is():
    torch.manual_seed(3)
    memory = memory_of(draws=True)
    with memory.begin():
        seed = torch.rand(1)
    state = state_of(memory)
    memory.load(state, IDENTITY)
    with memory.begin():
        assert torch.rand(1) == seed


def test_a_program_that_put_its_generator_back_is_followed():
    def draw() -> list[int]:
        return torch.randperm(9).tolist()

    torch.manual_seed(3)
    memory = memory_of(RandomSampler(range(9)), draws=True)
    begin(memory, draw).started = True
    state, program = state_of(memory), torch.get_rng_state()
    torch.manual_seed(99)
    torch.set_rng_state(program)
    other = memory_of(RandomSampler(range(9)), draws=True)
    other.load(state, IDENTITY)
    begin(other, draw)
    assert torch.get_rng_state().equal(program)
    # What the training loop draws decides about the next epoch.
    torch.manual_seed(5)
    expected = draw()
    torch.manual_seed(5)
    assert begin_of(other, draw) == expected


def test_a_loader_says_whether_its_order_has_to_be_drawn_at_once():
    memory = memory_of(RandomSampler(range(9)), draws=True)
    with memory.begin():
        pass
    with memory.order() as lent:
        assert lent is False
    memory.progress.started = True  # type: ignore[union-attr]
    state = state_of(memory)
    torch.rand(1)
    memory.load(state, IDENTITY)
    with memory.begin():
        pass
    with memory.order() as lent:
        assert lent is True


# Samplers and datasets.


def test_a_sampler_with_a_state_is_put_back_to_where_the_epoch_began():
    sampler = StatefulSampler()
    memory = memory_of(sampler)
    begin(memory)
    for _ in zip(range(3), sampler):  # noqa: B905 - as many as are asked for
        pass
    state = state_of(memory)
    sampler.given, sampler.round = 30, 8
    memory.load(state, IDENTITY)
    begin(memory)
    assert (sampler.given, sampler.round) == (0, 0)


def test_a_sampler_goes_on_from_the_batch_whose_state_was_kept_last():
    sampler = StatefulSampler()
    memory = memory_of(sampler)
    assert memory.sampler_snapshot is not None
    progress = begin(memory)
    assert memory.resume_sampler() == 0
    sampler.given = 6
    progress.add([Mark(0), Mark(1), Mark(2, sampler=memory.sampler_snapshot()), Mark(3)])
    other = memory_of(again := StatefulSampler())
    other.load(state_of(memory), IDENTITY)
    begin(other)
    assert again.given == 0
    assert other.resume_sampler() == 3
    assert again.given == 6


def test_a_sampler_of_ranks_is_put_back_to_its_epoch_as_soon_as_the_state_is_loaded():
    sampler = DistributedSampler(range(9), 2, 1)  # type: ignore[arg-type]
    memory = memory_of(sampler)
    # By the program, past the loader.
    sampler.set_epoch(7)
    begin(memory)
    state = state_of(memory)
    sampler.set_epoch(0)
    memory.load(state, IDENTITY)
    assert (sampler.epoch, memory.told) == (7, None)


def test_a_dataset_is_put_back_to_where_the_epoch_began():
    dataset = Kept(at=4)
    memory = memory_of(dataset=dataset)
    begin(memory)
    dataset.at = 9
    state = state_of(memory)
    assert (state["position"]["origin"]["dataset"], state["dataset"]) == ({"at": 4}, {"at": 9})
    dataset.at = 50
    memory.load(state, IDENTITY)
    assert dataset.at == 50
    begin(memory)
    assert dataset.at == 4


def test_a_dataset_that_can_tell_only_while_it_is_iterated_has_nothing_to_keep():
    class Shy(Kept):
        def state_dict(self) -> dict[str, int]:
            raise RuntimeError("not now")

    dataset = Shy(at=4)
    memory = memory_of(dataset=dataset)
    state = state_of(memory)
    assert state["dataset"] is None
    memory.load(state, IDENTITY)
    begin(memory)
    assert dataset.at == 4


def test_nobody_is_asked_where_no_state_is_wanted():
    asked: list[object] = []

    class Asked(Kept):
        def state_dict(self) -> dict[str, int]:
            asked.append(self)
            return super().state_dict()

    memory = memory_of(Asked(), dataset=Asked(), keeps=False)
    begin(memory)
    assert memory.sampler_snapshot is None
    assert (state_of(memory)["sampler"], state_of(memory)["dataset"]) == ({"epochs": []}, None)
    assert asked == []


def test_the_first_sampler_with_a_state_is_the_one_that_is_kept():
    outer, inner = Told(), Kept(at=3)
    memory = LoaderMemory(None, draws=False, redraws=True, streams=None)
    memory.look_at([outer, inner], None)
    begin(memory)
    assert state_of(memory)["sampler"] == {"epochs": [], "state": {"at": 3}}


# The epoch that is chosen.


def test_all_are_told_the_epoch_that_is_chosen():
    sampler, dataset = Told(), Told()
    memory = memory_of(sampler, dataset=dataset)
    assert memory.choose(6) is None
    assert (sampler.told, dataset.told) == ([6], [6])
    assert (memory.epoch, memory.told) == (6, 6)


def test_to_choose_the_epoch_of_a_loaded_state_keeps_its_place():
    memory = memory_of()
    begin(memory)
    begin(memory).add([Mark(0)])
    other = memory_of()
    other.load(state_of(memory), IDENTITY)
    assert other.choose(1) is None
    assert begin(other).passed == 1


def test_to_choose_another_gives_that_place_up_and_says_so():
    memory = memory_of()
    begin(memory)
    begin(memory).add([Mark(0)])
    other = memory_of()
    other.load(state_of(memory), IDENTITY)
    assert other.choose(4) == 1
    assert state_of(other)["epoch"] == 4
    assert begin(other).passed == 0
    assert other.epoch == 5


def test_a_loaded_state_tells_its_epoch_if_one_was_told():
    for chosen in (None, 6):
        memory = memory_of()
        if chosen is not None:
            memory.choose(chosen)
        begin(memory)
        sampler, dataset = Told(), Told()
        memory_of(sampler, dataset=dataset).load(state_of(memory), IDENTITY)
        assert sampler.told == dataset.told == ([] if chosen is None else [6])


# What is refused, and what is copied.


def test_a_state_that_is_refused_changes_nothing():
    generator = torch.Generator().manual_seed(3)
    memory = memory_of(dataset=Kept(at=2), generator=generator)
    begin(memory)
    memory.choose(4)
    before = state_of(memory)
    for state in ({}, {**before, "penstock": 9}, state_of(memory_of())):
        with pytest.raises(StateError):
            memory.load(state, IDENTITY)
        assert state_of(memory) == before


def test_a_copy_begins_where_the_original_was_with_a_loaded_state_of_its_own():
    memory = memory_of()
    begin(memory).add([Mark(0, sampler=pack({"at": 1}))])
    memory.choose(3)
    original = memory_of()
    original.load(state_of(memory), IDENTITY)
    copied = memory_of()
    copied.take_over(original.copied())
    assert state_of(copied) == state_of(original)
    original.choose(8)
    assert state_of(copied)["epoch"] != 8
    fresh = memory_of()
    fresh.take_over(memory.copied())
    assert (fresh.epoch, fresh.told, fresh.progress) == (3, 3, None)


def test_nothing_draws_from_the_programs_generators_that_need_not():
    memory = memory_of(RandomSampler(range(9), generator=torch.Generator()))
    before = random.getstate(), torch.get_rng_state().tolist()
    begin(memory)
    memory.load(state_of(memory), IDENTITY)
    begin(memory)
    assert (random.getstate(), torch.get_rng_state().tolist()) == before
    assert state_of(memory)["random"]["program"] == {}
