"""Way 1: every sample of a map-style dataset, made by a pool of workers.

By hand this is `Pool.starmap(worker, [(dataset, start, n), …])`: the dataset is pickled for every
task, each sample is pickled back through one pipe, and `len // processes` samples a task lose the
rest: of 50 photographs, 4 processes return 48. Here all 50 come, and the dataset travels once to
each worker.

    python examples/pool.py [FOLDER]
"""

import sys
from pathlib import Path

import penstock
from penstock.datasets import ImageDataset, ResizeCrop

PHOTOS = Path(__file__).parent / "photos"


def main(folder: Path) -> None:
    dataset = ImageDataset(folder, transform=ResizeCrop(224))
    total = 0.0
    seen = []
    # max_skipped=None: however many are broken; the default stops at one in a hundred.
    samples = penstock.iterate(dataset, workers=4, on_error="skip", max_skipped=None)
    # A sample is (image, index), or (image, label, index) for a folder of classes.
    for index, (image, *_) in samples:
        total += float(image.float().mean())
        seen.append(index)
    for error in samples.skipped:
        print(f"skipped {error.source}: {type(error.cause).__name__}")
    whole = len(dataset) - len(samples.skipped)
    print(f"mean brightness {total / len(seen):.1f}")
    print(f"{len(set(seen))} of {whole}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else PHOTOS)
