"""Samples that wait, as those do that come over a network: they take time, and no processor."""

from __future__ import annotations

import random
import time

from torch.utils.data import Dataset

USUAL_S, SLOW_S, SLOW_IN_A_HUNDRED = 0.001, 0.1, 1


class Stragglers(Dataset[int]):
    """Samples of 1 ms, and by chance one in a hundred of 100 ms; which ones follows from a seed."""

    def __init__(self, length: int) -> None:
        draw = random.Random(0)
        self.is_slow = [draw.randrange(100) < SLOW_IN_A_HUNDRED for _ in range(length)]

    def __len__(self) -> int:
        return len(self.is_slow)

    def __getitem__(self, index: int) -> int:
        time.sleep(SLOW_S if self.is_slow[index] else USUAL_S)
        return index


class Waiting(Dataset[int]):
    """Samples of 1 ms each."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> int:
        time.sleep(USUAL_S)
        return index
