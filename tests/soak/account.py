"""What an epoch must give, and what it gave."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from penstock.errors import SampleError, SampleKilledWorker
from tests.soak.datasets import BadSampleError, is_whole, parts
from tests.soak.scenario import Scenario

# What is raised, or recorded, for a sample that befalls this.
_CAUSES: dict[str, type[BaseException]] = {
    "raise": BadSampleError,
    "none": TypeError,
    "poison-kill": SampleKilledWorker,
    "poison-exit": SampleKilledWorker,
}


class Account:
    """One epoch's samples.

    Args:
        scenario: of what.
        reference: each sample's index and random number in the epoch's order; none of a stream.

    Attributes:
        delivered: the indices that came, in their order.
        faults: what of the plan has landed.
        wrong: a line for each thing that is not as it must be.
        lost: samples that did not come.
        duplicated: samples that came more than once.
    """

    def __init__(self, scenario: Scenario, reference: Sequence[tuple[int, float]]) -> None:
        self._scenario = scenario
        self._order = [index for index, _ in reference] or list(range(scenario.length))
        self._noise = dict(reference)
        self._skipped: list[SampleError] = []
        self._raised: list[int] = []
        self.delivered: list[int] = []
        self.faults: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.lost = 0
        self.duplicated = 0

    def take(self, batch: Any) -> None:
        """A batch came."""
        indices, noise, _ = parts(batch)
        self.delivered += indices
        if not is_whole(batch, self._scenario.shape, self._scenario.size):
            self.wrong.append(f"the content of the batch of {indices} is another")
        for index, number in zip(indices, noise, strict=True):
            if self._noise.get(index, number) != number:
                self.wrong.append(f"the random number of sample {index} is another")
        plan = self._scenario.plan
        self.faults["slow"] += sum(plan.get(index) == "slow" for index in indices)

    def refuse(self, error: Exception) -> None:
        """`next()` raised this.

        Raises:
            Exception: the same, if no sample is to blame.
        """
        record = error.__cause__
        if not isinstance(record, SampleError) or self._scenario.settings["on_error"] != "raise":
            raise error
        self._judge(record)
        self._raised.append(int(record.index))  # type: ignore[call-overload]

    def skip(self, records: Sequence[SampleError]) -> None:
        """What the loader has in `skipped` behind the epoch, or a part of it."""
        indices = [record.index for record in records]
        if len(set(indices)) < len(indices):
            self.wrong.append(f"samples were skipped more than once: {indices}")
        for record in records:
            self._judge(record)
        self._skipped += records

    def _judge(self, record: SampleError) -> None:
        what = self._scenario.plan.get(int(record.index), "")  # type: ignore[call-overload]
        cause = _CAUSES.get(what)
        if cause is None:
            self.wrong.append(f"sample {record.index} is blamed for nothing: {record.cause!r:.300}")
        elif not isinstance(record.cause, cause):
            self.wrong.append(f"sample {record.index} ({what}) is blamed: {record.cause!r:.300}")
        else:
            self.faults["bad samples"] += 1

    def close(self, *, whole: bool) -> None:
        """The epoch is over, or was broken off."""
        expected = self._expected()
        came = Counter(self.delivered)
        twice = sorted(index for index, times in came.items() if times > 1)
        missing = sorted(expected - set(came)) if whole else []
        self.duplicated += len(twice)
        self.lost += len(missing)
        if twice:
            self.wrong.append(f"came more than once: {twice}")
        if missing:
            self.wrong.append(f"did not come: {missing}")
        if foreign := sorted(set(came) - expected):
            self.wrong.append(f"came, and should not have: {foreign}")
        bad = self._scenario.bad
        if not self._scenario.stream and self._scenario.settings["in_order"] and not bad:
            self._check_order()
        if whole:
            self._check_refusals(bad)

    def _expected(self) -> set[int]:
        bad = self._scenario.bad
        if self._scenario.settings["on_error"] == "skip":
            return set(self._order) - bad
        return {index for batch in self._batches() if not bad & set(batch) for index in batch}

    def _batches(self) -> list[list[int]]:
        size = self._scenario.settings["batch_size"]
        return [self._order[at : at + size] for at in range(0, len(self._order), size)]

    def _check_order(self) -> None:
        if self.delivered != self._order[: len(self.delivered)]:
            self.wrong.append(f"came in another order: {self.delivered}, not {self._order}")

    def _check_refusals(self, bad: frozenset[int]) -> None:
        if self._scenario.settings["on_error"] == "skip":
            named = {int(record.index) for record in self._skipped}  # type: ignore[call-overload]
            if named != bad:
                self.wrong.append(f"skipped are {sorted(named)}, and bad {sorted(bad)}")
            return
        broken = sum(1 for batch in self._batches() if bad & set(batch))
        if len(self._raised) != broken:
            self.wrong.append(f"{broken} batches are bad, and raised have {self._raised}")
