"""Measures Penstock beside torch's DataLoader and prints the table of ratios.

Both loaders take turns in one run, since a machine's speed drifts: only the ratios mean something.
Ends with exit code 1 if a required ratio is not reached.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
from pathlib import Path

import torch

from benchmarks import first_batch, throughput
from benchmarks.throughput import Workload
from benchmarks.workloads import Photographs, Records, Scalars, Tensors

PHOTOS = Path(__file__).resolve().parent.parent / "examples" / "photos"
LEAST_ROUNDS = 5

WORKLOADS = {
    "scalars": Workload("scalars", functools.partial(Scalars, 64 * 3000), 15.0),
    "uint8": Workload("uint8 3×224×224", functools.partial(Tensors, 64 * 300, torch.uint8), 4.0),
    "float32": Workload(
        "float32 3×224×224", functools.partial(Tensors, 64 * 100, torch.float32), 2.5
    ),
    "records": Workload("dicts of arrays and strings", functools.partial(Records, 64 * 250), 3.0),
    "photographs": Workload(
        "photographs, Pillow", functools.partial(Photographs, PHOTOS, 64 * 150), 1.1, 0.9
    ),
}


def main() -> int:
    """Measures what is asked for; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help=f"at least {LEAST_ROUNDS}")
    parser.add_argument(
        "--only", nargs="*", choices=[*WORKLOADS, "first-batch"], help="rows to measure"
    )
    arguments = parser.parse_args()
    if arguments.rounds < LEAST_ROUNDS:
        parser.error(f"--rounds {arguments.rounds}: a median needs at least {LEAST_ROUNDS}")
    passed = True
    print(f"{throughput.WORKERS} workers, batches of {throughput.BATCH_SIZE}; medians of", end=" ")
    print(f"{arguments.rounds} rounds (least–most), loaders taking turns\n")
    print(f"{'workload':<28}{'torch ms/batch':>22}{'penstock ms/batch':>22}", end="")
    print(f"{'ratio':>8}{'required':>10}{'limit ms/batch':>22}{'of limit':>10}{'required':>10}")
    for name, workload in WORKLOADS.items():
        if arguments.only and name not in arguments.only:
            continue
        row = throughput.measure(workload, arguments.rounds)
        batches = len(workload.make()) / throughput.BATCH_SIZE  # type: ignore[arg-type]
        passed &= row.passed
        print(f"{workload.name:<28}", end="")
        for figures in (row.torch_s, row.penstock_s):
            print(f"{_spread([1000 * figure / batches for figure in figures]):>22}", end="")
        print(f"{row.ratio:>7.2f}×{workload.required:>9.2f}×", end="")
        limit, needed = row.of_limit, workload.required_of_limit
        if limit and needed:
            print(f"{_spread([1000 * figure / batches for figure in row.limit_s]):>22}", end="")
            print(f"{limit:>10.2f}{needed:>10.2f}", end="")
        print("" if row.passed else "  SHORT", flush=True)
    if not arguments.only or "first-batch" in arguments.only:
        passed &= _first_batches(arguments.rounds)
    return 0 if passed else 1


def _first_batches(rounds: int) -> bool:
    print(f"\n{'time to the first batch':<44}{'torch ms':>22}{'penstock ms':>22}", end="")
    print(f"{'ratio':>8}{'required':>10}")
    rows = first_batch.measure(rounds)
    for row in rows:
        print(f"{row.method}, {row.which}, {row.paths:,} paths".ljust(44), end="")
        for figures in (row.torch_s, row.penstock_s):
            print(f"{_spread([1000 * figure for figure in figures]):>22}", end="")
        verdict = "" if row.passed else "   SHORT"
        needed = "" if row.required is None else f"≤ {row.required:.2f}×"
        print(f"{row.ratio:>7.2f}×{needed:>10}{verdict}", flush=True)
    return all(row.passed for row in rows)


def _spread(figures: list[float]) -> str:
    digits = 3 if statistics.median(figures) < 10 else 0
    least, most = min(figures), max(figures)
    return f"{statistics.median(figures):.{digits}f} ({least:.{digits}f}–{most:.{digits}f})"


if __name__ == "__main__":
    sys.exit(main())
