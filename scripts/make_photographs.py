"""Crop photographs of ImageNet's sizes out of Debian's photographic wallpapers.

    python scripts/make_photographs.py build/photographs

The wallpapers come from Debian's packages (`apt-get download`, `dpkg -x`; nothing is installed) and
are kept in `--cache`. Each photograph is a window of random place and scale, drawn from the seed
and its own number alone: the first hundred of three thousand are those of a hundred. The same
Pillow writes the same files again.
"""

from __future__ import annotations

import argparse
import io
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

SEED = 2012
COUNT = 3000
PACKAGES = (
    "plasma-workspace-wallpapers",
    "mate-backgrounds",
    "lomiri-wallpapers-16.04",
    "lomiri-wallpapers-20.04",
    "ukui-wallpapers",
)
# Width and height, and how often of a hundred. ImageNet's pictures are 500 pixels on the longer
# side for the most part, and a quarter of them stand upright.
SIZES = {
    (500, 375): 45,
    (500, 333): 18,
    (500, 334): 4,
    (500, 400): 4,
    (480, 360): 4,
    (400, 300): 3,
    (375, 500): 14,
    (333, 500): 6,
    (334, 500): 2,
}
QUALITIES = range(90, 97)
# Less than that is a piece of sky: it is drawn again, some times.
LEAST_BYTES, TRIES = 30_000, 12
# What is smaller cannot give a window that is scaled down.
LEAST_SIDE = 900
# JPEGs that are previews, or drawings, which compress unlike photographs: a part of their path.
NO_PHOTOGRAPHS = {
    "2004default",
    "Autumn",
    "Elephants",
    "Elephants_3840x2160",
    "Elephants_5640x3172",
    "Flow",
    "Fossa_by_Jasper_Roks",
    "GreenTraditional",
    "Honeywave",
    "Infinite-Sea_by_Aury88",
    "Painting-Colors_by__herobrine7gamer",
    "PastelHills",
    "SafeLanding",
    "Shell",
    "firstgeneration",
    "rhythm",
    "screenshot",
    "string",
    "the-mouse",
    "umang_by_Abhishek_Mudgal",
}


class CannotMakeError(Exception):
    """Something that the script needs is not there; the message says what, and what else to do."""


@dataclass(frozen=True)
class Draw:
    """What one photograph is drawn from.

    Attributes:
        number: which photograph it is.
        original: the number of the wallpaper.
        random: a generator of its own, behind the choice of the original.
    """

    number: int
    original: int
    random: random.Random


def main() -> int:
    """Makes the photographs; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="the folder to write; replaced if it is there")
    parser.add_argument("--count", type=int, default=COUNT, help=f"by default {COUNT}")
    parser.add_argument("--cache", type=Path, default=Path("build/wallpapers"))
    parser.add_argument(
        "--originals", type=Path, help="a folder of pictures to use in place of the wallpapers"
    )
    arguments = parser.parse_args()
    try:
        folder = arguments.originals or fetch(arguments.cache)
        make(find_originals(folder), arguments.out, arguments.count)
    except CannotMakeError as error:
        print(f"make_photographs: {error}", file=sys.stderr)
        return 1
    return 0


def fetch(cache: Path) -> Path:
    """Downloads and unpacks the packages that are not there yet; returns the folder of all.

    Raises:
        CannotMakeError: a tool is missing, or a package cannot be had.
    """
    cache.mkdir(parents=True, exist_ok=True)
    for package in PACKAGES:
        unpacked = cache / package
        if unpacked.is_dir():
            continue
        for tool in ("apt-get", "dpkg"):
            if shutil.which(tool) is None:
                raise CannotMakeError(
                    f"{tool} is not here: the wallpapers are Debian packages; on another system "
                    "give a folder of photographs of your own: --images DIR"
                )
        downloads = cache / "downloads"
        downloads.mkdir(exist_ok=True)
        _call(["apt-get", "download", "--quiet", package], downloads)
        archive = max(downloads.glob(f"{package}_*.deb"), key=lambda path: path.stat().st_mtime)
        # Unpacked under another name first: a folder that is there is whole.
        partial = cache / f"{package}.part"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        _call(["dpkg", "-x", str(archive.resolve()), str(partial.resolve())], cache)
        partial.rename(unpacked)
        archive.unlink()
    return cache


def _call(command: Sequence[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotMakeError(
            f"{' '.join(command)} failed ({done.stderr.strip() or done.returncode}); it may need "
            "`apt-get update` first; or give photographs of your own: --images DIR"
        )


def find_originals(folder: Path) -> list[Path]:
    """The photographs below a folder that are large enough, in the order of their paths.

    Raises:
        CannotMakeError: there is none.
    """
    found = []
    for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix()):
        parts = {path.stem, *path.relative_to(folder).parts}
        if path.suffix.lower() not in (".jpg", ".jpeg") or parts & NO_PHOTOGRAPHS:
            continue
        # Packages have several names for one picture.
        if path.is_symlink() or not path.is_file():
            continue
        with Image.open(path) as image:
            if min(image.size) >= LEAST_SIDE:
                found.append(path)
    if not found:
        raise CannotMakeError(f"no JPEG with {LEAST_SIDE} pixels a side or more below {folder}")
    return found


def make(originals: Sequence[Path], out: Path, count: int) -> None:
    """Writes `count` photographs to the folder `out`, all of them or none."""
    partial = out.with_name(f"{out.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for number, data in crops(originals, count):
        (partial / f"{number:05d}.jpg").write_bytes(data)
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)


def crops(originals: Sequence[Path], count: int) -> Iterator[tuple[int, bytes]]:
    """The photographs with their numbers; each original is decoded once, so in another order."""
    draws = []
    for number in range(count):
        generator = random.Random(f"{SEED}/{number}")
        draws.append(Draw(number, generator.randrange(len(originals)), generator))
    for k, path in enumerate(originals):
        mine = [draw for draw in draws if draw.original == k]
        if not mine:
            continue
        with Image.open(path) as opened:
            original = opened.convert("RGB")
        for draw in mine:
            yield draw.number, crop(original, draw.random)


def crop(original: Image.Image, generator: random.Random) -> bytes:
    """A window of the original as the bytes of a JPEG."""
    data = b""
    for _ in range(TRIES):
        size = generator.choices(list(SIZES), weights=list(SIZES.values()))[0]
        # From a window that is not scaled to the largest that fits, small ones as often as large.
        largest = min(original.width / size[0], original.height / size[1])
        scale = max(1.0, largest) ** generator.random() if largest > 1 else largest
        width, height = size[0] * scale, size[1] * scale
        left = generator.uniform(0, original.width - width)
        top = generator.uniform(0, original.height - height)
        picture = original.resize(
            size, Image.Resampling.LANCZOS, box=(left, top, left + width, top + height)
        )
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=generator.choice(QUALITIES))
        data = file.getvalue()
        if len(data) >= LEAST_BYTES:
            break
    return data


if __name__ == "__main__":
    sys.exit(main())
