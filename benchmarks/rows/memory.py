"""Row 11: what memory a large dataset takes with workers."""

from __future__ import annotations

import contextlib

from benchmarks.programs.running import run
from benchmarks.row import (
    LIMIT,
    MIB,
    PENSTOCK,
    TORCH,
    Case,
    Contest,
    Figures,
    Part,
    Row,
    Setting,
    at_most,
)

METHODS = ("fork", "spawn", "forkserver")
CASES = {method: Case(method, MIB, None, at_most(2)) for method in METHODS}


def _prepare(setting: Setting) -> Contest:
    paths = setting.size(10_000_000, 1_000_000)

    def loader(package: str) -> Figures:
        return {method: run("memory", package, method, paths, count=1)[0] for method in METHODS}

    def alone() -> Figures:
        (figure,) = run("memory", "none", "fork", paths, count=1)
        return dict.fromkeys(METHODS, figure)

    return contextlib.nullcontext(
        {TORCH: lambda: loader(TORCH), PENSTOCK: lambda: loader(PENSTOCK), LIMIT: alone}
    )


ROW = Row(
    11,
    "memory of a list of paths, 4 workers",
    "How often does a large dataset stand in memory?",
    "The sum of PSS of the program, its workers and the fork server after a shuffled epoch over "
    "ten million paths in a Python list. The limit is a program that holds the list, with torch "
    "imported, and no loader: the ratio to it is required. Quick mode has one million, beside "
    "which the workers' own imports weigh too much to be judged.",
    (Part(tuple(CASES.values()), _prepare, quick_rounds=1, warms_up=False, judged_in_quick=False),),
)
