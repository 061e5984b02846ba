"""What is loaded: datasets whose samples cost almost nothing, and one that decodes photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset


class Scalars(Dataset[int]):
    """Samples that are ints."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> int:
        return index


class Tensors(Dataset[torch.Tensor]):
    """Samples that are images in memory, C×H×W = 3×224×224."""

    def __init__(self, length: int, dtype: torch.dtype) -> None:
        self.length = length
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (16, 3, 224, 224), generator=generator)
        self.images = list(images.to(dtype))

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.images[index % len(self.images)]


class Records(Dataset[dict[str, Any]]):
    """Samples that are dicts of NumPy arrays, strings and ints."""

    def __init__(self, length: int) -> None:
        self.length = length
        random = np.random.default_rng(0)
        self.images = random.integers(0, 256, (16, 96, 96, 3), dtype=np.uint8)
        self.boxes = random.random((16, 8, 4), dtype=np.float32)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = index % 16
        return {
            "image": self.images[row],
            "boxes": self.boxes[row],
            "name": f"record {index}",
            "number": index,
        }


class Photographs(Dataset[tuple[torch.Tensor, int]]):
    """Photographs from files, as a user would write it: Pillow decodes and resizes, and the
    sample is float32 from 0 to 1, C×H×W, as torchvision's `ToTensor` makes it."""

    def __init__(self, folder: Path, length: int) -> None:
        self.paths = []
        for path in sorted(folder.glob("*.jpg")):
            try:
                _decode(path)
            except OSError:
                continue
            self.paths.append(path)
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return _decode(self.paths[index % len(self.paths)]), index


def _decode(path: Path) -> torch.Tensor:
    from PIL import Image

    with Image.open(path) as image:
        resized = image.convert("RGB").resize((224, 224), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous().float().div_(255)
