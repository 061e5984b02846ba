"""Ctrl-C, and workers that die: the program ends or goes on, and leaves nobody behind."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Sequence

import psutil
import pytest

from tests.cli import program
from tests.cli.program import StuckPicture, descendants, started, wait_until


def assert_gone(processes: Sequence[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=5)
    assert not alive


@pytest.mark.parametrize(
    ("to_group", "again"), [(True, False), (False, True)], ids=["group", "process-twice"]
)
def test_ctrl_c_ends_it_with_one_line_and_no_worker_left(
    stuck: StuckPicture, to_group: bool, again: bool
) -> None:
    arguments = ("--workers", "2", "--batch-size", "4", "--start-method", "fork", "--json")
    with started("iterate", stuck.path.parent, *arguments) as process:
        stuck.wait_reader()
        family = descendants(process.pid)
        assert len(family) >= 2
        began = time.monotonic()
        (os.killpg if to_group else os.kill)(process.pid, signal.SIGINT)
        if again:
            # The stuck worker has half a second to leave by itself: this comes in between.
            time.sleep(0.2)
            os.kill(process.pid, signal.SIGINT)
        output, errors = process.communicate(timeout=program.PATIENCE_S)
        # Half a second of grace for the worker that is stuck; the rest is a machine under load.
        assert time.monotonic() - began < 10
        assert_gone(family)
    assert process.returncode == 130
    assert errors == "penstock: interrupted\n"
    report = json.loads(output)
    assert report["outcome"] == "interrupted"
    assert report["total"] == 9
    assert report["elapsed_s"] > 0


def is_importing(process: psutil.Process) -> bool:
    """Whether a process of multiprocessing has begun to import what a worker needs."""
    try:
        return "multiprocessing" in " ".join(process.cmdline()) and any(
            "numpy" in module.path for module in process.memory_maps()
        )
    except psutil.Error:  # It has ended, or has only just begun.
        return False


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_ctrl_c_while_workers_start_is_as_quiet(stuck: StuckPicture, method: str) -> None:
    with started("iterate", stuck.path.parent, "--workers", "2", "--start-method", method) as it:
        wait_until(lambda: any(map(is_importing, descendants(it.pid))))
        family = descendants(it.pid)
        os.killpg(it.pid, signal.SIGINT)
        _, errors = it.communicate(timeout=program.PATIENCE_S)
        assert_gone(family)
    assert it.returncode == 130
    assert errors == "penstock: interrupted\n"


def test_a_worker_that_is_killed_is_replaced_and_counted(stuck: StuckPicture) -> None:
    arguments = ("--workers", "1", "--batch-size", "4", "--start-method", "fork", "--json")
    with started("iterate", stuck.path.parent, *arguments, "--on-error", "skip") as process:
        stuck.wait_reader()
        (worker,) = descendants(process.pid)
        worker.kill()
        stuck.end()
        wait_until(lambda: worker not in descendants(process.pid))
        stuck.wait_reader()
        stuck.end()
        output, _ = process.communicate(timeout=program.PATIENCE_S)
    assert process.returncode == 0
    report = json.loads(output)
    assert report["worker_restarts"] == 1
    assert (report["samples"], report["skipped"]) == (8, 1)
