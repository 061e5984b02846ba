"""A loader drawn at random, and what befalls it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import penstock
from tests.soak.datasets import BAD, ONCE, Befalling, Numbers, Stream

# Samples of megabytes come in small numbers, and a batch takes less time than passes between two
# kills: eight deaths at one batch are an error with good reason, and four a search.
_MOST_BYTES = 64 << 20
_MOST_BATCH_BYTES = 4 << 20
# How long a worker takes to get ready under each start method, on a machine that is busy. Whoever
# is killed sooner, again and again, never gets ready, and that is an error with good reason.
_STARTS_S = {"fork": 0.06, "forkserver": 0.3, "spawn": 4.0}


@dataclass(frozen=True)
class Scenario:
    """One loader.

    Attributes:
        name: seed and number, by which it can be run again.
        stream: whether the dataset is an iterable one.
        length: samples in it.
        shape: what samples are like.
        size: numbers in each.
        settings: arguments of the loader.
        plan: what befalls samples, by index.
        slow_s: how long a slow sample takes.
        acts: what the program does in each epoch.
        kills_s: the time between two kills of a worker; 0: none.
        stops_s: likewise between two stops.
    """

    name: str
    stream: bool
    length: int
    shape: str
    size: int
    settings: dict[str, Any]
    plan: dict[int, str]
    slow_s: float
    acts: tuple[str, ...]
    kills_s: float
    stops_s: float

    @property
    def bad(self) -> frozenset[int]:
        """The samples that cannot be had."""
        return frozenset(index for index, what in self.plan.items() if what in BAD)

    @property
    def spares_s(self) -> float:
        """How old a worker is before it is killed in most cases."""
        return _STARTS_S[self.settings["multiprocessing_context"]]

    def loader(self, notes: Path, **changes: Any) -> penstock.DataLoader[Any]:
        """The loader; the notes are where samples find whether they were made before."""
        dataset = Stream if self.stream else Numbers
        befall = Befalling(self.plan, notes, self.slow_s)
        return penstock.DataLoader(
            dataset(self.length, self.shape, self.size, befall), **{**self.settings, **changes}
        )

    def reference(self) -> penstock.DataLoader[Any]:
        """The same without workers, content and faults: its order and random numbers."""
        kept = ("batch_size", "shuffle", "seed")
        return penstock.DataLoader(
            Numbers(self.length, "scalar", 0, None), **{key: self.settings[key] for key in kept}
        )


def draw(seed: int, number: int) -> Scenario:
    """The scenario of a number at a seed."""
    chance = random.Random(f"{seed}:{number}")
    stream = chance.random() < 0.25
    workers = chance.choice([1, 2, 2, 3, 4])
    shape, size = chance.choice(
        [
            ("scalar", 0),
            ("scalar", 0),
            ("array", 100),
            ("array", 30_000),
            ("text", 200),
            ("dict", 50),
            ("dict", 20_000),
            ("dict", 400_000),
        ]
    )
    batch_size = chance.choice([1, 2, 4, 7, 16])
    length = chance.randrange(20, 300)
    if size:
        length = max(10, min(length, _MOST_BYTES // (8 * size)))
        batch_size = max(1, min(batch_size, _MOST_BATCH_BYTES // (8 * size)))
    method = chance.choices(["fork", "forkserver", "spawn"], [93, 6, 1])[0]
    settings = {
        "batch_size": batch_size,
        "shuffle": False if stream else chance.random() < 0.7,
        "num_workers": workers,
        "prefetch_factor": chance.choice([1, 2, 2, 5]),
        "persistent_workers": chance.random() < 0.5,
        "in_order": chance.random() < 0.75,
        "multiprocessing_context": method,
        "seed": chance.randrange(1 << 30),
        "on_error": chance.choice(["skip", "raise"]),
        "max_skipped": None,
    }
    killed = chance.random() < 0.7
    kills_s = chance.uniform(1.0, 3.0) * _STARTS_S[method] if killed else 0.0
    stops_s = chance.uniform(0.03, 0.2) if chance.random() < 0.6 else 0.0
    # A sample that takes long, and whose worker is killed at it four times, may pass for poison.
    slow_s = chance.uniform(0.001, 0.002) if killed else chance.uniform(0.005, 0.04)
    acts = tuple(
        chance.choice(["whole", "whole", "whole", "break", "drop", "resume"])
        for _ in range(chance.choice([1, 2, 3]))
    )
    return Scenario(
        f"{seed}:{number}",
        stream,
        length,
        shape,
        size,
        settings,
        _plan(chance, length, stream=stream, batches=length / batch_size),
        slow_s,
        acts,
        kills_s,
        stops_s,
    )


def _plan(chance: random.Random, length: int, *, stream: bool, batches: float) -> dict[int, str]:
    """What befalls which samples: few, so that not every batch is touched."""
    # What raises ends a stream, and what kills its worker each time is not searched for there.
    kinds = ["slow", *ONCE] if stream else ["slow", "slow", *ONCE, *BAD]
    count = chance.randrange(0, max(2, min(8, int(batches / 2))))
    indices = chance.sample(range(length), min(length, count))
    return {index: chance.choice(kinds) for index in indices}
