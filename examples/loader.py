"""Way 2: a `DataLoader` with workers, in a training loop that bad files do not end.

With torch's loader one unreadable picture ends the run, or arrives as the None that
`default_collate` does not take. Here it is left out by name, its place is taken by another, and
every batch but the last stays full.

    python examples/loader.py [FOLDER]
"""

import sys
from pathlib import Path

import torch

from penstock import DataLoader
from penstock.datasets import ImageDataset, ResizeCrop

PHOTOS = Path(__file__).parent / "photos"


def main(folder: Path) -> None:
    torch.manual_seed(0)
    loader = DataLoader(
        ImageDataset(folder, transform=ResizeCrop(64)),
        batch_size=8,
        shuffle=True,
        num_workers=2,
        seed=0,
        on_error="skip",
        max_skipped=None,
    )
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 64 * 64, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    for epoch in range(2):
        seen: set[int] = set()
        # A sample is (image, index), or (image, label, index) for a folder of classes.
        for images, *_, indices in loader:
            # Guesses how bright a picture is: an aim that any pictures can serve.
            inputs = images.float() / 255
            loss = (model(inputs).squeeze(1) - inputs.mean((1, 2, 3))).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seen.update(indices.tolist())
        for error in loader.skipped:
            print(f"skipped {error.source}: {type(error.cause).__name__}")
        whole = len(loader.dataset) - len(loader.skipped)  # type: ignore[arg-type]
        print(f"epoch {epoch}: loss {loss.item():.4f}, {len(seen)} of {whole}")
    print(f"the loop waited {loader.statistics().wait_share:.0%} of the time")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else PHOTOS)
