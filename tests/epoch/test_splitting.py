"""Epochs whose batches are made in parts, by workers that die, fail, answer late or want memory.

Whatever happens, the loop is given what one worker without any trouble would give, and nothing that
workers have sent is lost or used twice.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.epoch.simulation import assert_given_up, assert_nothing_is_lost, run, scenarios, tapes
from tests.schedule.simulation import Scenario, run_sequentially


@settings(max_examples=300, deadline=None)
@given(scenarios(), tapes, st.integers(1, 4))
def test_an_epoch_in_parts_is_as_one_worker_would_give_it(scenario, tape, part):
    deliveries, engine, skipped = run(scenario, tape, part)
    expected = run_sequentially(scenario)
    assert deliveries == expected.deliveries
    assert skipped == expected.skipped
    assert_nothing_is_lost(engine)


@settings(max_examples=100, deadline=None)
@given(scenarios(), tapes, st.integers(1, 4), st.integers(0, 3))
def test_where_an_epoch_is_broken_off_all_that_has_arrived_is_given_up(scenario, tape, part, after):
    _, engine, _ = run(scenario, tape, part, stop_after=after)
    assert_given_up(engine)


def test_without_trouble_each_batch_is_made_in_its_parts():
    scenario = Scenario("given", samples=24, batch_size=6, seats=3, window=6, in_order=True)
    deliveries, engine, _ = run(scenario, [], 2)
    assert deliveries == run_sequentially(scenario).deliveries
    assert (engine.parts >= 12, engine.gathered) == (True, 4)


def test_parts_that_have_arrived_are_given_up_with_the_epoch():
    scenario = Scenario("given", samples=12, batch_size=6, seats=3, window=2, in_order=True)
    # One worker after another makes a part, and each is heard at once.
    _, engine, _ = run(scenario, [0, 8, 16, 8, 32, 8] * 9, 1, stop_after=1)
    assert [result.uses for result in engine.results if result.uses == ["discarded"]]
