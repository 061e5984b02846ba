"""What penstock did for a program: the figures, and the summary in words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from penstock.observe.words import counted, duration, printable
from penstock.takeover.place import Place

_MEGABYTE = 1e6


@dataclass(frozen=True)
class PlaceReport:
    """The loaders that one line of code made.

    Attributes:
        place: the line.
        loaders: how many it made.
        epochs: epochs of them that penstock ran.
        batches: batches handed over in those.
        samples: samples in them, as far as their number is known.
        skipped: samples left out.
        restarts: workers that died and were replaced.
        workers: worker processes of one epoch; the most, if they differ.
        elapsed_s: seconds that the epochs took, together.
        waited_s: seconds of those in which the training loop waited for a batch.
        worker_s: seconds that all workers together were there for.
        busy_s: seconds of those in which they made batches.
        shared_bytes: shared memory of one epoch's batches; the most, if they differ.
        left: how many epochs were left to torch's own loader, by the reason.
    """

    place: Place
    loaders: int = 0
    epochs: int = 0
    batches: int = 0
    samples: int = 0
    skipped: int = 0
    restarts: int = 0
    workers: int = 0
    elapsed_s: float = 0.0
    waited_s: float = 0.0
    worker_s: float = 0.0
    busy_s: float = 0.0
    shared_bytes: int = 0
    left: dict[str, int] = field(default_factory=dict)

    @property
    def wait_share(self) -> float:
        """The share of its epochs' time in which the training loop waited, from 0 to 1."""
        return min(1.0, self.waited_s / self.elapsed_s) if self.elapsed_s else 0.0

    @property
    def busy_share(self) -> float:
        """The share of the workers' time in which they worked, from 0 to 1."""
        return min(1.0, self.busy_s / self.worker_s) if self.worker_s else 0.0


@dataclass(frozen=True)
class Report:
    """What penstock did for a program; as text, the summary for people.

    Attributes:
        places: the loaders, by the line that made them, in the order in which they came.
    """

    places: tuple[PlaceReport, ...]

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> Iterator[str]:
        """The summary, line by line; the first is its title."""
        yield "penstock: summary"
        if not self.places:
            yield "  no torch.utils.data.DataLoader was made or iterated, and nothing was changed"
            return
        for each in self.places:
            yield f"  {printable(str(each.place))}: {_loaders(each)}"
            yield from (f"    {line}" for line in _figures(each))
            for reason, epochs in each.left.items():
                whose = "its epoch was" if epochs == 1 else f"{epochs:,} epochs were"
                yield f"    {whose} left to torch's own loader: {printable(reason)}"
        taken = sum(each.epochs for each in self.places)
        if taken:
            yield (
                f"  changed: {counted(taken, 'epoch')} of torch.utils.data.DataLoader ran by "
                "penstock; the class and every name of it stayed torch's"
            )
            yield f"  gained: {self._gained()}"

    def _gained(self) -> str:
        restarts = sum(each.restarts for each in self.places)
        skipped = sum(each.skipped for each in self.places)
        gains = []
        if restarts:
            gains.append(f"{_deaths(restarts)}, where torch's loader ends with an error")
        if skipped:
            gains.append(f"{counted(skipped, 'bad sample')} did not end the program")
        if not gains:
            gains.append("nothing that one run can show, since no worker died")
        return "; ".join(gains) + ". Whether it was faster, only a run without penstock can tell"


def _loaders(each: PlaceReport) -> str:
    made = counted(each.loaders, "loader") if each.loaders else "loaders made before"
    if not each.epochs:
        return f"{made}, {'no epoch by penstock' if each.left else 'never iterated'}"
    batches = "1 batch" if each.batches == 1 else f"{each.batches:,} batches"
    return (
        f"{made}, {counted(each.epochs, 'epoch')}, {batches}, "
        f"{counted(each.samples, 'sample')} in {duration(each.elapsed_s)}"
    )


def _figures(each: PlaceReport) -> Iterator[str]:
    if not each.epochs:
        return
    yield f"the loop waited {duration(each.waited_s)} for data, {each.wait_share:.0%} of that time"
    if each.workers:
        shared = (
            f"{each.shared_bytes / _MEGABYTE:,.1f} MB of shared memory"
            if each.shared_bytes
            else "no shared memory, for batches as small as these"
        )
        workers = counted(each.workers, "worker")
        yield f"{workers}, busy {each.busy_share:.0%} of the time; {shared}"
    else:
        yield "no workers: the training process made the samples itself"
    if each.restarts:
        yield _deaths(each.restarts)
    if each.skipped:
        were = "was" if each.skipped == 1 else "were"
        yield f"{counted(each.skipped, 'sample')} {were} skipped"


def _deaths(number: int) -> str:
    return (
        "1 worker died and was replaced"
        if number == 1
        else f"{number:,} workers died and were replaced"
    )
