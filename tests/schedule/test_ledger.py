"""The account of bad samples, and when an epoch is stopped for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from penstock.errors import OptionError, TooManySkippedError
from penstock.options import UNKNOWN_LENGTH_FLOOR_SAMPLES, ErrorPolicy
from penstock.schedule import Ledger, Replacement
from penstock.schedule.ledger import SHOWN_CAUSES
from tests.schedule.simulation import sample_error


def make_ledger(max_skipped: Any = None, planned: int | None = 100, on_error: Any = "skip"):
    return Ledger(ErrorPolicy(on_error, max_skipped), planned)


def skips_until_stopped(ledger: Ledger, most: int = 3000) -> int:
    """How many samples can be skipped before one is too many."""
    for count in range(most):
        try:
            ledger.record(sample_error(count))
        except TooManySkippedError:
            return count
    raise AssertionError(f"{most} samples were skipped without end")


@pytest.mark.parametrize("on_error", ["skip", "raise"])
def test_a_policy_that_is_a_word_says_that_word_of_each_sample(on_error):
    assert make_ledger(on_error=on_error).decide(sample_error(0)) == on_error


@pytest.mark.parametrize("answer", ["skip", "raise"])
def test_a_function_may_answer_with_a_word(answer):
    assert make_ledger(on_error=lambda error: answer).decide(sample_error(0)) == answer


@pytest.mark.parametrize("answer", ["another word", 0, (1, 2)])
def test_any_other_answer_of_a_function_is_the_sample_to_use(answer):
    ledger = make_ledger(on_error=lambda error: answer)
    assert ledger.decide(sample_error(0)) == Replacement(answer)


@pytest.mark.parametrize("answer", [None, "Skip", " raise"])
def test_an_answer_that_can_only_be_a_slip_is_refused(answer):
    ledger = make_ledger(on_error=lambda error: answer)
    with pytest.raises(OptionError, match=f"on_error returned {answer!r}"):
        ledger.decide(sample_error(0))


def test_an_array_can_be_the_sample_to_use():
    answer = np.arange(3)
    decision = make_ledger(on_error=lambda error: answer).decide(sample_error(0))
    assert isinstance(decision, Replacement)
    assert decision.value is answer


def test_a_function_is_given_the_error_once():
    seen = []
    error = sample_error(7)
    make_ledger(on_error=lambda given: seen.append(given) or "skip").decide(error)
    assert seen == [error]


def test_deciding_enters_nothing():
    ledger = make_ledger(0)
    ledger.decide(sample_error(0))
    assert ledger.skipped == []


def test_skipped_samples_are_kept_in_the_order_in_which_they_were_entered():
    ledger = make_ledger()
    for index in (5, 1, 3):
        ledger.record(sample_error(index))
    assert [error.index for error in ledger.skipped] == [5, 1, 3]


@pytest.mark.parametrize(
    ("max_skipped", "planned", "skips"),
    [
        (0, 100, 0),
        (3, 100, 3),
        (0.0, 100, 0),
        (0.05, 100, 5),
        (0.05, 119, 5),
        (0.01, 99, 0),
        (1, 100, 1),
        (1.0, 100, 100),
        (1.0, 0, 0),
    ],
)
def test_an_epoch_is_stopped_by_the_first_sample_more_than_allowed(max_skipped, planned, skips):
    assert skips_until_stopped(make_ledger(max_skipped, planned)) == skips


def test_without_a_limit_no_epoch_is_stopped():
    ledger = make_ledger(None, planned=1)
    for index in range(50):
        ledger.record(sample_error(index))
    assert len(ledger.skipped) == 50


def test_a_fraction_of_an_unknown_length_is_taken_of_a_floor_first():
    ledger = make_ledger(0.01, planned=None)
    assert skips_until_stopped(ledger) == UNKNOWN_LENGTH_FLOOR_SAMPLES // 100


def test_a_fraction_of_an_unknown_length_grows_with_what_was_read():
    ledger = make_ledger(0.01, planned=None)
    ledger.read = 3 * UNKNOWN_LENGTH_FLOOR_SAMPLES
    assert skips_until_stopped(ledger) == 3 * UNKNOWN_LENGTH_FLOOR_SAMPLES // 100


def test_what_was_read_does_not_matter_where_the_length_is_known():
    ledger = make_ledger(0.01, planned=100)
    ledger.read = 3000
    assert skips_until_stopped(ledger) == 1


def test_a_stopped_epoch_says_the_numbers_the_limit_and_the_first_causes():
    ledger = make_ledger(SHOWN_CAUSES + 1, planned=200)
    skipped = [sample_error(index) for index in range(SHOWN_CAUSES + 2)]
    for error in skipped[:-1]:
        ledger.record(error)
    with pytest.raises(TooManySkippedError) as caught:
        ledger.record(skipped[-1])
    message = str(caught.value)
    assert f"{len(skipped)} of 200 samples were skipped" in message
    assert f"max_skipped={SHOWN_CAUSES + 1} " in message
    assert [str(error) in message for error in skipped] == [True] * SHOWN_CAUSES + [False] * 2
    assert caught.value.skipped == skipped


def test_a_stopped_epoch_of_unknown_length_says_how_much_was_read():
    ledger = make_ledger(0, planned=None)
    ledger.read = 42
    with pytest.raises(TooManySkippedError, match="1 of 42 samples"):
        ledger.record(sample_error(0))


def test_the_list_in_the_error_is_a_copy():
    ledger = make_ledger(0)
    with pytest.raises(TooManySkippedError) as caught:
        ledger.record(sample_error(0))
    ledger.skipped.clear()
    assert len(caught.value.skipped) == 1
