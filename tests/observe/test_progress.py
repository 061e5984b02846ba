"""Progress without a terminal."""

from __future__ import annotations

from dataclasses import replace

import pytest

from penstock.observe.progress import (
    LINE_INTERVAL_S,
    RECENT_S,
    Progress,
    ProgressLines,
    RecentRate,
    rounded,
)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_progress_in_words() -> None:
    moment = Progress(1031, 5200, errors=1, samples_per_s=412.3, busy_share=0.874, workers=2)
    assert str(moment) == "1,031/5,200  412/s  1 error  workers 87% busy"
    assert str(replace(moment, workers=0, errors=2)) == "1,031/5,200  412/s  2 errors"


def test_nothing_done_yet_has_no_rate() -> None:
    assert str(Progress(0, 9)) == "0/9  0 errors  waiting for the first batch"
    assert str(Progress(0, 9, over=True)) == "0/9  0 errors"


def test_the_rate_is_that_of_the_last_seconds(clock: Clock) -> None:
    rate = RecentRate(clock)
    assert rate.at(0) == 0.0
    for second in range(1, 11):
        clock.now += 1
        assert rate.at(100 * second) == pytest.approx(100)
    for second in range(1, 11):
        clock.now += 1
        slow = rate.at(1000 + second)
        if second >= RECENT_S:
            assert slow == pytest.approx(1)


def test_the_rate_of_a_stall_falls_to_nothing(clock: Clock) -> None:
    rate = RecentRate(clock)
    clock.now += 1
    assert rate.at(500) == 500
    for _ in range(70):
        clock.now += 0.1
        last = rate.at(500)
    assert last == 0


def test_lines_come_at_intervals_and_at_the_end(clock: Clock) -> None:
    lines: list[str] = []
    shown = ProgressLines(lines.append, clock)
    for done in range(1, 101):
        clock.now += 0.1
        shown.show(Progress(done, 100))
    assert len(lines) == pytest.approx(10 / LINE_INTERVAL_S, abs=1)
    shown.end(Progress(100, 100))
    assert lines[-1].startswith("100/100")
    count = len(lines)
    shown.end(Progress(100, 100))
    assert len(lines) == count


@pytest.mark.parametrize(
    ("rate", "text"),
    [(0.0, "0"), (0.4213, "0.42"), (8.31, "8.3"), (412.4, "412"), (12400, "12,400")],
)
def test_rates_have_the_digits_that_matter(rate: float, text: str) -> None:
    assert rounded(rate) == text
