"""States of torchdata's StatefulDataLoader, and what its loader and Penstock's have in common."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from torch.utils.data import IterableDataset

from penstock import DataLoader
from penstock.errors import StateError
from tests.ecosystem.samples import Numbers, Stream

# Said by torchdata's loader of torch.
pytestmark = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")

stateful_dataloader = pytest.importorskip(
    "torchdata.stateful_dataloader", reason="needs the extra 'ecosystem'"
)
StatefulDataLoader = stateful_dataloader.StatefulDataLoader

DATASETS = {"map": Numbers, "iterable": Stream}


def advanced(loader: Any, batches: int | None) -> Any:
    """The loader, and its iterator behind so many batches; None: before it was ever iterated."""
    if batches is None:
        return loader, None
    iterator = iter(loader)
    for _ in range(batches):
        if next(iterator, None) is None:
            break
    return loader, iterator


@pytest.mark.parametrize("kind", ["map", "iterable"])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batches", [None, 0, 2, 99], ids=["new", "begun", "within", "end"])
def test_a_state_of_torchdatas_loader_is_refused_by_its_name(
    kind: str, workers: int, batches: int | None
) -> None:
    theirs = StatefulDataLoader(DATASETS[kind](), batch_size=4, num_workers=workers)
    theirs, _iterator = advanced(theirs, batches)
    state = theirs.state_dict()
    ours = DataLoader(DATASETS[kind](), batch_size=4, num_workers=workers)
    with pytest.raises(StateError, match=r"torchdata's StatefulDataLoader"):
        ours.load_state_dict(state)
    assert len(list(ours)) == 12


@pytest.mark.parametrize("kind", ["map", "iterable"])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batches", [0, 5, 12, 99])
def test_a_loader_goes_on_where_torchdatas_would(kind: str, workers: int, batches: int) -> None:
    rests = []
    for loader_class in (StatefulDataLoader, DataLoader):

        def make(loader_class: Any = loader_class) -> Any:
            return loader_class(DATASETS[kind](), batch_size=4, num_workers=workers)

        loader, _iterator = advanced(make(), batches)
        state = copy.deepcopy(loader.state_dict())
        again = make()
        again.load_state_dict(state)
        rests.append([[_ids(batch) for batch in again] for _ in range(2)])
    assert rests[1] == rests[0]


def _ids(batch: Any) -> list[int]:
    ids: list[int] = (batch[0] if isinstance(batch, list) else batch).tolist()
    return ids


class Counting(IterableDataset[int]):
    """Its iterator tells its own state; it counts what is read."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __iter__(self) -> Count:
        return Count(self.size)


class Count:
    def __init__(self, size: int) -> None:
        self.size = size
        self.at = 0
        self.read = 0

    def __iter__(self) -> Count:
        return self

    def __next__(self) -> tuple[int, int]:
        if self.at == self.size:
            raise StopIteration
        self.at += 1
        self.read += 1
        return self.at - 1, self.read

    def state_dict(self) -> dict[str, int]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.at = state["at"]


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("workers", [0, 1])
def test_the_state_of_an_iterator_is_taken_up_where_torchdata_takes_it_up(
    workers: int, every: int
) -> None:
    rests = []
    for loader_class in (StatefulDataLoader, DataLoader):

        def make(loader_class: Any = loader_class) -> Any:
            return loader_class(
                Counting(24), batch_size=4, num_workers=workers, snapshot_every_n_steps=every
            )

        loader, _iterator = advanced(make(), 3)
        state = copy.deepcopy(loader.state_dict())
        again = make()
        again.load_state_dict(state)
        rests.append([batch[0].tolist() for batch in again])
    assert rests[1] == rests[0] == [[*range(at, at + 4)] for at in range(12, 24, 4)]
