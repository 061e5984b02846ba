"""Cut the photographs of `examples/photos/` out of public-domain originals.

The originals are the pictures that scikit-image ships in `skimage/data/`; only those
that their authors gave to the public domain are used (see `examples/photos/SOURCES.md`).

    pip download --no-deps --only-binary :all: scikit-image==0.26.0
    unzip scikit_image-0.26.0-*.whl 'skimage/data/*'
    python scripts/make_photos.py skimage/data examples/photos

The crops are drawn from a fixed seed, so the same Pillow writes the same files again.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from PIL import Image

SEED = 2013
JPEG_QUALITY = 88
CANDIDATES = 60
SIZES = [(400, 300), (420, 315), (440, 330), (448, 336), (460, 345), (480, 360), (500, 375)]

# File name: number of crops, then the smallest and the largest width of a crop as a share of
# the widest one that fits.
ORIGINALS = {
    "astronaut.png": (7, 0.5, 1.0),
    "brick.png": (2, 0.6, 1.0),
    "camera.png": (5, 0.5, 1.0),
    "chelsea.png": (5, 0.5, 1.0),
    "clock_motion.png": (2, 0.6, 1.0),
    "coffee.png": (7, 0.45, 1.0),
    "grass.png": (2, 0.6, 1.0),
    "gravel.png": (3, 0.5, 1.0),
    "hubble_deep_field.jpg": (6, 0.35, 0.8),
    "retina.jpg": (5, 0.35, 0.85),
    "rocket.jpg": (6, 0.45, 1.0),
}
# Where the two broken files stand among the others: not at an end, where a loader may see them
# in an incomplete batch only.
TRUNCATED_AT, TEXT_AT = 17, 34

Box = tuple[float, float, float, float]


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def draw_box(
    rng: random.Random, size: tuple[int, int], low: float, high: float, taken: list[Box]
) -> Box:
    """Draw many 4:3 boxes and keep the one that overlaps the earlier ones least."""
    widest = min(size[0], size[1] * 4 / 3)
    candidates = []
    for _ in range(CANDIDATES):
        width = widest * rng.uniform(low, high)
        height = width * 3 / 4
        left = rng.uniform(0, size[0] - width)
        top = rng.uniform(0, size[1] - height)
        candidates.append((left, top, left + width, top + height))
    return min(candidates, key=lambda box: max((overlap(box, b) for b in taken), default=0.0))


def crops(folder: Path, rng: random.Random) -> list[tuple[str, Image.Image]]:
    """All crops of all originals, shuffled, each with the name of its original."""
    made = []
    for name, (count, low, high) in ORIGINALS.items():
        with Image.open(folder / name) as opened:
            original = opened.convert("RGB")
        taken: list[Box] = []
        for _ in range(count):
            box = draw_box(rng, original.size, low, high, taken)
            taken.append(box)
            picture = original.resize(
                rng.choice(SIZES), Image.Resampling.BICUBIC, box=box, reducing_gap=None
            )
            made.append((Path(name).stem.split("_")[0], picture))
    rng.shuffle(made)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("originals", type=Path, help="the folder skimage/data")
    parser.add_argument("out", type=Path, help="the folder to write, such as examples/photos")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    number = 0
    for name, picture in crops(arguments.originals, random.Random(SEED)):
        while number in (TRUNCATED_AT, TEXT_AT):
            number += 1
        picture.save(
            arguments.out / f"{number:02d}_{name}.jpg", quality=JPEG_QUALITY, optimize=True
        )
        number += 1
    whole = min(arguments.out.glob("00_*.jpg")).read_bytes()
    (arguments.out / f"{TRUNCATED_AT:02d}_truncated.jpg").write_bytes(whole[: len(whole) * 2 // 5])
    (arguments.out / f"{TEXT_AT:02d}_not_a_picture.jpg").write_text(
        "This is a text file. Its name says that it is a photograph.\n"
    )


if __name__ == "__main__":
    main()
