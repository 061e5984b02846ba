"""Whose turn it is."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from penstock.plan.turns import WeightedTurns

WEIGHTS = st.lists(
    st.fractions(min_value=Fraction(1, 50), max_value=50, max_denominator=50),
    min_size=1,
    max_size=5,
)


def turns(*weights: int) -> WeightedTurns:
    return WeightedTurns([Fraction(weight) for weight in weights])


def spell(members: WeightedTurns, count: int, candidates: range) -> str:
    return "".join("abcdef"[members.choose(candidates)] for _ in range(count))


def test_equal_weights_take_strict_turns() -> None:
    assert spell(turns(1, 1, 1), 7, range(3)) == "abcabca"


def test_the_turns_of_each_are_evenly_spread() -> None:
    assert spell(turns(2, 1), 9, range(2)) == "abaabaaba"
    assert spell(turns(1, 5), 12, range(2)) == "bbabbb" * 2


def test_scaled_weights_give_the_same_turns() -> None:
    tenths = WeightedTurns([Fraction("0.3"), Fraction("0.1"), Fraction("0.2")])
    assert spell(tenths, 60, range(3)) == spell(turns(3, 1, 2), 60, range(3))


def test_the_others_keep_their_order_when_one_leaves() -> None:
    members = turns(1, 1, 1)
    assert spell(members, 4, range(3)) == "abca"
    assert [members.choose([0, 2]) for _ in range(4)] == [2, 0, 2, 0]


def test_who_was_absent_has_no_claim_to_the_turns_missed() -> None:
    members = turns(1, 1)
    for _ in range(100):
        members.choose([0], absent=[1])
    assert spell(members, 6, range(2)) == "bababa"


def test_who_waits_is_not_passed_over_for_ever() -> None:
    members = turns(1, 1, 1)
    # a comes back at once each time; b and c were both there from the start.
    assert {members.choose([0, 1, 2], absent=()) for _ in range(3)} == {0, 1, 2}


@given(WEIGHTS, st.integers(0, 60))
def test_turns_come_in_the_order_of_their_places_on_the_line(
    weights: list[Fraction], count: int
) -> None:
    members = WeightedTurns(weights)
    taken = [members.choose(range(len(weights))) for _ in range(count)]
    line = sorted((Fraction(2 * n + 1) / w, p) for p, w in enumerate(weights) for n in range(count))
    assert taken == [position for _, position in line[:count]]


@given(WEIGHTS, st.data())
def test_turns_before_one_are_counted_without_taking_them(
    weights: list[Fraction], data: st.DataObject
) -> None:
    position = data.draw(st.integers(0, len(weights) - 1))
    number = data.draw(st.integers(0, 8))
    counted = WeightedTurns(weights).turns_before(position, number)
    members = WeightedTurns(weights)
    taken = [members.choose(range(len(weights))) for _ in range(counted + 1)]
    assert taken[-1] == position
    assert taken.count(position) == number + 1
