"""`python -m tests.soak`: runs scenarios until the time is up, or one of them alone."""

from __future__ import annotations

import argparse
import gc
import logging
import math
import resource
import sys
import time
import warnings

from tests.soak.drive import Outcome, run
from tests.soak.scenario import draw

_PROGRESS_EVERY_S = 10.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0, help="how long to go on")
    parser.add_argument("--seed", type=int, default=1, help="what scenarios are drawn from")
    parser.add_argument("--scenario", type=int, help="run only the one with this number")
    asked = parser.parse_args()
    if not 0 <= asked.seconds < math.inf:
        parser.error(f"--seconds {asked.seconds:g}: give 0 or more")
    # Each death is a warning.
    logging.getLogger("penstock").setLevel(logging.CRITICAL)
    # More workers than cores are meant.
    warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
    # A sample that crashes is meant to, and no core is wanted.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    gc.collect()
    gc.freeze()
    total, failed = Outcome(), 0
    began = told = time.monotonic()
    first = number = asked.scenario or 0
    while True:
        scenario = draw(asked.seed, number)
        outcome = run(scenario)
        if outcome.wrong:
            failed += 1
            print(f"scenario {number} of seed {asked.seed} failed: {scenario}")
            print("\n".join(f"  {line}" for line in outcome.wrong))
            print(f"  again: python -m tests.soak --seed {asked.seed} --scenario {number}")
        _add(total, outcome)
        number += 1
        now = time.monotonic()
        over = asked.scenario is not None or now - began >= asked.seconds
        if over or now - told >= _PROGRESS_EVERY_S:
            told = now
            done = number - first
            scenarios = f"{done} scenario{'' if done == 1 else 's'}"
            print(f"{now - began:.0f} s, {scenarios}: {_summary(total)}", flush=True)
        if over:
            return 1 if failed else 0


def _add(total: Outcome, outcome: Outcome) -> None:
    total.deliveries += outcome.deliveries
    total.lost += outcome.lost
    total.duplicated += outcome.duplicated
    total.leaked += outcome.leaked
    total.faults += outcome.faults


def _summary(total: Outcome) -> str:
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(total.faults.items()))
    return (
        f"{total.deliveries:,} deliveries checked, {total.faults.total():,} faults survived "
        f"({kinds}), {total.lost} lost, {total.duplicated} duplicated, {total.leaked} leaked"
    )


if __name__ == "__main__":
    sys.exit(main())
