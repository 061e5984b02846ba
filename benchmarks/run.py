"""Measures Penstock beside torch's DataLoader and the machine's limit, and prints the table.

Ends with exit code 1 if a required figure is not reached, or could not be measured.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

from benchmarks import environment, report, table
from benchmarks.results import Results
from benchmarks.rounds import measure
from benchmarks.row import LEAST_ROUNDS, Row, Setting
from benchmarks.rows import ROWS


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures what is asked for; returns the exit code."""
    asked = _parse(arguments)
    setting = Setting(asked.quick, asked.rounds, asked.images)
    run = Results(
        datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat(),
        "quick" if asked.quick else "full",
        environment.describe(),
    )
    rows = [row for row in ROWS if not asked.only or row.number in asked.only]
    # torch finds eight workers on two cores unreasonable; those of row 8 sleep.
    warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
    # What torchdata calls in torch is deprecated there.
    warnings.filterwarnings("ignore", "'set_vital' is deprecated", UserWarning)
    began = time.monotonic()
    print(table.text_line(table.COLUMNS))
    for row in rows:
        _measure(row, setting, run)
    print(f"\n{table.measured_on(run)} {time.monotonic() - began:.0f} s in all.")
    if asked.write:
        for path in report.write(run):
            print(
                f"wrote {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}"
            )
    return 0 if run.passed else 1


def _measure(row: Row, setting: Setting, run: Results) -> None:
    for outcome in measure(row, setting):
        run.outcomes.append(outcome)
        print(table.text_line(table.cells(outcome)))
        for reason in outcome.reasons:
            print(f"    {reason}")
    sys.stdout.flush()


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=_list_rows())
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--quick", action="store_true", help="smaller sizes: under 3 minutes")
    numbers = [row.number for row in ROWS]
    parser.add_argument(
        "--only", nargs="+", type=int, choices=numbers, metavar="ROW", help="rows to measure"
    )
    parser.add_argument("--rounds", type=int, help=f"rounds of every row, at least {LEAST_ROUNDS}")
    parser.add_argument("--images", type=Path, metavar="DIR", help="photographs of your own")
    parser.add_argument(
        "--write", action="store_true", help="write figures, table and chart to results/"
    )
    asked = parser.parse_args(arguments)
    if asked.rounds is not None and asked.rounds < LEAST_ROUNDS:
        parser.error(f"--rounds {asked.rounds}: a median needs at least {LEAST_ROUNDS}")
    if asked.images is not None and not asked.images.is_dir():
        parser.error(f"--images {asked.images}: no such folder")
    return asked


def _list_rows() -> str:
    lines = (f"{row.number:>4}  {row.name}: {row.question}" for row in ROWS)
    return "\n".join(["rows:", *lines])


if __name__ == "__main__":
    sys.exit(main())
