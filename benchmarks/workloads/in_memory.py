"""Samples that are in memory already: what is measured with them is the loader."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

# As many different ones as are enough for none to stay in a processor's first caches.
DIFFERENT = 16
IMAGE_SHAPE = (3, 224, 224)


class Scalars(Dataset[int]):
    """Samples that are ints."""

    def __getitem__(self, index: int) -> int:
        return index


class Tensors(Dataset[torch.Tensor]):
    """Samples that are images, C×H×W."""

    def __init__(self, dtype: torch.dtype) -> None:
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (DIFFERENT, *IMAGE_SHAPE), generator=generator)
        self.images: list[torch.Tensor] = list(images.to(dtype))

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.images[index % DIFFERENT]

    @property
    def sample_bytes(self) -> int:
        """The size of a sample."""
        return self.images[0].numel() * self.images[0].element_size()


class Records(Dataset[dict[str, Any]]):
    """Samples that are dicts of NumPy arrays, strings and ints."""

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        self.images = random.integers(0, 256, (DIFFERENT, 96, 96, 3), dtype=np.uint8)
        self.boxes = random.random((DIFFERENT, 8, 4), dtype=np.float32)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = index % DIFFERENT
        return {
            "image": self.images[row],
            "boxes": self.boxes[row],
            "name": f"record {index}",
            "number": index,
        }


class Pictures(Dataset[tuple[Any, int]]):
    """Samples that are PIL images of 224×224, and a label, for a collate function that keeps them
    as they are."""

    def __init__(self) -> None:
        from PIL import Image

        random = np.random.default_rng(0)
        pixels = random.integers(0, 256, (DIFFERENT, 224, 224, 3), dtype=np.uint8)
        self.images = [Image.fromarray(picture) for picture in pixels]

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.images[index % DIFFERENT], index


class Rows(Dataset[tuple[torch.Tensor, int]]):
    """Samples that cost microseconds: a row of a table of features, and its label."""

    def __init__(self) -> None:
        self.table = torch.rand(1024, 32, generator=torch.Generator().manual_seed(0))

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.table[index % 1024], index % 10


def keep(samples: list[Any]) -> list[Any]:
    """A collate function that hands on what it gets."""
    return samples
