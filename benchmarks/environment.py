"""What a run was measured on. Says what a figure depends on, and neither whose machine it is nor
where."""

from __future__ import annotations

import importlib.metadata
import multiprocessing
import os
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil

import penstock

LIBRARIES = ("torch", "numpy", "pillow", "tokenizers", "torchdata")


def describe() -> dict[str, Any]:
    """Processor, cores, memory, versions, the default start method, and how busy the machine is."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "cores_to_use": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "kernel": platform.release().split("-")[0],
        "python": platform.python_version(),
        "penstock": penstock.__version__,
        "revision": _revision(),
        **versions(LIBRARIES),
        "start_method": multiprocessing.get_start_method(),
        # Processes that wanted to run in the minute before: those of others, on a busy machine.
        "load_before": round(os.getloadavg()[0], 1),
    }


def _processor() -> str:
    """As the kernel names it; else the kind of processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def versions(libraries: Iterable[str]) -> dict[str, str | None]:
    """The installed version of each, None of one that is not there."""
    return {name: _version(name) for name in libraries}


def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


def _revision() -> str | None:
    """The commit that was measured, with "+" where files differ from it."""
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    folder = Path(__file__).parent
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None
