from __future__ import annotations

import pytest

from benchmarks.outcome import PASSED, SHORT, SHOWN, Outcome, Spread
from benchmarks.row import LIMIT, MS, PENSTOCK, TORCH, Case, at_least, at_most
from tests.benchmarks.outcomes import outcome


def test_a_ratio_of_rates_is_taken_round_by_round_and_then_its_median() -> None:
    # A machine that is slow in the first round: the medians alone would say 6 / 2.
    measured = outcome([30.0, 4.0, 6.0], [6.0, 2.0, 1.0])
    assert measured.against(TORCH) == Spread(5.0, 2.0, 6.0)


def test_a_ratio_of_costs_is_ours_over_theirs() -> None:
    measured = outcome([4.0, 10.0, 5.0], [1.0, 1.0, 1.0], torch=at_most(0.5))
    assert measured.against(TORCH) == Spread(0.2, 0.1, 0.25)


@pytest.mark.parametrize(
    ("required", "penstock_s", "verdict"),
    [
        (at_least(4), 2.5, PASSED),
        (at_least(4), 2.6, SHORT),
        (at_most(0.25), 2.5, PASSED),
        (at_most(0.25), 2.6, SHORT),
    ],
)
def test_a_figure_falls_short_beyond_its_bound(required, penstock_s: float, verdict: str) -> None:
    measured = outcome([10.0], [penstock_s], torch=required)
    assert measured.verdict == verdict
    assert measured.is_short == (verdict == SHORT)


def test_both_requirements_have_to_be_met() -> None:
    limits = {"torch": at_least(2), "limit": at_least(0.9)}
    assert outcome([4.0], [1.0], [0.95], **limits).verdict == PASSED
    assert outcome([4.0], [1.0], [0.80], **limits).verdict == SHORT
    assert outcome([1.5], [1.0], [0.95], **limits).verdict == SHORT


def test_what_is_required_and_was_not_measured_falls_short() -> None:
    case = Case("", MS, at_least(2), at_least(0.9))
    figures = {TORCH: [4.0], PENSTOCK: [1.0]}
    assert Outcome(1, "row", case, figures, {LIMIT: "it failed"}).verdict == SHORT
    assert Outcome(1, "row", Case("", MS), {TORCH: [4.0]}, {PENSTOCK: "no"}).verdict == SHORT


def test_a_case_without_a_requirement_is_not_judged() -> None:
    assert Outcome(1, "row", Case("", MS), {TORCH: [1.0], PENSTOCK: [9.0]}).verdict == SHOWN


def test_a_size_that_is_not_judged_falls_short_only_where_nothing_was_measured() -> None:
    case = Case("", MS, at_least(2))
    figures = {TORCH: [1.0], PENSTOCK: [9.0]}
    assert Outcome(1, "row", case, figures, judged=False).verdict == SHOWN
    assert Outcome(1, "row", case, {}, {PENSTOCK: "no"}, judged=False).verdict == SHORT


def test_no_cost_at_all_is_infinitely_better_and_as_good_as_none() -> None:
    assert at_least(20).ratio(0.0, 1.0) == float("inf")
    assert at_least(20).ratio(0.0, 0.0) == 1.0
    assert at_most(0.25).ratio(0.0, 1.0) == 0.0
    assert not at_most(0.25).holds(at_most(0.25).ratio(1.0, 0.0))


def test_loaders_that_share_a_reason_are_named_together() -> None:
    missing = {TORCH: "no photographs", PENSTOCK: "no photographs", LIMIT: "it failed"}
    measured = Outcome(5, "photographs", Case("", MS), {}, missing)
    assert measured.reasons == ["torch, penstock: no photographs", "limit: it failed"]
