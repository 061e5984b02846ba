"""The data of these tests: samples that know their number.

They are apart from the tests so that a worker which imports them imports no framework.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import Dataset, IterableDataset

from tests.support.split import own_part


class Numbers(Dataset[tuple[int, torch.Tensor]]):
    """Sample `i` is `i` and a row of features.

    Args:
        size: number of samples.
        noisy: whether the features are random; otherwise they follow from `i`.
        bad: samples that cannot be made.
    """

    def __init__(self, size: int = 48, *, noisy: bool = False, bad: tuple[int, ...] = ()) -> None:
        self.size = size
        self.noisy = noisy
        self.bad = bad

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[int, torch.Tensor]:
        if index in self.bad:
            raise ValueError(f"sample {index} is bad")
        if self.noisy:
            return index, torch.rand(3)
        return index, torch.tensor([index, index % 5, 1.0]) / self.size


WORDS = 16


class Sentences(Dataset[dict[str, torch.Tensor]]):
    """Made-up sentences; the word behind the label is drawn anew each time, if `noisy`."""

    def __init__(self, *, noisy: bool = False, bad: tuple[int, ...] = ()) -> None:
        self.noisy = noisy
        self.bad = bad

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if index in self.bad:
            raise ValueError(f"sentence {index} is bad")
        words = torch.tensor([index % WORDS, (index * 7) % WORDS, (index * 3) % WORDS, index // 16])
        if self.noisy:
            words[1] = torch.randint(WORDS, ())
        return {"input_ids": words, "labels": torch.tensor(index % 2)}


class Stream(IterableDataset[int]):
    """The numbers from 0, each once with any number of workers, and no `__len__`."""

    def __init__(self, size: int = 48) -> None:
        self.size = size

    def __iter__(self) -> Iterator[int]:
        return iter(own_part(self.size))
