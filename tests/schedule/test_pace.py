"""When it pays to have several workers make one batch."""

from __future__ import annotations

import pytest

from penstock.schedule.pace import AHEAD, BYTES_A_SECOND, HASTE, MOST_FAILED, PART_S, Pace


def pace_of(sample_s: float, sample_bytes: float = 0.0, samples: int = 64) -> Pace:
    pace = Pace()
    pace.note(sample_s * samples, samples, int(sample_bytes * samples))
    return pace


def test_what_has_cost_nothing_yet_is_made_whole():
    assert not Pace().pays
    assert Pace().part_of(64, 8) == 64


@pytest.mark.parametrize(("sample_s", "pays"), [(1e-6, False), (1e-4, False), (1e-2, True)])
def test_only_samples_that_take_long_are_shared_out(sample_s, pays):
    pace = pace_of(sample_s)
    assert pace.pays == pays
    assert (pace.part_of(64, 8) < 64) == pays


def test_samples_that_take_longer_to_carry_than_is_gained_are_not():
    assert not pace_of(1e-2, sample_bytes=1e-2 * BYTES_A_SECOND).pays


def test_while_nothing_is_ready_parts_are_smaller():
    pace = pace_of(1.0)
    assert pace.part_of(64, 4, ready=0) == 64 // (4 * HASTE)
    assert pace.part_of(64, 4, ready=1) == 16


def test_with_a_batch_ready_for_each_worker_nobody_helps():
    assert pace_of(1.0).part_of(64, 4, ready=4) == 64


def uneven() -> Pace:
    pace = pace_of(1.0)
    for cost_s in [1.0, 2.0] * 10:
        pace.note(cost_s * 64, 64, 0)
    return pace


def test_batches_of_unlike_cost_are_uneven():
    assert uneven().uneven
    pace = pace_of(1.0)
    for cost_s in [1.0, 1.2] * 10:
        pace.note(cost_s * 64, 64, 0)
    assert not pace.uneven
    assert not Pace().uneven


def test_with_slow_samples_about_more_have_to_be_ready_before_nobody_helps():
    pace = uneven()
    assert pace.part_of(64, 4, ready=3) == 16
    # Of fewer parts each: nobody waits for them.
    assert pace.part_of(64, 4, ready=4) == 32
    assert pace.part_of(64, 4, ready=4 * AHEAD) == 64


def test_there_are_no_more_parts_than_they_may_cost():
    # Of two per cent of a second there are so many parts.
    pace = pace_of(1 / 64)
    parts = -(-64 // pace.part_of(64, 64, ready=1))
    assert 2 <= parts <= 0.02 / PART_S


@pytest.mark.parametrize(("samples", "workers"), [(1, 8), (64, 1), (0, 8)])
def test_nobody_can_help_with_one_sample_or_where_nobody_else_is(samples, workers):
    assert pace_of(1.0).part_of(samples, workers) == samples


def test_parts_that_fail_in_a_row_are_the_last():
    pace = pace_of(1.0)
    for _ in range(MOST_FAILED - 1):
        pace.note_parts(made=False)
    pace.note_parts(made=True)
    for _ in range(MOST_FAILED):
        assert pace.pays
        pace.note_parts(made=False)
    pace.note(64.0, 64, 0)
    assert not pace.pays


def test_what_has_become_cheap_is_made_whole_again():
    pace = pace_of(1.0)
    for _ in range(100):
        pace.note(64e-6, 64, 0)
    assert not pace.pays


def test_a_batch_without_samples_says_nothing():
    pace = pace_of(1.0)
    pace.note(0.0, 0, 0)
    assert pace.pays
