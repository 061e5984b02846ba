"""Pictures to read, small and each different from the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Draw = Callable[..., Path]


def open_files() -> set[str]:
    """This process's descriptors of files. No garbage is collected: what is closed late counts."""
    found = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except FileNotFoundError:  # the one that listed the folder
            continue
        if target.startswith("/") and not target.startswith(("/dev/", "/proc/")):
            found.add(f"{descriptor.name} {target}")
    return found


@pytest.fixture
def draw(tmp_path: Path) -> Draw:
    """Return a function that writes one picture of noise below `tmp_path`."""

    def write(name: str, size: tuple[int, int] = (20, 12), mode: str = "RGB", **save) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(abs(hash((name, size))) % 2**32)
        channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
        pixels = rng.integers(0, 256, (size[1], size[0], *channels), dtype=np.uint8)
        Image.fromarray(pixels).save(path, **save)
        return path

    return write


@pytest.fixture
def no_descriptor_left() -> Iterator[None]:
    """Fail if the test leaves more open files behind than it found."""
    before = open_files()
    yield
    assert open_files() <= before
