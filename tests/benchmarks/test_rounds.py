from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import pytest

from benchmarks.outcome import SHORT
from benchmarks.rounds import FULL_ROUNDS, measure, turns
from benchmarks.row import (
    LEAST_ROUNDS,
    LIMIT,
    MS,
    PENSTOCK,
    TORCH,
    Case,
    Contestant,
    NotMeasuredError,
    Part,
    Row,
    Setting,
    at_least,
)

CASE = Case("", MS, at_least(2))


def row_of(contestants: Mapping[str, Contestant], **part) -> Row:
    prepared = Part((CASE,), lambda setting: contextlib.nullcontext(contestants), **part)
    return Row(1, "row", "?", "so", (prepared,))


def noting(calls: list[str], name: str) -> Contestant:
    def contestant() -> dict[str, float]:
        calls.append(name)
        return {"": float(len(calls))}

    return contestant


def failing(error: Exception, after: int) -> Contestant:
    left = iter(range(after))

    def contestant() -> dict[str, float]:
        if next(left, None) is None:
            raise error
        return {"": 1.0}

    return contestant


def test_each_contestant_has_each_turn_once_in_as_many_rounds() -> None:
    orders = [turns(["a", "b", "c"], number) for number in range(3)]
    assert sorted(order[0] for order in orders) == ["a", "b", "c"]
    assert all(sorted(order) == ["a", "b", "c"] for order in orders)


def test_contestants_alternate_and_the_warm_up_does_not_count() -> None:
    calls: list[str] = []
    contestants = {name: noting(calls, name) for name in (TORCH, PENSTOCK)}
    (outcome,) = measure(row_of(contestants), Setting(rounds=5))
    assert calls[:6] == [TORCH, PENSTOCK, TORCH, PENSTOCK, PENSTOCK, TORCH]
    assert len(calls) == 2 * (1 + 5)
    assert outcome.figures[TORCH] == [3.0, 6.0, 7.0, 10.0, 11.0]


@pytest.mark.parametrize(
    ("setting", "rounds"),
    [
        (Setting(), FULL_ROUNDS),
        (Setting(quick=True), 2),
        (Setting(quick=True, rounds=LEAST_ROUNDS), LEAST_ROUNDS),
    ],
)
def test_rounds_are_those_asked_for_or_the_part_s(setting: Setting, rounds: int) -> None:
    calls: list[str] = []
    row = row_of({PENSTOCK: noting(calls, PENSTOCK)}, quick_rounds=2, warms_up=False)
    measure(row, setting)
    assert len(calls) == rounds


def test_a_contestant_that_fails_once_is_out_and_the_others_go_on() -> None:
    contestants = {
        TORCH: failing(RuntimeError("broke\nand more"), after=3),
        PENSTOCK: failing(NotMeasuredError("not there yet"), after=0),
        LIMIT: failing(RuntimeError("never"), after=100),
    }
    (outcome,) = measure(row_of(contestants), Setting(rounds=5))
    assert outcome.missing == {TORCH: "RuntimeError: broke", PENSTOCK: "not there yet"}
    assert set(outcome.figures) == {LIMIT}
    assert len(outcome.figures[LIMIT]) == 5
    assert outcome.verdict == SHORT


def test_a_part_that_cannot_be_prepared_falls_short_with_its_reason() -> None:
    @contextlib.contextmanager
    def prepare(setting: Setting) -> Iterator[Mapping[str, Contestant]]:
        raise NotMeasuredError("no photographs")
        yield {}

    (outcome,) = measure(Row(5, "row", "?", "so", (Part((CASE,), prepare),)), Setting())
    assert outcome.verdict == SHORT
    assert outcome.reasons == ["torch, penstock: no photographs"]


def test_quick_mode_leaves_out_what_is_not_for_it() -> None:
    calls: list[str] = []
    row = row_of({PENSTOCK: noting(calls, PENSTOCK)}, in_quick=False)
    assert measure(row, Setting(quick=True)) == []
    assert calls == []


def test_every_round_of_quick_mode_counts() -> None:
    calls: list[str] = []
    (outcome,) = measure(row_of({PENSTOCK: noting(calls, PENSTOCK)}), Setting(quick=True))
    assert outcome.figures[PENSTOCK] == [1.0, 2.0, 3.0, 4.0, 5.0]
