"""What happened in a run: gathered while it goes on, told at its end."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.text import Text

import penstock
from penstock.cli.explain import reason
from penstock.cli.request import Request
from penstock.errors import SampleError
from penstock.observe import Statistics
from penstock.observe.progress import rounded
from penstock.observe.words import counted, duration, printable

# Of a longer list of skipped pictures, so many are shown from its beginning and from its end.
SHOWN_FIRST = 12
SHOWN_LAST = 4


@dataclass(frozen=True)
class Trouble:
    """Why a run did not come to its end.

    Attributes:
        kind: the name of the exception's type.
        message: for people.
    """

    kind: str
    message: str


@dataclass
class Report:
    """The account of one run; whoever runs it fills it in, and it can be told at any moment.

    Attributes:
        request: what was asked for.
        begun: whether the workers were started, so that there is something to tell.
        total: pictures in the source.
        samples: pictures that arrived.
        missing: pictures that neither arrived nor were skipped.
        repeated: pictures that did so more than once.
        skipped: those that could not be read.
        statistics: the loader's counts and times.
        wait_share: the share of the time in which nothing was there to consume, from 0 to 1.
        outcome: "complete", "stopped", "refused" or "interrupted".
        exit_code: of the program.
        trouble: why it did not come to its end, if so.
    """

    request: Request
    begun: bool = False
    total: int = 0
    samples: int = 0
    missing: int = 0
    repeated: int = 0
    skipped: list[SampleError] = field(default_factory=list)
    statistics: Statistics = field(default_factory=Statistics)
    wait_share: float = 0.0
    outcome: str = "complete"
    exit_code: int = 0
    trouble: Trouble | None = None

    def as_json(self) -> str:
        """The whole report as a JSON object, on one line."""
        return json.dumps(self.as_dict())

    def as_dict(self) -> dict[str, Any]:
        """What `as_json` says; times in seconds, shares from 0 to 1."""
        numbers = self.statistics
        first_s = numbers.first_batch_s
        trouble = self.trouble
        return {
            "penstock": penstock.__version__,
            "outcome": self.outcome,
            "exit_code": self.exit_code,
            "error": trouble and {"type": trouble.kind, "message": trouble.message},
            "source": self.request.source,
            "settings": self.request.settings(),
            "total": self.total,
            "samples": self.samples,
            "skipped": len(self.skipped),
            "skipped_samples": [
                {"index": error.index, "path": error.source, "reason": reason(error)}
                for error in self.skipped
            ],
            "batches": numbers.batches,
            "elapsed_s": round(numbers.elapsed_s, 6),
            "samples_per_s": round(self.samples_per_s, 3),
            "first_batch_s": None if first_s is None else round(first_s, 6),
            "wait_share": round(self.wait_share, 6),
            "busy_share": round(numbers.busy_share, 6),
            "worker_restarts": numbers.restarts,
        }

    def as_text(self) -> Iterator[Text]:
        """The report for people, line by line."""
        if self.skipped:
            yield Text()
            yield Text(f"{len(self.skipped):,} skipped", style="bold yellow")
            yield from _shortened([_skipped_line(error) for error in self.skipped])
        if self.samples:
            yield Text()
            for name, value in self._figures():
                yield Text.assemble((f"  {name:<14}", "dim"), value)
        yield Text()
        yield self._verdict()

    def _figures(self) -> Iterator[tuple[str, str]]:
        numbers = self.statistics
        first_s = numbers.first_batch_s
        yield "samples", f"{self.samples:,} in {_batches(numbers.batches)}"
        yield "rate", f"{rounded(self.samples_per_s)} samples/s over {duration(numbers.elapsed_s)}"
        if first_s is not None:
            yield "first batch", f"after {duration(first_s)}"
        yield (
            "consumer",
            f"waited for data {self.wait_share:.0%} of the time (it does nothing else here)",
        )
        if numbers.workers:
            busy = f"{numbers.workers:,}, busy {numbers.busy_share:.0%} of the time"
            yield "workers", busy + _deaths(numbers.restarts)

    def _verdict(self) -> Text:
        sums = f"{self.samples:,} read + {len(self.skipped):,} skipped"
        pictures = counted(self.total, "picture")
        if self.outcome == "complete":
            style = "bold yellow" if self.skipped else "bold green"
            return Text.assemble(("complete", style), f": {sums} = {pictures}")
        return Text.assemble((self.outcome, "bold red"), f": {sums} of {pictures}")

    @property
    def samples_per_s(self) -> float:
        """Over the whole run."""
        elapsed_s = self.statistics.elapsed_s
        return self.samples / elapsed_s if elapsed_s else 0.0


def _batches(number: int) -> str:
    return "1 batch" if number == 1 else f"{number:,} batches"


def _deaths(number: int) -> str:
    if not number:
        return ""
    return ", 1 died and was replaced" if number == 1 else f", {number:,} died and were replaced"


def _skipped_line(error: SampleError) -> Text:
    return Text.assemble(f"  {printable(error.source)}: ", (reason(error), "yellow"))


def _shortened(lines: Sequence[Text]) -> Iterator[Text]:
    hidden = len(lines) - SHOWN_FIRST - SHOWN_LAST
    if hidden <= 1:
        yield from lines
        return
    yield from lines[:SHOWN_FIRST]
    yield Text(f"  … {hidden:,} more; --json names them all …", style="dim")
    yield from lines[-SHOWN_LAST:]
