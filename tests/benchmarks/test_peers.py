from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import run_peers, table
from benchmarks.outcome import Outcome
from benchmarks.peers import OWN_DATASET, OWN_IMAGES, PEERS, TENSORS, Work
from benchmarks.programs import peer
from benchmarks.row import MS_A_BATCH, PENSTOCK, TORCH, Case, NotMeasuredError
from benchmarks.run_peers import is_first
from benchmarks.timing import BATCH_SIZE
from tests.benchmarks.outcomes import results

REQUIREMENTS = Path(run_peers.__file__).with_name("requirements.txt")


def outcome_of(figures: dict[str, list[float]], missing: dict[str, str]) -> Outcome:
    return Outcome(5, "photographs", Case("", MS_A_BATCH), figures, missing)


def test_every_peer_does_a_row_or_says_why_not() -> None:
    for it in PEERS:
        for row in (TENSORS, OWN_DATASET, OWN_IMAGES):
            assert (row in it.rows) != (row in it.cannot), (it.name, row)


def test_every_peer_is_pinned() -> None:
    lines = REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    pinned = {line.partition("==")[0].partition("[")[0] for line in lines if "==" in line}
    assert {it.package for it in PEERS} <= pinned


def test_photographs_are_repeated_for_a_long_epoch() -> None:
    work = Work(None, ["a", "b", "c"], batches=1, folder=Path())
    paths = list(work.epoch_paths)
    assert len(paths) == BATCH_SIZE
    assert paths[:4] == ["a", "b", "c", "a"]


def test_penstock_is_first_if_nobody_is_faster() -> None:
    assert is_first(outcome_of({PENSTOCK: [1.0], TORCH: [2.0], "other": [1.0]}, {"x": "cannot"}))
    assert not is_first(outcome_of({PENSTOCK: [1.0], "other": [0.9]}, {}))
    assert not is_first(outcome_of({"other": [0.9]}, {PENSTOCK: "it failed"}))


def test_the_fastest_is_listed_first_and_the_missing_say_why() -> None:
    figures = {TORCH: [0.010], PENSTOCK: [0.005], "zebra": [0.004]}
    run = results(outcome_of(figures, {"third": "reads tar files"}), mode="peers")
    assert table.peers_markdown(run).splitlines()[2:6] == [
        "| 5 | photographs | zebra | 4.00 | 0.800× |",
        "| 5 | photographs | penstock | 5.00 |  |",
        "| 5 | photographs | torch | 10.0 | 2.00× |",
        "| 5 | photographs | third | reads tar files |  |",
    ]


def test_the_time_is_that_of_all_batches_but_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(peer.time, "perf_counter", lambda: clock[0])

    def batches() -> Iterator[int]:
        for took in (100.0, 1.0, 2.0, 3.0):
            clock[0] += took
            yield 0

    assert peer.seconds_a_batch(batches(), 4) == 2.0
    with pytest.raises(RuntimeError, match="4 batches came instead of 5"):
        peer.seconds_a_batch(batches(), 5)


def test_a_program_s_figure_is_its_last_line() -> None:
    assert run_peers._figure([sys.executable, "-c", "print('chatter'); print(0.25)"]) == 0.25


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("raise SystemExit('broke')", "broke"),
        (
            "from benchmarks.row import NotMeasuredError; raise NotMeasuredError('needs FFmpeg')",
            "needs FFmpeg",
        ),
        ("import os; os._exit(3)", "exit code 3"),
    ],
)
def test_a_program_that_fails_says_why(program: str, reason: str) -> None:
    with pytest.raises(NotMeasuredError) as raised:
        run_peers._figure([sys.executable, "-c", program])
    assert str(raised.value) == reason


def test_a_program_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_peers, "PATIENCE_S", 0.2)
    with pytest.raises(NotMeasuredError, match=r"not done after 0\.2 s"):
        run_peers._figure([sys.executable, "-c", "import time; time.sleep(60)"])
