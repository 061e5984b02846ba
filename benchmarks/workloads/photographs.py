"""Photographs from files: where they are, and how a user reads them with Pillow."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from benchmarks.row import NotMeasuredError, Setting

ROOT = Path(__file__).resolve().parents[2]
MADE = ROOT / "build" / "photographs"
FULL_COUNT, QUICK_COUNT = 3000, 300
SUFFIXES = (".jpg", ".jpeg")
SIZE = 224


def find_photographs(setting: Setting) -> list[str]:
    """The paths of the user's photographs, or of those that the project makes on first use.

    Raises:
        NotMeasuredError: there are none, and none can be made.
    """
    if setting.images is not None:
        folder = setting.images
    else:
        # Quick mode uses the first of all, where all have been made.
        folder = MADE / str(FULL_COUNT)
        if not folder.is_dir():
            count = setting.size(FULL_COUNT, QUICK_COUNT)
            folder = MADE / str(count)
            if not folder.is_dir():
                _make(folder, count)
    paths = sorted(str(path) for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise NotMeasuredError(f"no JPEG in the folder given by --images, {folder.name}")
    return paths[:QUICK_COUNT] if setting.quick else paths


def _make(folder: Path, count: int) -> None:
    print(f"Making {count} photographs of Debian's wallpapers, once.", file=sys.stderr, flush=True)
    script = ROOT / "scripts" / "make_photographs.py"
    command = [sys.executable, str(script), str(folder), "--count", str(count)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise NotMeasuredError(lines[-1])


class Photographs(Dataset[tuple[torch.Tensor, int]]):
    """As a user writes it: Pillow decodes, scales to 224×224, and the sample is float32 from 0
    to 1, C×H×W, as torchvision's `ToTensor` makes it."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = list(paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        from PIL import Image

        with Image.open(self.paths[index % len(self.paths)]) as image:
            resized = image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        return to_tensor(resized), index


class Augmented(Dataset[tuple[torch.Tensor, int]]):
    """As torchvision's training recipe has it: RandomResizedCrop, RandomHorizontalFlip, ToTensor,
    with Pillow."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = list(paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        from PIL import Image

        with Image.open(self.paths[index % len(self.paths)]) as image:
            return to_tensor(crop_and_flip(image.convert("RGB"))), index


def crop_and_flip(image: Any) -> Any:
    """What torchvision's RandomResizedCrop(224) and RandomHorizontalFlip() do to a PIL image.

    A box of 8 to 100 % of the area and of 3:4 to 4:3, scaled bilinearly with antialiasing.
    """
    from PIL import Image

    left, top, width, height = _random_box(image.width, image.height)
    cut = image.crop((left, top, left + width, top + height))
    resized = cut.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    if random.random() < 0.5:
        return resized.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return resized


def _random_box(width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, width and height, drawn as torchvision's `RandomResizedCrop.get_params` does."""
    for _ in range(10):
        area = width * height * random.uniform(0.08, 1.0)
        ratio = np.exp(random.uniform(np.log(3 / 4), np.log(4 / 3)))
        wide, high = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if 0 < wide <= width and 0 < high <= height:
            return random.randint(0, width - wide), random.randint(0, height - high), wide, high
    side = min(width, height)
    return (width - side) // 2, (height - side) // 2, side, side


def to_tensor(image: Any) -> torch.Tensor:
    """What torchvision's `ToTensor` makes of a PIL image: float32 from 0 to 1, C×H×W."""
    pixels = torch.from_numpy(np.array(image))
    return pixels.permute(2, 0, 1).contiguous().float().div_(255)
