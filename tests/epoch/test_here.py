"""Batches of the training process: the same as workers', the same errors, and the same state."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset, Sampler

import penstock


class Squares(Dataset[Any]):
    """Samples of numbers; some are bad."""

    def __init__(self, bad: dict[int, Any] | None = None) -> None:
        self.bad = bad or {}

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> Any:
        bad = self.bad.get(index, index * index)
        if isinstance(bad, Exception):
            raise bad
        return bad


class Pairs(Squares):
    def __getitem__(self, index: int) -> Any:
        square = super().__getitem__(index)
        return None if square is None else (square, torch.full((2,), float(index)))


class Augmented(Squares):
    """Draws random numbers, for which samples are made with more ado."""

    def __getitem__(self, index: int) -> Any:
        square = super().__getitem__(index)
        return None if square is None else (square, torch.rand(2))


class Texts(Squares):
    """Which may stand beside None in a list, to torch's function."""

    def __getitem__(self, index: int) -> Any:
        square = super().__getitem__(index)
        return None if square is None else str(square)


class Ending(Sampler[int]):
    """Raises midway; who asks it on, or anew, is told."""

    def __init__(self) -> None:
        self.begun = 0

    def __iter__(self) -> Iterator[int]:
        self.begun += 1
        yield from range(8)
        raise ValueError("no more")


def told(loader: Any) -> list[Any]:
    """Batches and errors, in their order."""
    found: list[Any] = []
    batches = iter(loader)
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return found
        except Exception as error:
            found.append((type(error), str(error).partition("\nTraceback")[0]))
        else:
            parts = batch if isinstance(batch, list) else [batch]
            found.append([part if isinstance(part, str) else part.tolist() for part in parts])


BAD = {
    "nothing": {},
    "an error": {9: ValueError("this one")},
    "none": {9: None},
    "none, then an error": {9: None, 10: ValueError("later")},
    "an error, then none": {9: ValueError("this one"), 10: None},
    "none in the first place": {8: None},
    "text": {9: "nine"},
    "the end of something": {9: StopIteration("nine")},
    "two in a row": {9: ValueError("this one"), 13: KeyError("that one")},
}


@pytest.mark.parametrize("dataset", [Squares, Pairs, Augmented, Texts])
@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_batches_and_errors_are_those_of_a_worker(dataset, bad):
    kept = {"batch_size": 4, "shuffle": True, "seed": 2}
    here = told(penstock.DataLoader(dataset(bad), **kept))
    there = told(penstock.DataLoader(dataset(bad), num_workers=1, **kept))
    assert [_without_place(each) for each in here] == [_without_place(each) for each in there]


def _without_place(found: Any) -> Any:
    if not isinstance(found, tuple):
        return found
    return found[0], found[1].replace("the training process", "a worker").splitlines()[-1]


def test_an_error_of_the_sampler_comes_behind_its_batches_and_is_the_last_word():
    sampler = Ending()
    loader = penstock.DataLoader(Squares(), 4, sampler=sampler)
    batches = iter(loader)
    assert [next(batches).tolist() for _ in range(2)] == [[0, 1, 4, 9], [16, 25, 36, 49]]
    with pytest.raises(ValueError, match="no more"):
        next(batches)
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(batches)
    assert sampler.begun == 1


def test_behind_an_error_the_state_goes_on_with_the_next_batch():
    loader = penstock.DataLoader(Squares({5: ValueError("this one")}), 4)
    batches = iter(loader)
    next(batches)
    with pytest.raises(ValueError, match="this one"):
        next(batches)
    state = loader.state_dict()
    expected = [batch.tolist() for batch in batches]
    other = penstock.DataLoader(Squares(), 4)
    other.load_state_dict(state)
    assert [batch.tolist() for batch in other] == expected
    assert loader.statistics().batches == 1 + len(expected)


def test_batches_that_were_handed_over_out_of_turn_do_not_come_again():
    many = penstock.DataLoader(Squares(), 2, num_workers=2, in_order=False)
    batches = iter(many)
    had = [next(batches).tolist() for _ in range(5)]
    state = many.state_dict()
    batches.close()
    alone = penstock.DataLoader(Squares(), 2, in_order=False)
    alone.load_state_dict(state)
    rest = [batch.tolist() for batch in alone]
    assert sorted(had + rest) == [[n * n, (n + 1) ** 2] for n in range(0, 24, 2)]


def test_a_look_ahead_makes_one_batch_and_hands_it_over_once():
    loader = penstock.DataLoader(Squares(), 4)
    batches = iter(loader)
    assert batches.ready()
    assert batches.ready()
    assert loader.statistics().batches == 0
    state = loader.state_dict()
    assert [batch.tolist() for batch in batches] == [
        batch.tolist() for batch in penstock.DataLoader(Squares(), 4)
    ]
    assert batches.ready()
    other = penstock.DataLoader(Squares(), 4)
    other.load_state_dict(state)
    assert next(iter(other)).tolist() == [0, 1, 4, 9]


def test_a_look_ahead_keeps_an_error_for_its_turn():
    batches = iter(penstock.DataLoader(Squares({0: ValueError("this one")}), 4))
    assert batches.look_ahead()
    with pytest.raises(ValueError, match="this one"):
        next(batches)
    assert next(batches).tolist() == [16, 25, 36, 49]


@pytest.mark.parametrize("dataset", [Squares, Pairs])
def test_an_empty_batch_is_the_same_error_as_with_torch(dataset):
    settings = {"batch_sampler": [[0], [], [1]]}
    here = told(penstock.DataLoader(dataset(), **settings))
    torchs = told(torch.utils.data.DataLoader(dataset(), **settings))
    assert here[0] == torchs[0]
    assert here[1][0] is torchs[1][0] is IndexError
    assert len(here) == 3


def test_what_the_function_for_batches_raises_takes_that_batch_alone():
    def refuse(samples: list[int]) -> int:
        if 16 in samples:
            raise RuntimeError("not this one")
        return sum(samples)

    batches = iter(penstock.DataLoader(Squares(), 4, collate_fn=refuse))
    assert next(batches) == 14
    with pytest.raises(RuntimeError, match="not this one"):
        next(batches)
    assert next(batches) == 64 + 81 + 100 + 121


class Counting(Squares):
    """Tells how many samples it has made."""

    made = 0

    def __getitem__(self, index: int) -> Any:
        self.made += 1
        return None if index == 5 else self.made

    def state_dict(self) -> dict[str, int]:
        return {"made": self.made}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.made = state["made"]


def test_where_a_dataset_tells_its_state_nothing_is_made_behind_a_none():
    here = told(penstock.DataLoader(Counting(), 4))
    there = told(penstock.DataLoader(Counting(), 4, num_workers=1))
    assert here[2] == there[2] == [[7, 8, 9, 10]]
