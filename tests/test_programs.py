"""Whole programs, as people write them: noisy, and ended in the middle."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

METHODS = ["fork", "forkserver", "spawn"]

NOISY = """
print("noisy is imported")
log = open("noisy.log", "a")
log.write("imported\\n")
log.flush()


class Numbers:
    def __len__(self):
        return 20

    def __getitem__(self, index):
        print("making", index)
        return index
"""


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(textwrap.dedent(text))
    return path


def run(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, path, *arguments],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        cwd=path.parent,
    )


@pytest.mark.parametrize("method", METHODS)
def test_a_dataset_that_prints_and_opens_files_at_import_works(method, tmp_path):
    write(tmp_path, "noisy.py", NOISY)
    program = write(
        tmp_path,
        "program.py",
        """
        import sys
        import penstock
        from noisy import Numbers

        loader = penstock.DataLoader(
            Numbers(), batch_size=4, num_workers=2, multiprocessing_context=sys.argv[1]
        )
        print("sum", sum(int(batch.sum()) for batch in loader))
        """,
    )
    done = run(program, method)
    assert done.returncode == 0, done.stderr
    assert "sum 190" in done.stdout
    assert not done.stderr


LIVE = """
import os, sys, time
import psutil
import penstock


class Slow:
    def __len__(self):
        return 1000

    def __getitem__(self, index):
        time.sleep(0.01)
        return index


loader = penstock.DataLoader(
    Slow(), batch_size=4, num_workers=2, multiprocessing_context=sys.argv[1],
    persistent_workers=sys.argv[2] == "persistent",
)
iterator = iter(loader)
next(iterator)
print(*[child.pid for child in psutil.Process().children(recursive=True)], flush=True)
"""


@pytest.mark.parametrize(
    ("method", "kept"),
    [
        ("fork", "persistent"),
        ("fork", "for one epoch"),
        ("forkserver", "persistent"),
        ("spawn", "for one epoch"),
    ],
)
def test_a_program_that_ends_with_a_live_iterator_ends_in_silence(method, kept, tmp_path):
    program = write(tmp_path, "program.py", LIVE + "sys.exit(7)\n")
    done = run(program, method, kept)
    assert done.returncode == 7
    assert not done.stderr
    wait_until_gone([int(pid) for pid in done.stdout.split()])


@pytest.mark.parametrize("method", METHODS)
def test_ctrl_c_gives_one_traceback_and_no_noise_of_workers(method, tmp_path):
    program = write(
        tmp_path, "program.py", LIVE + "for batch in iterator:\n    print('.', flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, program, method, "persistent"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0 if sys.version_info >= (3, 11) else None,
        preexec_fn=None if sys.version_info >= (3, 11) else os.setpgrp,
    ) as running:
        assert running.stdout is not None
        pids = [int(pid) for pid in running.stdout.readline().split()]
        running.stdout.readline()
        began = time.monotonic()
        os.killpg(running.pid, signal.SIGINT)
        _, errors = running.communicate(timeout=20)
        took_s = time.monotonic() - began
    assert running.returncode == -signal.SIGINT
    assert errors.count("Traceback") == 1, errors
    assert errors.rstrip().endswith("KeyboardInterrupt")
    # A second is promised; the rest is for a loaded machine.
    assert took_s < 10
    wait_until_gone(pids)


def wait_until_gone(pids: list[int]) -> None:
    """Waits for processes that are on their way out, and fails if one of them stays."""
    processes = []
    for pid in pids:
        try:
            processes.append(psutil.Process(pid))
        except psutil.NoSuchProcess:
            continue
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
