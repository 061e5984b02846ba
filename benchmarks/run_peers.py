"""Measures Penstock beside other loaders than torch's, in rows 2, 5 and 6.

Each turn of each loader is a program of its own: some of these libraries leave threads, servers and
files behind. Ends with exit code 1 where Penstock is not the first.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import environment, results, table
from benchmarks.outcome import Outcome
from benchmarks.peers import OWN_DATASET, OWN_IMAGES, PEERS, TENSORS
from benchmarks.results import Results
from benchmarks.rounds import measure
from benchmarks.row import (
    LEAST_ROUNDS,
    MS_A_BATCH,
    PENSTOCK,
    TORCH,
    Case,
    Contest,
    Contestant,
    Figures,
    NotMeasuredError,
    Part,
    Row,
    Setting,
)
from benchmarks.rows import ROWS
from benchmarks.workloads.photographs import ROOT

# Converted photographs.
FOLDER = ROOT / "build" / "peers"
# Batches in a full and in a quick run.
SIZES = {TENSORS: (300, 40), OWN_DATASET: (100, 8), OWN_IMAGES: (100, 8)}
PATIENCE_S = 600
NOT_MEASURED = f"{NotMeasuredError.__module__}.{NotMeasuredError.__qualname__}: "


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures what is asked for; returns the exit code."""
    asked = _parse(arguments)
    setting = Setting(asked.quick, asked.rounds, asked.images)
    run = Results(
        datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat(),
        "peers-quick" if asked.quick else "peers",
        {**environment.describe(), "peers": environment.versions(peer.package for peer in PEERS)},
    )
    print(table.peers_header(), end="")
    for row in _rows():
        if asked.only and row.number not in asked.only:
            continue
        for outcome in measure(row, setting):
            run.outcomes.append(outcome)
            print(table.peers_lines(outcome), end="", flush=True)
    print(f"\n{table.measured_on(run)}")
    if asked.write:
        path = results.write(run)
        text = f"# Peers, {run.date}\n\n{table.peers_markdown(run)}"
        path.with_suffix(".md").write_text(text, encoding="utf-8")
    return 0 if all(is_first(outcome) for outcome in run.outcomes) else 1


def is_first(outcome: Outcome) -> bool:
    """Whether Penstock was measured, and no other loader is faster."""
    ratios = [outcome.against(name) for name in outcome.figures if name != PENSTOCK]
    return PENSTOCK in outcome.figures and all(ratio and ratio.median >= 1 for ratio in ratios)


def _rows() -> list[Row]:
    names = {row.number: row for row in ROWS}
    return [
        Row(
            number,
            names[number].name,
            "Which loader is the fastest?",
            "From the first batch to the last.",
            (_part(number),),
        )
        for number in SIZES
    ]


def _part(number: int) -> Part:
    case = Case("", MS_A_BATCH)

    def prepare(setting: Setting) -> Contest:
        loaders = [TORCH, PENSTOCK, *(peer.name for peer in PEERS)]
        return contextlib.nullcontext(
            {name: _contestant(name, number, setting) for name in loaders}
        )

    return Part((case,), prepare, quick_rounds=1)


def _contestant(name: str, number: int, setting: Setting) -> Contestant:
    """A turn: the program `programs.peer`, which says how long a batch took."""
    why_not = {peer.name: peer.cannot.get(number) for peer in PEERS}.get(name)

    def turn() -> Figures:
        if why_not:
            raise NotMeasuredError(why_not)
        command = [sys.executable, "-m", "benchmarks.programs.peer", name, str(number)]
        command += [str(setting.size(*SIZES[number])), str(FOLDER)]
        if setting.images:
            command.append(str(setting.images.resolve()))
        return {"": _figure(command)}

    return turn


def _figure(command: Sequence[str]) -> float:
    """The number on the last line that a program prints.

    Raises:
        NotMeasuredError: it ended otherwise; with the last line of its stderr.
    """
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE_S
        )
    except subprocess.TimeoutExpired:
        raise NotMeasuredError(f"not done after {PATIENCE_S} s") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise NotMeasuredError(last.removeprefix(NOT_MEASURED))
    return float(done.stdout.split()[-1])


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one round of smaller sizes")
    parser.add_argument("--only", nargs="+", type=int, choices=list(SIZES), metavar="ROW")
    parser.add_argument("--rounds", type=int, help=f"at least {LEAST_ROUNDS}")
    parser.add_argument("--images", type=Path, metavar="DIR", help="photographs of your own")
    parser.add_argument("--write", action="store_true", help="write to results/")
    asked = parser.parse_args(arguments)
    if asked.rounds is not None and asked.rounds < LEAST_ROUNDS:
        parser.error(f"--rounds {asked.rounds}: a median needs at least {LEAST_ROUNDS}")
    return asked


if __name__ == "__main__":
    sys.exit(main())
