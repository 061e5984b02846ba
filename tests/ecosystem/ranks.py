"""Runs a function in several processes that form a distributed job of the gloo backend."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

RANKS = 2
_TIMEOUT_S = 150.0


def run_ranks(function: Callable[[Path], Any], folder: Path) -> list[Any]:
    """Calls `function(folder)` in each of `RANKS` new processes.

    Args:
        function: defined at the top level of its module; returns plain JSON.
        folder: a place of its own, for what the ranks write.

    Returns:
        What it returned in each rank.
    """
    port = _free_port()
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_be_rank, args=(function, folder, rank, port))
        for rank in range(RANKS)
    ]
    for process in processes:
        process.start()
    deadline = time.monotonic() + _TIMEOUT_S
    try:
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))
    finally:
        for process in processes:
            process.kill()
            process.join()
    told = [json.loads((folder / f"rank_{rank}.json").read_text()) for rank in range(RANKS)]
    for answer in told:
        assert answer["error"] is None, answer["error"]
    return [answer["result"] for answer in told]


def _be_rank(function: Callable[[Path], Any], folder: Path, rank: int, port: int) -> None:
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        NODE_RANK="0",
        WORLD_SIZE=str(RANKS),
        LOCAL_WORLD_SIZE=str(RANKS),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        OMP_NUM_THREADS="1",
    )
    # As in a process that a launcher has started; one that is spawned would spawn its workers.
    multiprocessing.set_start_method(None, force=True)
    answer: dict[str, Any] = {"result": None, "error": None}
    try:
        answer["result"] = function(folder)
    except BaseException:
        answer["error"] = traceback.format_exc()
    # Written before the processes part: one that waits for the other in vain is killed.
    (folder / f"rank_{rank}.json").write_text(json.dumps(answer))


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
