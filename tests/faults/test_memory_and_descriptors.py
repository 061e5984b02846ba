"""Little shared memory, few descriptors, and batches of very different sizes."""

import subprocess
from collections import Counter

import pytest
import torch

from tests.faults.deliveries import loader_of, variant
from tests.faults.programs import run
from tests.faults.roles import Log, Numbers

pytestmark = [pytest.mark.timeout(180), pytest.mark.usefixtures("no_leaks")]


def may_mount():
    command = ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


# What is mounted over /dev/shm, for the program alone.
SMALL = "size=64m"
ABSENT = "size=4k,nr_inodes=1,ro"

LARGE_BATCHES = """
import os, sys
method, backing = sys.argv[1:]
if backing != "memfd":
    del os.memfd_create

import numpy as np
import torch
import penstock
from tests.faults.deliveries import loader_of, variant


class Large:
    # 6 MB a sample, 24 MB a batch, 4 batches ahead and 4 held.
    def __len__(self):
        return 48

    def __getitem__(self, index):
        return torch.full((6 << 20,), index, dtype=torch.uint8)


kept, arrived = [], []
try:
    for batch in loader_of(Large(), method):
        kept = [*kept[-3:], batch]
        arrived += [int(number) for number in batch[:, -1]]
        assert all(bool((each == each[:, :1]).all()) for each in kept)
    print(arrived == list(range(48)))
except penstock.PenstockError as error:
    print(type(error).__name__)
"""


def run_on(folder, mounted, method, backing):
    """Runs the program where /dev/shm is something else."""
    script = f'mount -t tmpfs -o {mounted} tmpfs /dev/shm && exec "$@"'
    under = ["unshare", "-m", "bash", "-c", script, "-"]
    place = "/dev/shm" if backing == "in /dev/shm" else str(folder)
    return run(folder, LARGE_BATCHES, method, backing, under=under, TMPDIR=place)


@pytest.mark.skipif(not may_mount(), reason="mounting needs rights that this user does not have")
@pytest.mark.parametrize("mounted", [SMALL, ABSENT], ids=["64 MB", "absent"])
@pytest.mark.parametrize("backing", ["memfd", "portable"])
def test_row_20_little_shared_memory(start_method, tmp_path, mounted, backing):
    variant(start_method, main=(mounted, backing) == (ABSENT, "memfd"))
    done = run_on(tmp_path, mounted, start_method, backing)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


@pytest.mark.skipif(not may_mount(), reason="mounting needs rights that this user does not have")
def test_row_20_a_batch_that_does_not_fit_is_an_error_and_no_signal(tmp_path):
    done = run_on(tmp_path, SMALL, "fork", "in /dev/shm")
    assert (done.returncode, done.stdout, done.stderr) == (0, "MemoryBudgetError\n", "")


FEW_DESCRIPTORS = """
import resource, sys, warnings
import penstock
from tests.faults.deliveries import ids_of, loader_of
from tests.faults.roles import Numbers

method, limit, workers, ahead, persistent = sys.argv[1], *map(int, sys.argv[2:])
warnings.filterwarnings("ignore", message="This DataLoader will create")
if method != "fork":
    penstock.warm_up(method)
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
try:
    loader = loader_of(
        Numbers(1200), method, num_workers=workers, prefetch_factor=ahead, batch_size=2,
        persistent_workers=bool(persistent),
    )
    for _ in range(2):
        kept = [batch for batch in loader]
        assert [i for batch in kept for i in ids_of(batch)] == list(range(1200))
    print("works")
except penstock.PenstockError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize(("workers", "ahead", "persistent"), [(2, 2, 0), (4, 2, 1)])
def test_row_22_a_limit_of_64_descriptors(start_method, tmp_path, workers, ahead, persistent):
    variant(start_method, main=not persistent)
    done = run(tmp_path, FEW_DESCRIPTORS, start_method, 64, workers, ahead, persistent)
    assert (done.returncode, done.stdout, done.stderr) == (0, "works\n", "")


def test_row_22_a_limit_that_workers_cannot_do_with(start_method, tmp_path):
    done = run(tmp_path, FEW_DESCRIPTORS, start_method, 24, 12, 2, 0)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("WorkerStartError ")
    assert "use fewer workers" in done.stdout


EVERY_LIMIT = """
import gc, os, resource, sys, warnings
import penstock
from tests.faults.deliveries import ids, loader_of
from tests.faults.roles import Large

warnings.filterwarnings("ignore", message="This DataLoader will create")
loader = loader_of(Large(24), sys.argv[1], num_workers=3, batch_size=2)
assert sorted(ids(loader)) == list(range(24))
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
gc.collect()
in_use = len(os.listdir("/proc/self/fd"))
outcomes = set()
for limit in range(in_use, in_use + 60, 3):
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))
    arrived = []
    try:
        for batch in loader:
            arrived += ids([batch])
        outcome = "works"
    except penstock.PenstockError as error:
        outcome = type(error).__name__
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    batch = None
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == in_use, limit
    assert arrived == list(range(24))[: len(arrived)], (limit, arrived)
    assert outcome != "works" or len(arrived) == 24, limit
    outcomes.add(outcome)
    assert sorted(ids(loader)) == list(range(24)), limit
print(*sorted(outcomes))
"""


def test_row_22_whatever_the_limit_it_works_or_the_error_has_a_type(start_method, tmp_path):
    variant(start_method, main=start_method == "forkserver")
    done = run(tmp_path, EVERY_LIMIT, start_method)
    assert (done.returncode, done.stdout) == (0, "WorkerStartError works\n"), done.stderr


class Growing(Numbers):
    """A batch of 300 MB among small ones; says which samples are made."""

    LARGE = 5

    def __init__(self, log):
        super().__init__(12)
        self.log = log

    def __getitem__(self, index):
        self.log(index)
        size = 300 << 20 if index == self.LARGE else 1 << 17
        return torch.full((size,), index, dtype=torch.uint8)


def test_row_23_a_batch_of_300_megabytes_after_small_ones(start_method, tmp_path):
    log = Log(tmp_path / "made")
    loader = loader_of(Growing(log), start_method, batch_size=1)
    arrived = []
    for batch in loader:
        number = batch.numpy()
        assert number.nbytes == (300 << 20 if number[0, 0] == Growing.LARGE else 1 << 17)
        assert number.min() == number.max()
        arrived.append(int(number[0, 0]))
    assert arrived == list(range(12))
    assert Counter(log.lines()) == Counter(map(str, range(12)))
    assert loader.statistics().restarts == 0
