"""Photographs at speed: random crops, the same ones every run, as bytes until the device has them.

By hand this is `RandomResizedCrop`, `RandomHorizontalFlip`, `ToTensor` and `Normalize` for every
picture: decoded whole, scaled by Pillow, and moved about as floats. Here only what a crop shows is
decoded, batches are uint8, and the model's own device makes floats of them.

    python examples/photographs.py [FOLDER]
"""

import sys
from pathlib import Path

import torch

from penstock import DataLoader
from penstock.datasets import ImageDataset, Normalize, RandomResizedCrop

PHOTOS = Path(__file__).parent / "photos"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def crops(folder: Path, workers: int) -> list[torch.Tensor]:
    """One epoch of batches, sample by sample in the order of their numbers."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dataset = ImageDataset(folder, transform=RandomResizedCrop(96, layout="HWC"))
    loader = DataLoader(
        dataset,
        batch_size=8,
        shuffle=True,
        num_workers=workers,
        seed=0,
        on_error="skip",
        max_skipped=None,
    )
    normalize = Normalize(MEAN, STD, layout="HWC").to(device)
    found: dict[int, torch.Tensor] = {}
    # A sample is (image, index), or (image, label, index) for a folder of classes.
    for images, *_, indices in loader:
        batch = normalize(images.to(device, non_blocking=True))
        found.update(zip(indices.tolist(), batch.cpu(), strict=True))
    for error in loader.skipped:
        print(f"skipped {error.source}: {type(error.cause).__name__}")
    whole = len(dataset) - len(loader.skipped)
    print(f"{dataset.decoder}, {workers} workers: {len(found)} of {whole}")
    return [found[index] for index in sorted(found)]


def main(folder: Path) -> None:
    first, second = crops(folder, workers=2), crops(folder, workers=0)
    same = all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    print(f"crops and flips: {'the same in every bit' if same else 'different'}")
    print(f"mean {torch.stack(first).mean():.2f}, deviation {torch.stack(first).std():.2f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else PHOTOS)
