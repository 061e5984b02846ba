"""Random loaders, and programs that iterate them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from hypothesis import strategies as st
from torch.utils.data import (
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from tests.support.split import own_part

CASES = int(os.environ.get("PENSTOCK_FUZZ_CASES", "300"))
SEED = int(os.environ.get("PENSTOCK_FUZZ_SEED", "0"))


class Pair(NamedTuple):
    left: Any
    right: Any


class SampleBug(Exception):
    """What a bad sample raises."""


# A shape is a recipe that a sample is made after: a leaf's name, or a container of recipes.
_LEAVES = [
    "int", "float", "bool", "text", "bytes", "tensor", "scalar", "half", "array", "structured",
    "matrix", "big", "column-major", "complex", "reversed",
]  # fmt: skip
shapes = st.recursive(
    st.sampled_from(_LEAVES),
    lambda inner: st.one_of(
        st.tuples(st.just("tuple"), st.lists(inner, min_size=1, max_size=3)),
        st.tuples(st.just("list"), st.lists(inner, min_size=1, max_size=3)),
        st.tuples(st.just("pair"), st.lists(inner, min_size=2, max_size=2)),
        st.tuples(
            st.just("dict"), st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=3)
        ),
    ),
    max_leaves=5,
)


def make(shape: Any, index: int) -> Any:
    """The sample of an index after a recipe."""
    if isinstance(shape, str):
        return _leaf(shape, index)
    kind, parts = shape
    if kind == "dict":
        return {key: make(part, index) for key, part in parts.items()}
    made = [make(part, index) for part in parts]
    return {"tuple": tuple, "list": list, "pair": lambda two: Pair(*two)}[kind](made)


def _leaf(name: str, index: int) -> Any:
    ramp = np.arange(6) + index
    return {
        "int": lambda: index,
        "float": lambda: index / 3,
        "bool": lambda: index % 2 == 0,
        "text": lambda: f"sample {index}",
        "bytes": lambda: bytes([index % 256]),
        "tensor": lambda: torch.from_numpy(ramp),
        "scalar": lambda: torch.tensor(index, dtype=torch.int16),
        "half": lambda: torch.full((3,), index, dtype=torch.bfloat16),
        "array": lambda: ramp.astype(np.float32),
        "structured": lambda: np.float64(index),
        "matrix": lambda: torch.full((2, 3), float(index)),
        "big": lambda: torch.full((90, 90), index, dtype=torch.int32),
        "column-major": lambda: np.asfortranarray(ramp.reshape(2, 3)),
        "complex": lambda: torch.complex(torch.tensor(float(index)), torch.tensor(1.0)),
        "reversed": lambda: torch.from_numpy(ramp).flip(0)[::2],
    }[name]()


class Mapped:
    """A map-style dataset; its samples' shapes may grow with the index."""

    def __init__(self, length: int, shape: Any, bad: frozenset[int], *, grows: bool) -> None:
        self.length, self.shape, self.bad, self.grows = length, shape, bad, grows

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        if index in self.bad:
            raise SampleBug(index)
        if self.grows:
            return torch.arange(index % 3 + 1), make(self.shape, index)
        return make(self.shape, index)


class MappedAtOnce(Mapped):
    """It fetches many samples in one call."""

    def __getitems__(self, indices: list[int]) -> list[Any]:
        return [self[index] for index in indices]


class Streamed(IterableDataset[Any]):
    """An iterable dataset that splits itself among workers."""

    def __init__(self, length: int, shape: Any) -> None:
        self.length, self.shape = length, shape

    def __iter__(self) -> Iterator[Any]:
        return (make(self.shape, index) for index in own_part(self.length))


class StreamedWithLength(Streamed):
    """One that says how long it is."""

    def __len__(self) -> int:
        return self.length


@dataclass(frozen=True)
class Scenario:
    """A loader's settings, and what is done with it.

    Attributes:
        ends: for each epoch the batch behind which it is left, or None.
        resume: settings of the loader that goes on, and the batch of the first epoch behind which
            it does.
    """

    dataset: str
    length: int
    shape: Any
    bad: frozenset[int]
    sampler: str
    settings: dict[str, Any]
    own_generator: bool
    ends: list[int | None]
    resume: tuple[int, dict[str, Any]] | None = field(default=None)

    @property
    def in_order(self) -> bool:
        return bool(self.settings.get("in_order", True))

    def loader(self, loader_class: Any, **others: Any) -> Any:
        """A loader of a class, as the scenario describes it."""
        kinds = {
            "map": lambda: Mapped(self.length, self.shape, self.bad, grows=False),
            "grows": lambda: Mapped(self.length, self.shape, self.bad, grows=True),
            "at once": lambda: MappedAtOnce(self.length, self.shape, self.bad, grows=False),
            "stream": lambda: Streamed(self.length, self.shape),
            "stream with length": lambda: StreamedWithLength(self.length, self.shape),
        }
        dataset: Any = kinds[self.dataset]()
        settings = {**self.settings, **others}
        indices = range(self.length)
        own = torch.Generator().manual_seed(11) if self.own_generator else None
        if own is not None:
            settings["generator"] = own
        if self.sampler == "batches":
            cut = [list(indices[at : at + 3]) for at in range(0, self.length, 3)]
            for name in ("batch_size", "shuffle", "drop_last"):
                settings.pop(name, None)
            settings["batch_sampler"] = cut
        elif self.sampler != "none":
            samplers = {
                "list": lambda: list(reversed(indices)),
                "replacing": lambda: RandomSampler(indices, True, 2 * self.length + 1, own),
                "weighted": lambda: WeightedRandomSampler([1.0] * self.length, self.length),
                "subset": lambda: SubsetRandomSampler(indices[::2], own),
                "rank": lambda: DistributedSampler(dataset, 2, 1),
            }
            settings["sampler"] = samplers[self.sampler]()
        return loader_class(dataset, **settings)


def as_list(samples: list[Any]) -> list[Any]:
    """A collate function that makes no tensors."""
    return samples


@st.composite
def _workers(draw: st.DrawFn) -> dict[str, Any]:
    workers = draw(st.sampled_from([0, 0, 1, 2, 3]))
    settings: dict[str, Any] = {"num_workers": workers}
    if workers:
        settings["multiprocessing_context"] = "fork"
        settings["prefetch_factor"] = draw(st.sampled_from([None, 1, 2, 4]))
        settings["persistent_workers"] = draw(st.booleans())
    return settings


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    """Any loader whose outcome torch's loader determines."""
    dataset = draw(
        st.sampled_from(["map", "map", "map", "grows", "at once", "stream", "stream with length"])
    )
    streams = dataset.startswith("stream")
    length = draw(st.integers(0 if streams else 1, 25))
    sampler = "none"
    if not streams:
        names = ["none", "none", "list", "replacing", "weighted", "subset", "batches", "rank"]
        sampler = draw(st.sampled_from(names))
    settings = draw(_workers())
    settings["batch_size"] = draw(st.one_of(st.integers(1, 7), st.none()))
    if settings["batch_size"] is not None:
        settings["drop_last"] = draw(st.booleans())
    if sampler == "none" and not streams:
        settings["shuffle"] = draw(st.booleans())
    if dataset == "grows" or draw(st.integers(0, 4)) == 0:
        settings["collate_fn"] = as_list
    if settings["num_workers"] > 1 and draw(st.integers(0, 4)) == 0:
        settings["in_order"] = False
    bad = draw(st.frozensets(st.integers(0, 24), max_size=2)) if not streams else frozenset()
    ends = draw(
        st.lists(st.one_of(st.none(), st.none(), st.integers(0, 4)), min_size=1, max_size=3)
    )
    resume = None
    if draw(st.booleans()):
        resume = draw(st.integers(0, 6)), draw(_workers())
    return Scenario(
        dataset,
        length,
        draw(shapes),
        bad,
        sampler,
        settings,
        draw(st.booleans()),
        ends,
        resume,
    )
