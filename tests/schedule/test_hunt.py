"""The search for the sample that kills: few probes, and no innocent found."""

from __future__ import annotations

import math
from collections.abc import Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.schedule.hunt import DEATHS_ALONE, Hunt


def hunt(
    places: int,
    deadly: Collection[int],
    *,
    suspect: int | None = None,
    by_itself: bool = True,
    tells: bool = False,
) -> tuple[int | None, list[tuple[int, ...]]]:
    """What a search finds where these places kill, and the probes that it took."""
    search = Hunt(range(places), suspect)
    probes: list[tuple[int, ...]] = []
    while search.probe and search.found is None:
        probes.append(search.probe)
        place = next((place for place in search.probe if place in deadly), None)
        if place is None:
            search.survived()
        else:
            search.died(place if tells else None, by_itself=by_itself)
    return search.found, probes


@given(st.integers(1, 64), st.data())
def test_one_of_those_to_blame_is_found_by_halving(places, data):
    deadly = data.draw(st.sets(st.integers(0, places - 1), min_size=1))
    suspect = data.draw(st.none() | st.integers(0, places - 1))
    by_itself = data.draw(st.booleans())
    found, probes = hunt(places, deadly, suspect=suspect, by_itself=by_itself)
    assert found in deadly
    # One for each halving, for a wrong suspect, and for each death alone.
    alone = 1 if by_itself else DEATHS_ALONE
    assert len(probes) <= math.ceil(math.log2(places)) + 2 + alone


@pytest.mark.parametrize("tells", [True, False])
def test_a_suspect_is_tried_first_and_alone(tells):
    assert hunt(64, {40}, suspect=40, tells=tells) == (40, [(40,)])


def test_whoever_tells_where_it_was_saves_the_halving():
    assert hunt(64, {40}, suspect=3, tells=True)[1][-1] == (40,)
    assert len(hunt(64, {5}, tells=True)[1]) == 2


def test_a_death_by_a_signal_that_anybody_can_send_has_to_come_again_and_again():
    assert hunt(4, {2}, suspect=2, by_itself=False) == (2, [(2,)] * DEATHS_ALONE)


def test_of_deaths_for_want_of_memory_two_are_enough():
    search = Hunt(range(4), 2)
    search.died(2, by_itself=False, of_memory=True)
    assert search.found is None
    search.died(2, by_itself=False, of_memory=True)
    assert search.found == 2


def test_a_sample_that_did_no_harm_alone_is_not_blamed():
    search = Hunt(range(4))
    assert search.probe == (0, 1)
    search.died(None, by_itself=False)  # Of something else.
    search.survived()
    assert search.probe == (1,)
    search.died(None, by_itself=False)
    search.survived()
    assert search.probe == ()
    assert search.found is None


def test_nothing_is_found_where_nothing_kills():
    found, probes = hunt(5, set())
    assert found is None
    assert sorted(place for probe in probes for place in probe) == [0, 1, 2, 3, 4]


def test_nothing_is_left_to_search_in_a_batch_without_samples():
    assert Hunt([]).probe == ()
