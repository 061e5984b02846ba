"""A folder of pictures of which some are broken, and pictures that take for ever."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.program import StuckPicture, save_photo


@dataclass(frozen=True)
class Album:
    """A folder of 15 pictures: 12 good ones, three broken ones."""

    folder: Path
    total: int = 15
    broken: tuple[str, ...] = ("03_truncated.jpg", "07_text.jpg", "11_empty.jpg")

    @property
    def good(self) -> int:
        return self.total - len(self.broken)


@pytest.fixture(scope="session")
def album(tmp_path_factory: pytest.TempPathFactory) -> Album:
    album = Album(tmp_path_factory.mktemp("album"))
    truncated, text, empty = (album.folder / name for name in album.broken)
    for number in range(album.total):
        save_photo(album.folder / f"{number:02}_good.jpg", number)
    for path in (truncated, text, empty):
        (album.folder / f"{path.name[:2]}_good.jpg").unlink()
    save_photo(truncated, size=(200, 200))
    truncated.write_bytes(truncated.read_bytes()[:700])
    text.write_text("no picture")
    empty.touch()
    return album


@pytest.fixture
def stuck(tmp_path: Path) -> Iterator[StuckPicture]:
    """Behind eight good pictures in its folder one that nobody finishes reading."""
    for number in range(8):
        save_photo(tmp_path / f"{number}.jpg", number)
    picture = StuckPicture(tmp_path / "9_stuck.jpg")
    yield picture
    picture.end()
