"""Runs one scenario: the program that iterates the loader, and does with it what programs do."""

from __future__ import annotations

import gc
import itertools
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.soak.account import Account
from tests.soak.datasets import is_whole, parts
from tests.soak.faults import Faults
from tests.soak.scenario import Scenario
from tests.support.leaks import take_census, wait_no_leaks

# What is let go of asynchronously is gone by then.
_LEAK_TIMEOUT_S = 10.0
_MOST_KEPT = 12
_DONE = {"break": "broken off", "drop": "dropped", "resume": "resumed"}


@dataclass
class Outcome:
    """What came of a scenario."""

    deliveries: int = 0
    lost: int = 0
    duplicated: int = 0
    leaked: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def run(scenario: Scenario) -> Outcome:
    """Runs a scenario and accounts for all of it."""
    before = take_census()
    outcome = Outcome()
    with (
        tempfile.TemporaryDirectory(prefix="penstock-soak-") as notes,
        Faults(scenario).under_way() as faults,
    ):
        try:
            _Program(scenario, Path(notes), outcome, faults.note_progress).run()
        except Exception as error:
            outcome.wrong.append(_told(error))
            # Its frames hold the iterator.
            error.__traceback__ = None
        outcome.faults += faults.landed
        outcome.faults["died at a sample"] += len(list(Path(notes).iterdir()))
        # Workers that are stopped go on meanwhile, and leave.
        leaks = wait_no_leaks(before, _LEAK_TIMEOUT_S)
    outcome.leaked = len(leaks)
    outcome.wrong += [f"left behind: {leak}" for leak in leaks]
    return outcome


def _told(error: BaseException) -> str:
    return f"raised {type(error).__name__}: {error} (because of {error.__cause__!r})"[:1500]


class _Program:
    """The training program."""

    def __init__(
        self,
        scenario: Scenario,
        notes: Path,
        outcome: Outcome,
        note_progress: Callable[[], None],
    ) -> None:
        self._note_progress = note_progress
        self._scenario = scenario
        self._notes = notes
        self._outcome = outcome
        self._chance = random.Random(f"{scenario.name} program")
        self._loader = scenario.loader(notes)
        self._kept: list[Any] = []

    def run(self) -> None:
        """All epochs."""
        references = self._references()
        iterator: Iterator[Any] | None = None
        for act, reference in zip(self._scenario.acts, references, strict=False):
            account = Account(self._scenario, reference)
            # The iterator of an epoch that was broken off lives until the next has begun.
            iterator = iter(self._loader)
            most = 0 if act == "whole" else self._chance.randrange(1, 6)
            over = self._consume(iterator, account, most)
            if not over:
                self._outcome.faults[_DONE[act]] += 1
                if act != "break":
                    iterator = None
                    gc.collect()
                if act == "resume":
                    account.skip(self._loader.skipped)
                    self._resume()
                    iterator = iter(self._loader)
                    over = self._consume(iterator, account)
            account.skip(self._loader.skipped)
            account.close(whole=over)
            self._enter(account)
        self._check_kept()

    def _references(self) -> Iterator[list[tuple[int, float]]]:
        """Each epoch's order, with the random numbers of its samples."""
        if self._scenario.stream:
            yield from itertools.repeat([])
        reference = self._scenario.reference()
        while True:
            yield [pair for batch in reference for pair in zip(*parts(batch)[:2], strict=True)]

    def _consume(self, iterator: Iterator[Any], account: Account, most: int = 0) -> bool:
        """Takes batches; whether there are no more."""
        for number in itertools.count(1):
            try:
                batch = next(iterator)
            except StopIteration:
                return True
            except Exception as error:
                account.refuse(error)
                self._note_progress()
                continue
            self._note_progress()
            account.take(batch)
            self._live_on(batch)
            if number == most:
                return False
        raise AssertionError

    def _live_on(self, batch: Any) -> None:
        """Computes, keeps a batch, lets go of others, collects garbage."""
        chance = self._chance.random()
        if chance < 0.2:
            time.sleep(self._chance.uniform(0.0, 0.01))
        elif chance < 0.4:
            self._kept.append(batch)
            if len(self._kept) > _MOST_KEPT:
                self._check_kept()
                del self._kept[:: self._chance.choice([1, 2])]
        elif chance < 0.43:
            gc.collect()

    def _check_kept(self) -> None:
        for batch in self._kept:
            if not is_whole(batch, self._scenario.shape, self._scenario.size):
                self._outcome.wrong.append(f"a batch that was kept has changed: {parts(batch)[0]}")

    def _resume(self) -> None:
        """Another loader goes on where this one is; of a map-style dataset, with other workers."""
        state = json.loads(json.dumps(self._loader.state_dict()))
        changes = {} if self._scenario.stream else {"num_workers": self._chance.choice([1, 2, 3])}
        self._loader = self._scenario.loader(self._notes, **changes)
        self._loader.load_state_dict(state)

    def _enter(self, account: Account) -> None:
        outcome = self._outcome
        outcome.deliveries += len(account.delivered)
        outcome.lost += account.lost
        outcome.duplicated += account.duplicated
        outcome.faults += account.faults
        outcome.wrong += account.wrong
