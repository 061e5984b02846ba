"""Way 3: a stream that splits itself, and several loaders at once.

By hand an `IterableDataset` is split with `num_processes`, `process_id` and a slice of the size
`ceil(n / num_processes)`: forget it, and every worker yields everything; mind it, and the last
slices may be empty; and loaders iterated one after another do not run at the same time. Here the
stream splits itself by worker, and two loaders are read together, each with work of its own.

    python examples/stream.py [FOLDER]
"""

import sys
from pathlib import Path

import penstock
from penstock.datasets import ImageStream, ResizeCrop

PHOTOS = Path(__file__).parent / "photos"


def main(folder: Path) -> None:
    # Two shards, each with a size of its own, each read by two workers.
    loaders = {
        name: penstock.DataLoader(
            ImageStream(folder, num_shards=2, shard=shard, transform=ResizeCrop(size)),
            batch_size=4,
            num_workers=2,
            on_error="skip",
            max_skipped=None,
        )
        for shard, (name, size) in enumerate({"small": 96, "large": 224}.items())
    }
    seen: dict[str, list[int]] = {name: [] for name in loaders}
    for name, (_, indices) in penstock.concurrent(loaders):
        seen[name] += indices.tolist()
    skipped = [error for loader in loaders.values() for error in loader.skipped]
    for error in skipped:
        print(f"skipped {error.source}: {type(error.cause).__name__}")
    everything = [index for indices in seen.values() for index in indices]
    whole = len(ImageStream(folder)) - len(skipped)
    print(", ".join(f"{len(indices)} {name}" for name, indices in seen.items()))
    print(f"{len(set(everything))} of {whole}, {len(everything) - len(set(everything))} twice")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else PHOTOS)
