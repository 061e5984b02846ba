"""A training run whose workers are killed five times a second, and which does not notice.

A small network is trained twice on the same photographs: undisturbed, and with `kill -9` fired at
a random worker every 200 ms. Whoever is killed is replaced and its batch made again, random crops
included, so the two loss curves agree in every bit of every step. The program fails if they do not.

    python examples/unkillable.py [FOLDER]
"""

import contextlib
import logging
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import torch

from penstock import DataLoader
from penstock.datasets import ImageDataset, ResizeCrop

PHOTOS = Path(__file__).parent / "photos"
KILL_EVERY_S = 0.2
# On a machine that is busy with other things no worker may live long enough to make a batch: after
# so many shots for one, the next is waited for.
SHOTS_A_BATCH = 4
EPOCHS = 5
# Each picture comes so often in an epoch, cropped anew every time.
VIEWS = 3
# A moment for the disk of a training machine: on a fast one too, there is time for the kills.
READ_S = 0.01


class RandomView:
    """A random square of a picture, at times mirrored, as 3×48×48."""

    def __call__(self, image: Any) -> torch.Tensor:
        time.sleep(READ_S)
        whole = ResizeCrop(64)(image)
        top, left = torch.randint(0, 17, (2,)).tolist()
        view = whole[:, top : top + 48, left : left + 48]
        return view.flip(2) if torch.rand(()) < 0.5 else view


class Killer(threading.Thread):
    """Fires `kill -9` at a random worker, again and again, until it is told to stop."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.over = threading.Event()
        self.killed = 0
        self._shots = 0

    def step(self) -> None:
        """A batch has come."""
        self._shots = 0

    def run(self) -> None:
        aim = random.Random(0)
        while not self.over.wait(KILL_EVERY_S):
            if self._shots == SHOTS_A_BATCH:
                continue
            with contextlib.suppress(psutil.NoSuchProcess):  # It has just left by itself.
                # The fork server is a child of this process, and all its children are workers.
                children = psutil.Process().children()
                if workers := [worker for child in children for worker in child.children()]:
                    aim.choice(workers).kill()
                    self.killed += 1
                    self._shots += 1


@contextlib.contextmanager
def kills() -> Iterator[Killer]:
    killer = Killer()
    killer.start()
    try:
        yield killer
    finally:
        killer.over.set()
        killer.join()


def train(folder: Path, step: Callable[[], None] = lambda: None) -> list[float]:
    """The loss of each step; `step` is called with each."""
    torch.manual_seed(0)
    paths = sorted(map(str, folder.glob("*.jpg")))
    # The subject of a photograph is in its name: 02_astronaut.jpg.
    subjects = sorted({Path(path).stem.partition("_")[2] for path in paths})
    loader = DataLoader(
        ImageDataset(
            paths * VIEWS,
            transform=RandomView(),
            labels=lambda path: subjects.index(Path(path).stem.partition("_")[2]),
        ),
        batch_size=8,
        shuffle=True,
        num_workers=2,
        multiprocessing_context="forkserver",
        persistent_workers=True,
        seed=0,
        on_error="skip",  # Two of the pictures are broken.
        max_skipped=None,
    )
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 5, stride=2),
        torch.nn.ReLU(),
        torch.nn.Conv2d(16, 32, 3, stride=2),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(4),
        torch.nn.Flatten(),
        torch.nn.Linear(512, len(subjects)),
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    for _ in range(EPOCHS):
        for images, labels, _ in loader:
            loss = torch.nn.functional.cross_entropy(model(images.float() / 255), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            step()
    return losses


def show(title: str, losses: list[float]) -> None:
    steps = len(losses) // EPOCHS
    means = [sum(losses[at : at + steps]) / steps for at in range(0, steps * EPOCHS, steps)]
    print(f"{title:<12}", " ".join(f"{mean:.4f}" for mean in means), f"… {losses[-1].hex()}")


def main(folder: Path) -> int:
    # The same sums in the same order: what is compared is the data, not the machine's mood.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    # Each death is logged as a warning.
    logging.getLogger("penstock").setLevel(logging.ERROR)
    undisturbed = train(folder)
    show("undisturbed", undisturbed)
    with kills() as killer:
        disturbed = train(folder, killer.step)
    show("under fire", disturbed)
    same = [loss.hex() for loss in disturbed] == [loss.hex() for loss in undisturbed]
    verdict = "the same in every bit" if same else "NOT the same"
    print(f"{killer.killed} workers killed, {len(undisturbed)} losses: {verdict}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else PHOTOS))
