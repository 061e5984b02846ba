"""The rest of the epoch and the epochs after it, wherever the state was saved."""

from __future__ import annotations

import copy
import multiprocessing
from typing import Any

import pytest
import torch

import penstock
from tests.checkpoint.roles import (
    Dice,
    Loader,
    StatefulStream,
    Stream,
    course_of,
    loader_of,
    persistent,
    persistent_stream,
    plain,
    resumed,
    saved,
    seed_everything,
    seeded,
    shuffled,
    skipping,
    state_at,
    stateful_stream,
    streamed,
    undisturbed,
    with_generator,
)

pytestmark = [
    pytest.mark.usefixtures("no_leaks"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
]


@pytest.mark.parametrize(
    ("make", "resumes"),
    [(shuffled, persistent), (streamed, persistent_stream)],
    ids=["map-style", "iterable"],
)
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_each_step_of_an_epoch_is_resumed_bit_for_bit_with_any_number_of_workers(
    make, resumes, workers
):
    # Those that resume keep their workers for the epoch after it: that is half of the processes.
    # In `test_kinds.py` both epochs have workers of their own.
    course = course_of(make, workers)
    assert len(course.epoch) >= 20
    assert len(course.states) == len(course.epoch) + 1
    for step, state in enumerate(course.states):
        for others in (0, 2, 4):
            expected = [course.epoch[step:], course.after]
            assert resumed(resumes, others, state) == expected, (step, others)


def test_a_stream_resumes_under_every_start_method(start_method):
    def make(workers: int) -> Loader:
        context = start_method if workers else None
        settings = {"multiprocessing_context": context, "persistent_workers": workers > 0}
        return loader_of(StatefulStream(), workers, **settings)

    course = course_of(stateful_stream, 2)
    loader = make(2)
    loader.load_state_dict(course.states[7])
    iterator = iter(loader)
    assert plain(next(iterator) for _ in range(4)) == course.epoch[7:11]
    again = saved(loader)
    del iterator, loader
    # One worker reads two streams, each from a copy of the dataset.
    for others in (1, 0):
        assert resumed(make, others, again) == [course.epoch[11:], course.after]


def test_persistent_workers_either_way():
    for made, resumes in ((persistent, shuffled), (shuffled, persistent)):
        course = course_of(made, 2)
        assert resumed(resumes, 2, course.states[4]) == [course.epoch[4:], course.after]


def test_a_state_is_resumed_and_saved_and_resumed_again():
    for make in (shuffled, streamed, skipping):
        course = course_of(make, 2)
        state = course.states[4]
        seed_everything(8)
        loader = make(3)
        loader.load_state_dict(state)
        assert loader.state_dict() == state
        iterator = iter(loader)
        some = plain(next(iterator) for _ in range(5))
        assert some == course.epoch[4:9]
        again = saved(loader)
        del iterator
        assert resumed(make, 1, again) == [course.epoch[9:], course.after]


@pytest.mark.parametrize("make", [shuffled, with_generator, streamed, persistent])
def test_a_state_before_the_first_batch_and_between_epochs(make):
    epochs = undisturbed(make, 2, epochs=4)
    seed_everything(5)
    loader = make(2)
    fresh = loader.state_dict()
    list(loader)
    list(loader)
    between = loader.state_dict()
    assert resumed(make, 3, fresh) == epochs[:2]
    assert resumed(make, 0, between) == epochs[2:]


def test_a_state_from_inside_the_break_goes_on_behind_the_last_batch():
    _, epoch, after = undisturbed(shuffled, 2)
    seed_everything(5)
    loader = shuffled(2)
    list(loader)
    for number, _ in enumerate(loader):
        if number == 6:
            break
    assert resumed(shuffled, 2, loader.state_dict()) == [epoch[7:], after]


def test_a_program_that_puts_its_generator_back_is_followed():
    """Then what the training loop draws itself decides about the next epochs, as it did."""

    def train(state: Any = None, generator: Any = None, stop: Any = None) -> Any:
        seed_everything(5 if state is None else 77)
        loader = shuffled(2)
        if state is not None:
            torch.set_rng_state(generator)
            loader.load_state_dict(state)
        steps = []
        for epoch in range(3 if state is None else 2):
            for number, batch in enumerate(loader):
                steps.append((batch.tolist(), torch.rand(1).item()))
                if stop == (epoch, number):
                    return steps, loader.state_dict(), torch.get_rng_state()
        return steps

    before, state, generator = train(stop=(1, 4))
    assert before + train(state, generator) == train()


def test_the_programs_generator_is_left_alone():
    state = state_at(shuffled, 0, 3)
    seed_everything(6)
    expected = torch.rand(3).tolist()
    seed_everything(6)
    loader = shuffled(0)
    loader.load_state_dict(state)
    list(loader)
    assert torch.rand(3).tolist() == expected


def test_nothing_that_was_passed_is_read_again():
    state = state_at(shuffled, 0, 15)
    loader = shuffled(0)
    loader.load_state_dict(state)
    rest = plain(loader)
    assert len(loader.dataset.read) == 10  # type: ignore[attr-defined]
    assert sorted(loader.dataset.read) == sorted(int(row[0]) for batch in rest for row in batch)  # type: ignore[attr-defined]


class Counted(Dice):
    """Samples that say how many this copy of the dataset has made."""

    def __getitem__(self, index: int) -> torch.Tensor:
        super().__getitem__(index)
        return torch.tensor([index, len(self.read)])


def test_persistent_workers_that_went_on_meanwhile_take_up_a_loaded_state_anew():
    def make() -> Loader:
        return loader_of(Counted(12), 1, persistent_workers=True)

    loader = make()
    state = loader.state_dict()
    first = plain(loader)
    assert plain(loader) != first
    pids = {child.pid for child in multiprocessing.active_children()}
    iterator = iter(loader)
    next(iterator)
    loader.load_state_dict(state)
    assert plain(loader) == first
    assert pids.isdisjoint(child.pid for child in multiprocessing.active_children())


def test_workers_that_cannot_be_started_leave_the_epoch_to_be_begun():
    dataset = Dice()
    dataset.lines = (line for line in "abc")  # type: ignore[attr-defined]
    settings = {"shuffle": True, "seed": 1, "multiprocessing_context": "forkserver"}
    loader = loader_of(dataset, 1, **settings)
    with pytest.raises(penstock.errors.SerializationError):
        iter(loader)
    state = loader.state_dict()
    assert (state["epoch"], state["position"]) == (0, None)
    del dataset.lines  # type: ignore[attr-defined]
    assert plain(loader) == plain(loader_of(Dice(), 0, shuffle=True, seed=1))


def test_a_copy_of_a_loader_begins_at_the_same_epoch():
    epochs = undisturbed(seeded, 0)
    loader = seeded(0)
    list(loader)
    assert plain(copy.deepcopy(loader)) == epochs[1]


def test_a_copy_of_a_loader_that_a_state_was_loaded_into_takes_it_up_too():
    _, epoch, _ = undisturbed(seeded, 0)
    loader = seeded(0)
    loader.load_state_dict(state_at(seeded, 0, 5))
    assert plain(copy.deepcopy(loader)) == plain(loader) == epoch[5:]


@pytest.mark.parametrize("workers", [0, 2])
def test_out_of_order_each_sample_of_a_stream_comes_once_over_a_resume(workers):
    def make(count: int) -> Loader:
        # A window that takes all of it: the end of a stream is known before its last batches go.
        far = {"prefetch_factor": 20, "in_order": False} if count else {}
        return loader_of(Stream(), count, **far)

    for step in range(1, 12):
        first = make(3)
        iterator = iter(first)
        came = [next(iterator) for _ in range(step)]
        state = saved(first)
        del iterator
        other = make(workers)
        other.load_state_dict(state)
        came += list(other)
        numbers = sorted(int(number) for batch in came for number in batch[:, 0])
        assert numbers == list(range(40)), step
