"""Penstock's loader beside torch's: for any settings the same batches, or the same exception.

It tries `PENSTOCK_FUZZ_CASES` loaders, 300 unless set, which are the same each time unless
`PENSTOCK_FUZZ_SEED` is another; `make fuzz` tries 5,000 that nobody has tried.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, seed, settings
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

import penstock
from tests.fuzz.scenarios import CASES, SEED, Scenario, scenarios

pytestmark = [
    pytest.mark.usefixtures("no_leaks"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    pytest.mark.timeout(60 + 2 * CASES),
]

# So many tests, since one that takes long is reported as one that hangs.
PARTS = max(1, CASES // 30)

Outcome = tuple[str, Any]
# Behind so many errors in one epoch torch's loader and ours have said all that there is to say.
MOST_ERRORS = 40


def described(value: Any) -> Any:
    """A value with all that makes it equal to another: types, dtypes, shapes, and contents."""
    if isinstance(value, torch.Tensor):
        return "tensor", str(value.dtype), tuple(value.shape), repr(value.tolist())
    if isinstance(value, np.ndarray):
        return "array", str(value.dtype), value.shape, repr(value.tolist())
    if isinstance(value, dict):
        return "dict", tuple((key, described(part)) for key, part in value.items())
    if isinstance(value, (list, tuple)):
        return type(value).__name__, tuple(described(part) for part in value)
    return type(value).__name__, repr(value)


def step(iterator: Any) -> Outcome | None:
    """What the next `next()` brings; None at the end."""
    try:
        return "batch", described(next(iterator))
    except StopIteration:
        return None
    except Exception as error:
        return "error", type(error).__name__


def epoch(loader: Any, end: int | None) -> tuple[list[Outcome], bool]:
    """One epoch, or its beginning, and whether it came to its end."""
    outcomes: list[Outcome] = []
    iterator = iter(loader)
    try:
        while end is None or len(outcomes) < end:
            outcome = step(iterator)
            if outcome is None:
                return outcomes, True
            outcomes.append(outcome)
            if len(outcomes) > MOST_ERRORS * 10:
                raise AssertionError("the epoch does not end")
        return outcomes, False
    finally:
        if not loader.persistent_workers:
            shut_down(iterator)


def shut_down(iterator: Any) -> None:
    """Ends the workers of an iterator of torch's.

    One that has raised is part of a cycle, and the garbage collector takes its queues from it
    before it ends its workers, which then takes five seconds for each.
    """
    if isinstance(iterator, _MultiProcessingDataLoaderIter):
        iterator._shutdown_workers()


def seed_everything() -> None:
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)


def run(scenario: Scenario, loader_class: Any) -> list[Any]:
    """All epochs of a scenario; or the type of the constructor's error."""
    seed_everything()
    try:
        loader = scenario.loader(loader_class)
    except Exception as error:
        return [error]
    try:
        return [*(epoch(loader, end) for end in scenario.ends), ("random", torch.rand(2).tolist())]
    finally:
        shut_down(loader._iterator)


def alike(ours: Any, theirs: Any, *, in_order: bool) -> bool:
    """Whether an epoch's outcomes agree; if its order is free, whatever of it came."""
    (mine, complete), (torchs, also_complete) = ours, theirs
    if in_order:
        return bool(ours == theirs)
    if complete and also_complete:
        return Counter(mine) == Counter(torchs)
    return bool(complete == also_complete and len(mine) == len(torchs))


@pytest.mark.parametrize("part", range(PARTS))
def test_any_loader_does_what_torchs_does(part):
    @seed(SEED + part)
    @given(scenarios())
    @settings(
        max_examples=CASES // PARTS,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    def compare_all(scenario: Scenario) -> None:
        compare(scenario)

    compare_all()


def compare(scenario: Scenario) -> None:
    """Runs a scenario with either loader."""
    theirs = run(scenario, TorchDataLoader)
    ours = run(scenario, penstock.DataLoader)
    if isinstance(theirs[0], Exception):
        assert isinstance(ours[0], type(theirs[0]))
        return
    assert len(ours) == len(theirs)
    for number, (mine, torchs) in enumerate(zip(ours[:-1], theirs[:-1], strict=True)):
        assert alike(mine, torchs, in_order=scenario.in_order), f"epoch {number}"
    assert ours[-1] == theirs[-1], "torch's generator stands elsewhere"
    if scenario.resume is not None:
        check_resumed(scenario)


def check_resumed(scenario: Scenario) -> None:
    """Saved at a step of the first epoch and taken up by another loader, nothing changes."""
    at, others = scenario.resume  # type: ignore[misc]
    seed_everything()
    undisturbed = scenario.loader(penstock.DataLoader)
    whole = epoch(undisturbed, None)[0], epoch(undisturbed, None)[0]
    seed_everything()
    first = scenario.loader(penstock.DataLoader)
    iterator = iter(first)
    before: list[Outcome] = []
    while len(before) < at and (outcome := step(iterator)) is not None:
        before.append(outcome)
    over = len(before) < at
    state = json.loads(json.dumps(first.state_dict()))
    del iterator
    torch.manual_seed(4)
    second = scenario.loader(penstock.DataLoader, **{**_CLEARED, **others})
    second.load_state_dict(state)
    rest = [] if over else epoch(second, None)[0]
    after = epoch(second, None)[0]
    if scenario.in_order:
        assert before + rest == whole[0], "the rest of the epoch"
        assert after == whole[1], "the epoch after"
    else:
        assert Counter(before + rest) == Counter(whole[0])
        assert Counter(after) == Counter(whole[1])


# What a loader without workers must not be given.
_CLEARED = {
    "multiprocessing_context": None,
    "prefetch_factor": None,
    "persistent_workers": False,
    "in_order": True,
}
