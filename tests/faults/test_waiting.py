"""What could be waited for in vain: output that nobody reads, and clocks that jump."""

import time

import pytest

from penstock.errors import BatchTimeoutError
from tests.faults.deliveries import ids, loader_of
from tests.faults.programs import run
from tests.faults.roles import Numbers

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("no_leaks")]

LENGTH = 40

FLOOD = """
import os, sys, time
from tests.faults.deliveries import ids, loader_of, wait_until
from tests.faults.roles import Log, Numbers

LINE = "x" * 99
log = Log(sys.argv[2])


class Floods(Numbers):
    def __getitem__(self, index):
        if index in (2, 6):
            for _ in range(50_000):
                print(LINE)
                print(LINE, file=sys.stderr)
            sys.stdout.flush()
            # And past Python, as libraries in C do.
            for descriptor in (1, 2):
                for _ in range(50):
                    write_all(descriptor, (LINE + "\\n").encode() * 1000)
            log("flooded")
        return super().__getitem__(index)


def write_all(descriptor, data):
    while data:
        data = data[os.write(descriptor, data):]


batches = iter(loader_of(Floods(40), sys.argv[1]))
# The training loop is busy elsewhere; the workers go on.
wait_until(lambda: len(log.lines()) == 2)
print("sum", sum(ids(batches)))
"""


def test_row_31_workers_flood_their_output(start_method, tmp_path):
    done = run(tmp_path, FLOOD, start_method, tmp_path / "log")
    assert done.returncode == 0, done.stderr[-1000:]
    # 10 MB from each worker on each, and all of it.
    assert done.stdout.count("x") >= 2 * 99 * 100_000
    assert done.stderr.count("x") >= 2 * 99 * 100_000
    assert f"sum {sum(range(LENGTH))}" in done.stdout
    assert not done.stderr.strip("x\n")


class Jumping:
    """A wall clock that goes a day ahead, and a day back, each time that it is read."""

    def __init__(self):
        self.reads = 0

    def __call__(self):
        self.reads += 1
        return 1e9 + 86_400 * (-1) ** self.reads


@pytest.fixture
def clock(monkeypatch):
    jumping = Jumping()
    monkeypatch.setattr(time, "time", jumping)
    monkeypatch.setattr(time, "time_ns", lambda: int(jumping() * 1e9))
    assert abs(time.time() - time.time()) > 86_400
    return jumping


@pytest.mark.usefixtures("clock")
def test_row_33_the_clock_jumps(start_method):
    loader = loader_of(Numbers(LENGTH, pause_s=0.01), start_method, timeout=20.0)
    assert ids(loader) == list(range(LENGTH))
    assert 0 < loader.statistics().elapsed_s < 60
    assert loader.statistics().restarts == 0


def test_row_33_a_timeout_comes_though_the_clock_stands_still(start_method, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1e9)
    loader = loader_of(Numbers(LENGTH, pause_s=30), start_method, timeout=1.0)
    began = time.monotonic()
    with pytest.raises(BatchTimeoutError, match="after 1 seconds"):
        next(iter(loader))
    assert 1 <= time.monotonic() - began < 20
