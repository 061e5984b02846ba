"""Memory that is short: in the workers, in the control group, and in the budget."""

import contextlib
import ctypes
import mmap
import os
import resource
import time
import warnings
from pathlib import Path

import pytest
import torch

import penstock
from penstock.errors import MemoryBudgetError
from tests.faults.deliveries import ids, ids_of, loader_of, wait_until, watched
from tests.faults.programs import run
from tests.faults.roles import Numbers, Once, Stream

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("no_leaks")]

LENGTH = 40
MIB = 1 << 20


class LittleMemory(Numbers):
    """Its workers may have so much more memory than they begin with, and sample 13 takes more."""

    def __getitem__(self, index):
        if resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            limit = pages * resource.getpagesize() + 256 * MIB
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        return super().__getitem__(index)


def take_in_python():
    bytearray(1 << 40)


def take_in_c():
    """C++ throws, nobody catches it, and the process is aborted."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL("libstdc++.so.6")._Znwm(ctypes.c_size_t(1 << 46))


def test_row_11_a_limit_that_python_meets_is_a_memory_error(start_method):
    dataset = LittleMemory(LENGTH, {13: take_in_python})
    loader = loader_of(dataset, start_method, on_error="skip", max_skipped=1)
    assert sorted(ids(loader)) == [index for index in range(LENGTH) if index != 13]
    (skipped,) = loader.skipped
    assert isinstance(skipped.cause, MemoryError)
    assert loader.statistics().deaths == ()


def test_row_11_a_limit_that_native_code_dies_of_is_told_as_memory(start_method):
    dataset = LittleMemory(LENGTH, {13: take_in_c})
    loader = loader_of(dataset, start_method, on_error="skip", max_skipped=1)
    assert sorted(ids(loader)) == [index for index in range(LENGTH) if index != 13]
    (skipped,) = loader.skipped
    assert isinstance(skipped.cause, penstock.SampleKilledWorker)
    certificate = skipped.cause.certificate
    assert (certificate.signal_name, certificate.index) == ("SIGABRT", 13)
    assert certificate.of_memory
    assert "bad_alloc" in certificate.stderr
    assert "for want of memory" in str(skipped)
    assert "use fewer workers" in str(skipped)
    # Retried by others, at first, since it need not be the sample's own fault.
    assert loader.statistics().restarts >= 2


def test_row_11_once_short_of_memory_is_made_again(start_method, tmp_path):
    once = Once(tmp_path, take_in_c)
    loader = loader_of(LittleMemory(LENGTH, {13: once}), start_method)
    assert ids(loader) == list(range(LENGTH))
    (death,) = loader.statistics().deaths
    assert death.of_memory
    assert death.index == 13


# A control group of its own for a program, as a container has it.

GROUPS = [
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"),
    ("/sys/fs/cgroup", "memory.max", "memory.swap.max"),
]


@contextlib.contextmanager
def group_of(limit):
    """Makes a control group below this process's own; None where that is not allowed."""
    name = f"penstock-test-{os.getpid()}"
    for root, limit_file, swap_file in GROUPS:
        folder = Path(root, name)
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            # A folder of another file system would take any file.
            with (folder / limit_file).open("r+") as file:
                file.write(str(limit))
            with contextlib.suppress(OSError), (folder / swap_file).open("r+") as file:
                file.write(str(limit if "memsw" in swap_file else 0))
        except OSError:
            folder.rmdir()
            continue
        try:
            yield folder
        finally:
            # Helpers of multiprocessing leave a moment after their program.
            processes = folder / "cgroup.procs"
            wait_until(lambda processes=processes: not processes.read_text())
            folder.rmdir()
        return
    yield None


HUNGRY = """
import sys, time
import penstock
from tests.faults.deliveries import ids_of, loader_of
from tests.faults.roles import Numbers


def memory_of(size):
    hungry = bytearray(size)
    hungry[::4096] = b"1" * len(hungry[::4096])
    return hungry


def take():
    hungry = memory_of(int(sys.argv[2]))
    time.sleep(0.5)


loader = loader_of(
    Numbers(8, {index: take for index in map(int, sys.argv[4:])}), sys.argv[1],
    batch_size=1, on_error="skip", max_skipped=1,
)
model = memory_of(int(sys.argv[3]))
print(sorted(index for batch in loader for index in ids_of(batch)))
print([(error.index, error.cause.certificate.of_memory) for error in loader.skipped])
deaths = loader.statistics().deaths
print(len(deaths) > 0 and all(death.of_memory for death in deaths))
print(deaths[0].likely_cause)
"""


def in_group(tmp_path, limit, start_method, size, indices, model=0):
    """What it prints where samples of these indices take so many bytes, and a model."""
    with group_of(limit) as group:
        if group is None:
            pytest.skip("making a control group needs rights that this user does not have")
        script = f'echo $$ > {group}/cgroup.procs && exec "$@"'
        done = run(
            tmp_path, HUNGRY, start_method, size, model, *indices, under=["bash", "-c", script, "-"]
        )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_row_11_a_sample_that_the_kernel_kills_for_is_told_as_memory(start_method, tmp_path):
    arrived, skipped, of_memory, cause = in_group(
        tmp_path, 1200 * MIB, start_method, 2000 * MIB, [5]
    )
    assert arrived == str([index for index in range(8) if index != 5])
    assert (skipped, of_memory) == ("[(5, True)]", "True")
    assert "by the kernel's out-of-memory killer: " in cause
    assert " of 1.2 GiB used; use fewer workers" in cause


def test_row_11_a_worker_is_killed_before_a_training_process_with_more_memory(tmp_path):
    arrived, skipped, *_ = in_group(
        tmp_path, 1200 * MIB, "forkserver", 2000 * MIB, [5], model=700 * MIB
    )
    assert arrived == str([index for index in range(8) if index != 5])
    assert skipped == "[(5, True)]"


def test_row_11_samples_that_fit_one_at_a_time_are_all_delivered(tmp_path):
    """Two at once are killed for; each is made again while nothing else is."""
    arrived, skipped, of_memory, _ = in_group(tmp_path, 1200 * MIB, "fork", 650 * MIB, [0, 1, 4, 5])
    assert arrived == str(list(range(8)))
    assert (skipped, of_memory) == ("[]", "True")


# A budget.

SAMPLE_MIB = 5  # 20 MiB a batch


class Large(Numbers):
    def __getitem__(self, index):
        super().__getitem__(index)
        return torch.full((SAMPLE_MIB * MIB // 4,), index, dtype=torch.int32)


class LargeStream(Stream):
    def __iter__(self):
        for sample in super().__iter__():
            yield sample[:1].repeat(SAMPLE_MIB * MIB // 4)


@pytest.mark.parametrize("in_order", [True, False])
def test_row_21_past_the_budget_less_is_prefetched(start_method, in_order):
    options = {"prefetch_factor": 4, "num_workers": 3, "in_order": in_order}
    with warnings.catch_warnings():
        # That there are fewer processors, where there are.
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        loader = loader_of(Large(LENGTH, pause_s=0.002), start_method, **options)
    arrived, unbounded = watched(loader)
    assert sorted(arrived) == list(range(LENGTH))
    loader.memory_budget = 72 * MIB
    arrived, most = watched(loader)
    assert sorted(arrived) == list(range(LENGTH))
    assert arrived == list(range(LENGTH)) or not in_order
    assert most <= 72 * MIB < unbounded
    assert loader.statistics().restarts == 0


def test_row_21_to_wait_for_room_is_no_work(start_method):
    loader = loader_of(Large(24), start_method, num_workers=1, memory_budget=48 * MIB)
    for _ in loader:
        # The worker waits until this batch is dropped, which takes two seconds in all.
        time.sleep(0.5)
    assert loader.statistics().busy_s < 1.0


def test_row_21_a_batch_that_cannot_fit_is_refused_before_it_is_allocated(start_method):
    loader = loader_of(Large(LENGTH), start_method, memory_budget=12 * MIB)
    batches = iter(loader)
    with pytest.raises(MemoryBudgetError, match="needs 20,971,520 bytes") as caught:
        next(batches)
    assert "memory_budget=12,582,912 bytes" in str(caught.value)
    assert os.fstat(loader._workers.run._engine.arena.descriptor).st_blocks * 512 < MIB
    batches.close()
    # The loader is as good as before.
    loader.memory_budget = None
    assert ids(loader) == list(range(LENGTH))


def test_row_21_batches_that_are_kept_count(start_method):
    loader = loader_of(Large(LENGTH), start_method, memory_budget=150 * MIB)
    kept = []
    with pytest.raises(MemoryBudgetError, match="batches that the program keeps"):
        kept.extend(loader)
    kept.clear()
    for batch in iter(loader):
        kept.append(batch)
        if len(kept) == 3:
            break
    assert ids(kept) == list(range(12))


class Unequal(Numbers):
    """The first batch is the largest, and the last of all; behind it one waits for a decision."""

    MIB_OF = (5.5, 2.5, 0.5, 0.5)

    def __getitem__(self, index):
        if index == 0:
            time.sleep(0.5)
        if index == 3:
            raise ValueError("is bad")
        return torch.full((1, int(self.MIB_OF[index] * MIB / 4)), index, dtype=torch.int32)


def test_row_21_a_batch_waits_for_room_and_another_for_a_decision_behind_it(start_method):
    loader = loader_of(
        Unequal(4),
        start_method,
        batch_size=None,
        memory_budget=8 * MIB,
        on_error=lambda error: "skip",
        max_skipped=None,
    )
    batches, arrived = iter(loader), []
    with contextlib.suppress(StopIteration):
        while True:
            arrived += ids_of(next(batches))
    assert arrived == [0, 1, 2]
    assert [error.index for error in loader.skipped] == [3]


def test_row_21_a_stream_waits_for_room_too(start_method):
    expected = [ids_of(batch) for batch in loader_of(Stream(LENGTH), start_method)]
    loader = loader_of(LargeStream(LENGTH), start_method, memory_budget=72 * MIB)
    assert [ids_of(batch) for batch in loader] == expected


class GrowingAtTimes(Numbers):
    """Small samples, and now and then four in a row that take most of the budget each."""

    def __getitem__(self, index):
        if index % 60 == 55:
            # The loop catches up: all that is on its way behind this one waits for its worker.
            time.sleep(0.2)
        size = 40 if index % 60 >= 56 else 3 + index % 2
        return torch.full((1, size * MIB // 4), index, dtype=torch.int32)


@pytest.mark.parametrize("in_order", [True, False])
def test_row_21_what_waits_for_its_worker_makes_room_for_a_batch_that_fits(start_method, in_order):
    # The small ones fit, all that may be on their way; with a large one that is half as much again.
    loader = loader_of(
        GrowingAtTimes(120),
        start_method,
        batch_size=None,
        prefetch_factor=4,
        memory_budget=48 * MIB,
        in_order=in_order,
    )
    arrived, most = watched(loader)
    assert sorted(arrived) == list(range(120))
    assert arrived == list(range(120)) or not in_order
    # The journal takes a page.
    assert most <= 48 * MIB + mmap.PAGESIZE


class Threes(Numbers):
    """Each sample is three tensors, for which there is a slot's memory one after another."""

    def __getitem__(self, index):
        return [torch.full((12 * MIB // 4,), index, dtype=torch.int32) for _ in range(3)]


@pytest.mark.parametrize("in_order", [True, False])
def test_row_21_a_batch_of_several_parts_is_made_where_another_is_half_made(start_method, in_order):
    options = {"batch_size": 1, "memory_budget": 44 * MIB, "in_order": in_order}
    loader = loader_of(Threes(LENGTH), start_method, **options)
    arrived, most = watched(loader)
    assert sorted(arrived) == list(range(LENGTH))
    assert arrived == list(range(LENGTH)) or not in_order
    assert most <= 44 * MIB + mmap.PAGESIZE
    assert loader.statistics().deaths == ()
