"""Samples whose content follows from their index, and which befall things at times."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset

from tests.support.split import own_part

# What a sample may do, each time it is made.
BAD = ("raise", "none", "poison-kill", "poison-exit")
# What a sample may do when it is made for the first time.
ONCE = ("once-kill", "once-exit", "once-segv")
DEADLY = ("poison-kill", "poison-exit", *ONCE)


class BadSampleError(Exception):
    """What a sample raises on purpose."""


def make(index: int, shape: str, size: int) -> Any:
    """The content of a sample: index, `size` numbers that follow from it, a random number."""
    noise = torch.rand((), dtype=torch.float64)
    if shape == "scalar":
        return index, noise
    if shape == "array":
        return index, noise, np.arange(index, index + size, dtype=np.int32)
    if shape == "text":
        return index, noise, f"{index}:" * (size // 8 + 1)
    return {"index": index, "noise": noise, "data": torch.arange(index, index + size)}


def parts(batch: Any) -> tuple[list[int], list[float], Any]:
    """Of a collated batch the indices, the random numbers, and the rest."""
    if isinstance(batch, dict):
        return batch["index"].tolist(), batch["noise"].tolist(), batch["data"]
    index, noise, *rest = batch
    return index.tolist(), noise.tolist(), rest[0] if rest else None


def is_whole(batch: Any, shape: str, size: int) -> bool:
    """Whether the content of each sample of a batch is that of its index."""
    indices, _, rest = parts(batch)
    if shape == "scalar":
        return rest is None
    if shape == "text":
        return list(rest) == [f"{index}:" * (size // 8 + 1) for index in indices]
    expected = torch.arange(size) + torch.tensor(indices).unsqueeze(1)
    return bool(torch.equal(rest.long(), expected))


class Befalling:
    """Does what a plan says of a sample.

    Args:
        plan: what befalls samples, by index.
        notes: a folder where it is noted that a sample has been made once.
        slow_s: how long a slow sample takes.
    """

    def __init__(self, plan: Mapping[int, str], notes: Path, slow_s: float) -> None:
        self._plan = plan
        self._notes = str(notes)
        self._slow_s = slow_s

    def __call__(self, index: int) -> bool:
        """Lets a sample befall what it must; whether it is None."""
        what = self._plan.get(index)
        if what is None:
            return False
        if what in ONCE and not self._first(index):
            return False
        if what == "raise":
            raise BadSampleError(index)
        if what == "slow":
            time.sleep(self._slow_s)
        elif what.endswith("kill"):
            os.kill(os.getpid(), signal.SIGKILL)
        elif what.endswith("segv"):
            os.kill(os.getpid(), signal.SIGSEGV)
        elif what.endswith("exit"):
            os._exit(0)
        return what == "none"

    def _first(self, index: int) -> bool:
        with contextlib.suppress(FileExistsError):
            note = os.path.join(self._notes, str(index))  # noqa: PTH118 - as fast as can be
            os.close(os.open(note, os.O_CREAT | os.O_EXCL))
            return True
        return False


class Numbers(Dataset[Any]):
    """A map-style dataset of them."""

    def __init__(self, length: int, shape: str, size: int, befall: Befalling | None) -> None:
        self.length = length
        self.shape = shape
        self.size = size
        self.befall = befall

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        if self.befall is not None and self.befall(index):
            return None
        return make(index, self.shape, self.size)


class Stream(IterableDataset[Any]):
    """The same as a stream, which splits itself among workers."""

    def __init__(self, length: int, shape: str, size: int, befall: Befalling | None) -> None:
        self.length = length
        self.shape = shape
        self.size = size
        self.befall = befall

    def __iter__(self) -> Iterator[Any]:
        for index in own_part(self.length):
            if self.befall is not None:
                self.befall(index)
            yield make(index, self.shape, self.size)
