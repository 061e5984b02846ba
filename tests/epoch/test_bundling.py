"""Epochs whose batches are lent several at once, to workers that die, fail, or answer late.

Whatever happens, the loop is given what one worker without any trouble would give, and nothing that
workers have sent is lost or used twice.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.schedule import Bundling
from tests.epoch.simulation import (
    assert_given_up,
    assert_nothing_is_lost,
    run,
    scenarios,
    tapes,
)
from tests.schedule.simulation import Scenario, run_sequentially


class BundlesOf(Bundling):
    """So many at once, whatever they cost."""

    most = 3

    @property
    def size(self) -> int:
        return self.most if self._may else 1


@pytest.fixture(autouse=True, scope="module")
def _bundles_of_three():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("penstock.epoch.incoming.Bundling", BundlesOf)
        yield


plans = scenarios().map(lambda scenario: replace(scenario, kind="given", asks=False, raises=True))


@settings(max_examples=400, deadline=None)
@given(plans, tapes)
def test_an_epoch_in_bundles_is_as_one_worker_would_give_it(scenario, tape):
    deliveries, engine, _ = run(scenario, tape, None, bundles=True)
    # The error of a sample that kills is told with its certificate.
    told = ["error" if batch[0] == "error" else batch for batch in deliveries]
    assert told == [
        "error" if any(sample in scenario.fates for sample in chunk) else tuple(chunk)
        for chunk in scenario.chunks()
    ]
    assert_nothing_is_lost(engine)


@settings(max_examples=100, deadline=None)
@given(plans, tapes, st.integers(0, 3))
def test_where_an_epoch_is_broken_off_all_that_has_arrived_is_given_up(scenario, tape, after):
    _, engine, _ = run(scenario, tape, None, bundles=True, stop_after=after)
    assert_given_up(engine)


def scenario(samples: int = 24, *, window: int = 8, **fates: str) -> Scenario:
    named = {int(sample[1:]): fate for sample, fate in fates.items()}
    return Scenario(
        "given",
        samples,
        2,
        seats=2,
        window=window,
        in_order=True,
        asks=False,
        raises=True,
        fates=named,
    )


def test_without_trouble_all_are_lent_together():
    nine = scenario(18, window=9)
    deliveries, engine, _ = run(nine, [], None, bundles=True)
    assert deliveries == run_sequentially(nine).deliveries
    assert (engine.bundled, engine.lent) == (9, 3)


def test_a_batch_that_cannot_be_made_costs_no_other():
    broken = scenario(s3="break")
    deliveries, engine, _ = run(broken, [], None, bundles=True)
    assert deliveries[:3] == [(0, 1), ("error", (2, 3)), (4, 5)]
    assert deliveries == run_sequentially(broken).deliveries
    assert engine.bundled < 12, "behind that, batches are lent by themselves"


def test_a_narrow_window_is_not_exceeded():
    deliveries, engine, _ = run(scenario(window=2), [], None, bundles=True)
    assert deliveries == run_sequentially(scenario()).deliveries
    assert engine.most_lent <= 2
