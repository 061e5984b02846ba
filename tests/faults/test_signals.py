"""Ctrl-C, SIGTERM, the end of the interpreter, and workers that are stopped."""

import os
import signal
import threading
import time

import psutil
import pytest

from penstock.errors import BatchTimeoutError
from tests.faults.deliveries import (
    PATIENCE_S,
    ids,
    ids_of,
    loader_of,
    variant,
    wait_until,
    worker_pids,
)
from tests.faults.programs import family_of, started, wait_gone
from tests.faults.roles import Numbers, Once, stop

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("no_leaks")]

LENGTH = 40
# Leases of one epoch and of the one that was broken off, and what the user may hold.
MOST_SLOTS = 4 + 4 + 4

INTERRUPTED = """
import pathlib, sys, threading, time
from tests.faults.deliveries import ids, loader_of
from tests.faults.roles import Numbers


class Waits(Numbers):
    def __getitem__(self, index):
        while index == 21 and not go_on.exists():
            time.sleep(0.05)
        return super().__getitem__(index)


go_on = pathlib.Path(sys.argv[2])
loader = loader_of(Waits(40), sys.argv[1], persistent_workers=sys.argv[3] == "persistent")
arrived = 0
try:
    for batch in loader:
        arrived += len(batch)
        if arrived == 20:
            print("waits", flush=True)
except KeyboardInterrupt:
    print("interrupted", arrived, flush=True)
go_on.touch()
print(ids(loader) == list(range(40)), flush=True)
go_on.unlink()
for batch in loader:
    if arrived == 36:
        print("waits again", flush=True)
    arrived += len(batch)
"""


def interrupt(program):
    # The line before says that it goes into `next()`, from which nothing comes.
    time.sleep(0.2)
    began = time.monotonic()
    os.killpg(program.pid, signal.SIGINT)
    return began


@pytest.mark.parametrize("kept", ["persistent", "for one epoch"])
def test_row_15_ctrl_c_in_next(start_method, tmp_path, kept):
    variant(start_method, main=kept == "for one epoch")
    with started(tmp_path, INTERRUPTED, start_method, tmp_path / "go", kept) as program:
        assert program.stdout.readline() == "waits\n"
        began = interrupt(program)
        assert program.stdout.readline() == "interrupted 20\n"
        # A second is promised; the rest is for a loaded machine.
        assert time.monotonic() - began < 5
        assert program.stdout.readline() == "True\n"
        assert program.stdout.readline() == "waits again\n"
        family = family_of(program.pid)
        interrupt(program)
        _, errors = program.communicate(timeout=PATIENCE_S)
    assert program.returncode == -signal.SIGINT
    assert errors.count("Traceback") == 1, errors
    assert errors.rstrip().endswith("KeyboardInterrupt")
    wait_gone(family, PATIENCE_S)


IMPATIENT = """
import gc, os, signal, sys, time
from multiprocessing import active_children
from penstock.engines.crew import Crew
from tests.faults.deliveries import ids, loader_of
from tests.faults.roles import Numbers


def stay():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(1000)


def part(crew):
    print("ends them", flush=True)
    leave(crew)


leave, Crew._part = Crew._part, part
persistent = {"persistent_workers": sys.argv[2] == "persistent"}
assert ids(loader_of(Numbers(8), sys.argv[1], **persistent)) == list(range(8))
gc.collect()
before = len(os.listdir("/proc/self/fd"))
sys.stdin.readline()
loader = loader_of(Numbers(40, {21: stay}), sys.argv[1], **persistent)
try:
    try:
        for batch in loader:
            if batch[0, 0] == 16:
                print("waits", flush=True)
    finally:
        del loader
except KeyboardInterrupt:
    pass
del batch
gc.collect()
print(len(os.listdir("/proc/self/fd")) - before, active_children(), flush=True)
"""


@pytest.mark.parametrize("kept", ["persistent", "for one epoch"])
def test_row_15_ctrl_c_again_while_the_workers_are_ended(start_method, tmp_path, kept):
    variant(start_method, main=kept == "for one epoch")
    with started(tmp_path, IMPATIENT, start_method, kept) as program:
        # Those of the loader that came before.
        assert program.stdout.readline() == "ends them\n"
        print(file=program.stdin, flush=True)
        assert program.stdout.readline() == "waits\n"
        interrupt(program)
        assert program.stdout.readline() == "ends them\n"
        # A second is what one that does not leave is given.
        interrupt(program)
        assert program.stdout.readline() == "0 []\n"
        out, errors = program.communicate(timeout=PATIENCE_S)
    assert (program.returncode, out) == (0, ""), errors


class Interrupting:
    """A batch sampler in which Ctrl-C comes, once, while it draws."""

    def __init__(self, length):
        self.length = length
        self.at = None

    def __len__(self):
        return self.length

    def __iter__(self):
        for number in range(self.length):
            if number == self.at:
                self.at = None
                raise KeyboardInterrupt
            yield [4 * number + place for place in range(4)]


def test_row_15_ctrl_c_while_the_sampler_draws_loses_no_memory(start_method):
    sampler = Interrupting(LENGTH // 4)
    loader = loader_of(
        Numbers(LENGTH),
        start_method,
        batch_size=1,
        batch_sampler=sampler,
        persistent_workers=True,
    )
    assert ids(loader) == list(range(LENGTH))
    held = []
    for _ in range(12):
        sampler.at = 6
        with pytest.raises(KeyboardInterrupt):
            ids(loader)
        assert ids(loader) == list(range(LENGTH))
        held.append(loader._workers._engine.arena.capacity_bytes)
    # How many slots are in use at once depends on how far workers come: a few, and not a dozen.
    assert held[-1] - held[0] < 6 * (held[0] / MOST_SLOTS)


LIVE = """
import signal, sys, time
from tests.faults.deliveries import loader_of
from tests.faults.roles import Numbers

if sys.argv[2] == "handler":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(9))
loader = loader_of(
    Numbers(100_000, pause_s=0.01), sys.argv[1], persistent_workers=sys.argv[2] == "persistent"
)
batches = iter(loader)
next(batches)
print("live", flush=True)
if sys.argv[2] in ("persistent", "for one epoch"):
    sys.stdin.readline()
    sys.exit(7)
for batch in batches:
    pass
"""


@pytest.mark.parametrize(("how", "code"), [("default", -signal.SIGTERM), ("handler", 9)])
def test_row_16_sigterm(start_method, tmp_path, how, code):
    variant(start_method, main=how == "default")
    with started(tmp_path, LIVE, start_method, how) as program:
        assert program.stdout.readline() == "live\n"
        family = family_of(program.pid)
        program.terminate()
        out, errors = program.communicate(timeout=PATIENCE_S)
    assert (program.returncode, out, errors) == (code, "", "")
    wait_gone(family, PATIENCE_S)


@pytest.mark.parametrize("kept", ["persistent", "for one epoch"])
def test_row_16_the_interpreter_exits_with_a_live_iterator(start_method, tmp_path, kept):
    variant(start_method, main=kept == "persistent")
    with started(tmp_path, LIVE, start_method, kept) as program:
        assert program.stdout.readline() == "live\n"
        family = family_of(program.pid)
        out, errors = program.communicate("\n", timeout=PATIENCE_S)
    assert (program.returncode, out, errors) == (7, "", "")
    wait_gone(family, PATIENCE_S)


STOPPED_S = 3.0


def test_row_34_a_worker_is_stopped_for_a_while(start_method, tmp_path):
    once = Once(tmp_path, stop)
    began = []

    def go_on():
        worker = psutil.Process(wait_until(lambda: once.pid))
        wait_until(lambda: worker.status() == psutil.STATUS_STOPPED)
        began.append(time.monotonic())
        time.sleep(STOPPED_S)
        worker.send_signal(signal.SIGCONT)

    thread = threading.Thread(target=go_on)
    thread.start()
    loader = loader_of(Numbers(LENGTH, {13: once}), start_method)
    assert ids(loader) == list(range(LENGTH))
    assert time.monotonic() - began[0] >= STOPPED_S
    thread.join()
    assert loader.statistics().restarts == 0


def take_all(batches, arrived):
    for batch in batches:
        arrived += ids_of(batch)


def test_row_34_a_deadline_applies_to_a_worker_that_is_stopped(start_method):
    loader = loader_of(Numbers(LENGTH), start_method, persistent_workers=True)
    assert ids(loader) == list(range(LENGTH))
    # Now that the workers are up, a second is long.
    loader.timeout = 1.0
    stopped = max(worker_pids())
    os.kill(stopped, signal.SIGSTOP)
    batches = iter(loader)
    arrived = []
    with pytest.raises(BatchTimeoutError, match="timed out after"):
        take_all(batches, arrived)
    os.kill(stopped, signal.SIGCONT)
    assert arrived + ids(batches) == list(range(LENGTH))
    # A worker that is stopped when the loader goes, goes too.
    os.kill(stopped, signal.SIGSTOP)
    del batches, loader
    assert not psutil.pid_exists(stopped)
