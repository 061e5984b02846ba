"""What was asked for on the command line."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any, Literal

from penstock.observe.words import counted, printable


class OnErrorChoice(str, Enum):
    """What happens to a picture that cannot be read."""

    RAISE = "raise"
    SKIP = "skip"


class Order(str, Enum):
    """In which order the batches come."""

    PLAN = "plan"
    COMPLETED = "completed"


class StartMethod(str, Enum):
    """How worker processes are started."""

    FORK = "fork"
    FORKSERVER = "forkserver"
    SPAWN = "spawn"


@dataclass(frozen=True)
class Request:
    """The arguments of `penstock iterate`, checked as far as that goes without the data.

    Attributes:
        source: a folder, a glob, or one picture.
        workers: worker processes; 0 makes the samples in the main process.
        batch_size: samples a batch.
        size: height and width of a sample in pixels.
        on_error: whether a picture that cannot be read stops the run.
        max_skipped: how many may be skipped: a count, a fraction, or None for no limit.
        in_order: whether batches come in the order of the plan.
        start_method: of the workers; None leaves the choice to the loader.
        shuffle: whether the order is random.
        seed: what a random order is drawn from.
        strict: whether a skipped picture makes the exit code 3.
        json: whether the report is JSON.
        traceback: whether an error comes with its traceback.
    """

    source: str
    workers: int
    batch_size: int
    size: int
    on_error: Literal["raise", "skip"]
    max_skipped: int | float | None
    in_order: bool
    start_method: Literal["fork", "forkserver", "spawn"] | None
    shuffle: bool
    seed: int
    strict: bool
    json: bool
    traceback: bool

    @property
    def headline(self) -> str:
        """The request in one line, as far as it shapes the run."""
        parts = [
            printable(self.source),
            counted(self.workers, "worker") if self.workers else "no workers",
            f"batches of {self.batch_size:,}",
            f"{self.size}×{self.size}",
        ]
        if self.shuffle:
            parts.append(f"shuffled, seed {self.seed}")
        return " · ".join(parts)

    def settings(self) -> dict[str, Any]:
        """What a report needs to say for the run to be repeated."""
        settings = asdict(self)
        for name in ("source", "json", "traceback"):
            del settings[name]
        return settings
