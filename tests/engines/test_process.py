from __future__ import annotations

import json
import multiprocessing
import os
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from penstock.engines.process import HELD_SLOTS, ProcessEngine
from penstock.engines.protocol import (
    Cramped,
    Died,
    Done,
    EpochStart,
    Failed,
    Started,
    StartFailed,
    Withheld,
)
from penstock.errors import ClosedError, SerializationError, WorkerStartError
from penstock.schedule import Fill
from tests.engines.driving import TIMEOUT_S, job_of, lease, poll_for, poll_until

# What a machine under load may take for what is otherwise done in milliseconds.
SOON_S = 2.0

LARGE = 200_000


class Numbers:
    """Gives each index back, as a tensor large enough for a slot."""

    def __getitem__(self, index):
        return torch.full((LARGE,), index, dtype=torch.int32)

    def __len__(self):
        return 1000


class Small:
    def __getitem__(self, index):
        return index

    def __len__(self):
        return 1000


class Exits:
    """Leaves in the midst of sample 13."""

    def __getitem__(self, index):
        if index == 13:
            os._exit(3)
        return index


class Raises:
    def __getitem__(self, index):
        if index == 13:
            raise KeyError("thirteen")
        return index


class Waits:
    """Says through a pipe that sample 13 or 26 has begun, and waits until it may go on."""

    def __init__(self):
        self.begun, self._told = multiprocessing.Pipe(duplex=False)
        self._allowed, self.go_on = multiprocessing.Pipe(duplex=False)

    def __getitem__(self, index):
        if index in (13, 26):
            self._told.send_bytes(b"begun")
            self._allowed.recv_bytes()
        if index == 26:
            raise ValueError("twice the bad luck")
        return index

    def close(self):
        for end in vars(self).values():
            end.close()


class Reader:
    def __init__(self):
        self.handle = threading.Lock()


class HoldsLock:
    def __init__(self):
        self.reader = Reader()


def fail_in_worker(seat):
    raise LookupError(f"no licence for worker {seat}")


def die_in_worker(seat):
    os._exit(5)


@pytest.fixture
def make(no_leaks, start_method):
    """Makes engines with one start method, and closes them."""
    engines = []

    def make(dataset, *, start=True, portable=False, memory_budget=None, **settings):
        engine = ProcessEngine(
            job_of(dataset, **settings),
            context=multiprocessing.get_context(start_method),
            portable=portable,
            memory_budget=memory_budget,
        )
        engines.append(engine)
        if start:
            engine.start()
            engine.begin_epoch(EpochStart(1))
        return engine

    yield make
    for engine in engines:
        engine.close()
    engines.clear()


@pytest.fixture
def waits(no_leaks):
    """A dataset that waits; under spawn its pipe travels as an argument of the process."""
    dataset = Waits()
    yield dataset
    dataset.close()


def alive(pids):
    return [pid for pid in pids if psutil.pid_exists(pid) and not is_zombie(pid)]


def is_zombie(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_gone(pids, timeout_s):
    deadline = time.monotonic() + timeout_s
    while (left := alive(pids)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not left


@pytest.mark.parametrize("portable", [False, True], ids=["memfd", "portable"])
def test_each_lease_is_answered_once_with_its_batch(make, portable):
    engine = make(Numbers(), seats=2, portable=portable)
    for batch in range(10):
        engine.submit(lease(batch, [batch, batch + 100], seat=batch % 2))
    seen = Counter()
    for done in poll_for(engine, Done, 10):
        opened = done.result.open()
        assert opened.samples == 2
        assert opened.value.shape == (2, LARGE)
        seen[done.batch] += 1
        assert opened.value[:, 0].tolist() == [done.batch, done.batch + 100]
        assert opened.value[:, -1].tolist() == [done.batch, done.batch + 100]
        assert done.seat == done.batch % 2
    assert seen == Counter(range(10))
    assert engine.poll(0) == []


def test_batches_that_are_kept_are_not_overwritten(make):
    engine = make(Numbers())
    kept = []
    for batch in range(3 * HELD_SLOTS):
        engine.submit(lease(batch, [batch]))
        (done,) = poll_for(engine, Done)
        kept.append(done.result.open().value)
    for batch, value in enumerate(kept):
        assert torch.equal(value, torch.full((1, LARGE), batch, dtype=torch.int32))


def test_a_batch_outlives_its_engine(make):
    engine = make(Numbers())
    engine.submit(lease(0, [7]))
    (done,) = poll_for(engine, Done)
    value = done.result.open().value
    engine.close()
    assert torch.equal(value, torch.full((1, LARGE), 7, dtype=torch.int32))


class Growing:
    def __getitem__(self, index):
        return torch.full((index,), 5, dtype=torch.uint8)


def test_a_batch_of_300_megabytes_follows_one_of_a_kilobyte(make):
    engine = make(Growing())
    for batch, size in enumerate([1 << 10, 300 << 20, 1 << 10]):
        engine.submit(lease(batch, [size]))
        (done,) = poll_for(engine, Done)
        value = done.result.open().value
        assert value.shape == (1, size)
        assert int(value.min()) == int(value.max()) == 5


def test_more_leases_than_a_pipe_holds_are_sent_without_waiting(make):
    engine = make(Small())
    indices = list(range(1000)) * 20
    for batch in range(30):
        engine.submit(lease(batch, indices))
    engine.flush()
    found = poll_for(engine, Done, 30)
    assert [done.batch for done in found] == list(range(30))
    for done in found:
        assert done.result.open().value.tolist() == indices


def test_slots_come_back_when_results_are_discarded(make):
    engine = make(Numbers())
    for batch in range(20):
        engine.submit(lease(batch, [batch]))
        (done,) = poll_for(engine, Done)
        done.result.discard()
    assert engine.arena.lent == 0
    assert len(engine.arena._slots) == 1


def test_an_exception_arrives_with_its_type_and_the_worker_goes_on(make):
    engine = make(Raises())
    engine.submit(lease(0, [12, 13]))
    engine.submit(lease(1, [14]))
    failed, done = [
        event
        for event in poll_until(
            engine, lambda events: bool(events) and isinstance(events[-1], Done)
        )
        if isinstance(event, (Done, Failed))
    ]
    assert failed.batch == 0
    assert type(failed.error) is KeyError
    assert "sample 13 (Raises[13])" in str(failed.error)
    assert done.result.open().value.tolist() == [14]


def test_a_batch_with_a_bad_sample_is_withheld_until_it_is_amended(make):
    engine = make(Raises(), sample_errors="ask")
    order = lease(0, [12, 13, 14])
    engine.submit(order)
    (withheld,) = poll_for(engine, Withheld)
    ((place, error),) = withheld.failures
    assert (place, error.index, type(error.cause)) == (1, 13, KeyError)
    engine.amend(order, {1: Fill("index", 15)})
    (done,) = poll_for(engine, Done)
    assert done.result.open().value.tolist() == [12, 15, 14]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1])
def test_a_worker_that_is_killed_is_reported_with_the_signal(make, start_method, number):
    if start_method != "fork" and number != signal.SIGKILL:
        pytest.skip("only the price of an import differs")
    engine = make(Small(), seats=2)
    poll_for(engine, Started, 2)
    victim = engine.pids()[1]
    os.kill(victim, number)
    (died,) = poll_for(engine, Died)
    assert died.seat == 1
    assert died.certificate.what.startswith(f"worker 1 (pid {victim}) was killed by {number.name}")
    engine.submit(lease(0, [5]))
    assert [done.result.open().value.tolist() for done in poll_for(engine, Done)] == [[5]]


def test_a_worker_that_leaves_is_reported_with_its_exit_code(make):
    engine = make(Exits())
    engine.submit(lease(0, [1]))
    engine.submit(lease(1, [13]))
    engine.submit(lease(2, [2]))
    *before, died = poll_until(engine, lambda events: any(isinstance(e, Died) for e in events))
    # What it had finished counts.
    assert [event.batch for event in before if isinstance(event, Done)] == [0]
    assert isinstance(died, Died)
    assert died.certificate.what.endswith("ended with exit code 3")


def test_a_restarted_worker_knows_the_epoch_and_takes_leases(make):
    engine = make(Exits())
    for turn in range(2):
        engine.submit(lease(turn, [13]))
        (died,) = poll_for(engine, Died)
        engine.restart(died.seat)
        engine.submit(lease(turn, [turn, turn + 1], attempt=1))
        (done,) = poll_for(engine, Done)
        assert (done.batch, done.attempt) == (turn, 1)
        assert done.result.open().value.tolist() == [turn, turn + 1]


def test_the_slots_of_a_worker_that_died_come_back(make):
    engine = make(Exits())
    for turn in range(2):
        engine.submit(lease(turn, [13]))
        poll_for(engine, Died)
        engine.restart(0)
    engine.submit(lease(9, [1]))
    poll_for(engine, Done)
    assert len(engine.arena._slots) == 1


def test_random_numbers_do_not_depend_on_the_worker_or_on_its_restart(make):
    engine = make(Noise(), seats=2)
    poll_for(engine, Started, 2)
    os.kill(engine.pids()[1], signal.SIGKILL)
    poll_for(engine, Died)
    engine.restart(1)
    found = []
    for batch, (seat, indices) in enumerate([(0, [3, 4]), (1, [3, 4]), (0, [2, 4]), (1, [4])]):
        engine.submit(lease(batch, indices, seat=seat))
        (done,) = poll_for(engine, Done)
        found.append(done.result.open().value.tolist())
    assert found[0] == found[1]
    assert found[0][1] == found[2][1] == found[3][0]


class Noise:
    def __getitem__(self, index):
        return torch.tensor([np.random.rand(), torch.rand(()).item()])


def test_leases_that_are_recalled_before_they_began_give_their_slots_back_unreported(make, waits):
    engine = make(waits)
    engine.submit(lease(0, [13]))
    engine.flush()
    waits.begun.recv_bytes()
    orders = [lease(batch, [batch]) for batch in range(1, 6)]
    for order in orders:
        engine.submit(order)
    for order in orders:
        engine.recall(order)
    engine.submit(lease(6, [60]))
    engine.flush()
    waits.go_on.send_bytes(b"go on")
    found = poll_for(engine, Done, 2)
    assert [(done.batch, done.result.open().value.tolist()) for done in found] == [
        (0, [13]),
        (6, [60]),
    ]
    assert engine.poll(0) == []
    assert len(engine.arena._free) == len(engine.arena._slots) == 7


def test_a_recalled_batch_that_was_withheld_gives_its_slot_back(make):
    engine = make(Raises(), sample_errors="ask")
    order = lease(0, [13])
    engine.submit(order)
    poll_for(engine, Withheld)
    engine.recall(order)
    engine.submit(lease(1, [14]))
    (done,) = poll_for(engine, Done)
    assert done.batch == 1
    done.result.discard()
    assert len(engine.arena._free) == len(engine.arena._slots)


def test_a_new_epoch_drops_the_leases_of_the_old_one_and_their_replies(make):
    engine = make(Numbers(), seats=2)
    for epoch in range(2, 8):
        for batch in range(6):
            engine.submit(lease(batch, [1, 2], seat=batch % 2))
        engine.begin_epoch(EpochStart(epoch))
        for batch in range(2):
            engine.submit(lease(batch, [epoch * 10 + batch], seat=batch))
        found = poll_for(engine, Done, 2)
        values = {done.batch: done.result.open().value[0, 0].item() for done in found}
        assert values == {0: epoch * 10, 1: epoch * 10 + 1}
        assert [event for event in engine.poll(0.05) if isinstance(event, (Done, Failed))] == []
    del found
    assert engine.arena.lent == 0
    assert len(engine.arena._free) == len(engine.arena._slots)


@pytest.mark.parametrize(
    ("index", "mode"), [(13, "raise"), (26, "raise"), (26, "ask"), (26, "drop")]
)
def test_no_reply_of_an_old_epoch_comes_up_for_a_lease_that_was_under_way(make, waits, index, mode):
    engine = make(waits, sample_errors=mode)
    engine.submit(lease(0, [index]))
    engine.flush()
    waits.begun.recv_bytes()
    engine.begin_epoch(EpochStart(2))
    waits.go_on.send_bytes(b"go on")
    engine.submit(lease(0, [5]))
    events = poll_until(engine, lambda events: any(isinstance(e, Done) for e in events))
    (done,) = [event for event in events if not isinstance(event, Started)]
    assert done.result.open().value.tolist() == [5]
    assert engine.poll(0) == []
    assert len(engine.arena._free) == len(engine.arena._slots)


def test_no_reply_of_an_old_epoch_comes_up_that_waited_to_be_read(make):
    engine = make(Numbers())
    poll_for(engine, Started)
    engine.submit(lease(0, [1]))
    engine.flush()
    select.select(engine.wait_handles(), [], [])
    engine.begin_epoch(EpochStart(2))
    engine.submit(lease(0, [5]))
    (done,) = poll_for(engine, Done)
    assert done.result.open().value[0, 0] == 5
    del done
    assert engine.arena.lent == 0
    assert len(engine.arena._free) == len(engine.arena._slots)


def test_a_new_epoch_drops_withheld_batches(make):
    engine = make(Raises(), sample_errors="ask")
    engine.submit(lease(0, [13]))
    poll_for(engine, Withheld)
    engine.begin_epoch(EpochStart(2))
    engine.submit(lease(0, [5]))
    (done,) = poll_for(engine, Done)
    assert done.result.open().value.tolist() == [5]


# The end.


def test_closing_leaves_no_process_when_idle(make):
    engine = make(Small(), seats=2)
    poll_for(engine, Started, 2)
    pids = engine.pids()
    began = time.monotonic()
    engine.close()
    assert alive(pids) == []
    assert time.monotonic() - began < SOON_S
    engine.close()


def test_closing_leaves_no_process_before_the_workers_have_come_up(make):
    engine = make(Small(), seats=2)
    pids = engine.pids()
    engine.close()
    assert alive(pids) == []


def test_closing_leaves_no_process_when_a_sample_never_ends(make, waits):
    engine = make(waits)
    engine.submit(lease(0, [13]))
    engine.flush()
    waits.begun.recv_bytes()
    pids = engine.pids()
    began = time.monotonic()
    engine.close()
    assert alive(pids) == []
    assert time.monotonic() - began < SOON_S + 1


def test_closing_leaves_no_process_that_ignores_the_request_to_leave(make):
    engine = make(Deaf())
    poll_for(engine, Started)
    engine.submit(lease(0, [0]))
    engine.flush()
    pids = engine.pids()
    engine.close()
    assert alive(pids) == []


class Deaf:
    def __getitem__(self, index):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        threading.Event().wait()


def test_closing_before_the_start_does_no_harm(make):
    engine = make(Small(), start=False)
    engine.close()
    engine.close()


def test_a_forked_child_cannot_close_its_parents_workers(make):
    engine = make(Small())
    poll_for(engine, Started)
    child = os.fork()
    if not child:
        engine.close()
        os._exit(0)
    os.waitpid(child, 0)
    engine.submit(lease(0, [5]))
    (done,) = poll_for(engine, Done)
    assert done.result.open().value.tolist() == [5]


def test_a_start_that_fails_in_worker_init_fn_says_why(make):
    engine = make(Small(), worker_init_fn=fail_in_worker)
    (failed,) = poll_for(engine, StartFailed)
    assert failed.seat == 0
    assert type(failed.error) is LookupError
    assert "DataLoader worker process 0.\nLookupError: no licence for worker 0" in str(failed.error)
    assert "fail_in_worker" in str(failed.error)


def test_a_worker_that_dies_before_it_is_ready_is_reported(make):
    engine = make(Small(), worker_init_fn=die_in_worker)
    (died,) = poll_for(engine, Died)
    assert "exit code 5" in died.certificate.what


def test_a_dataset_that_cannot_travel_names_the_attribute(make, start_method):
    engine = make(HoldsLock(), start=False)
    if start_method == "fork":
        engine.start()
        return
    with pytest.raises(SerializationError, match=r"^dataset\.reader\.handle, of type lock"):
        engine.start()


def test_a_connection_of_multiprocessing_travels_as_an_argument_of_the_process(make):
    # Pickled like anything else it would name a descriptor that means something else there.
    reader, writer = multiprocessing.Pipe(duplex=False)
    engine = make(Sends(writer))
    engine.submit(lease(0, [5]))
    poll_for(engine, Done)
    assert reader.recv() == 5
    reader.close()
    writer.close()


class Sends:
    def __init__(self, connection):
        self.connection = connection

    def __getitem__(self, index):
        self.connection.send(index)
        return index


def test_a_lock_of_multiprocessing_travels_as_an_argument_of_the_process(make, start_method):
    lock = multiprocessing.get_context(start_method).Lock()
    with lock:
        engine = make(Locked(lock))
        engine.submit(lease(0, [5]))
        (done,) = poll_for(engine, Done)
        assert done.result.open().value.tolist() == [0]
    engine.submit(lease(1, [5]))
    (done,) = poll_for(engine, Done)
    assert done.result.open().value.tolist() == [5]


class Locked:
    def __init__(self, lock):
        self.lock = lock

    def __getitem__(self, index):
        if not self.lock.acquire(block=False):
            return 0
        self.lock.release()
        return index


# Programs of their own: the parent is killed, or is a script without a guard.


def run_script(tmp_path, text, *arguments):
    script = tmp_path / "program.py"
    script.write_text(textwrap.dedent(text))
    source = Path(__file__).parents[2] / "src"
    path = os.pathsep.join([str(source), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, str(script), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )


KILLED = """
    import json, multiprocessing, sys, time
    from penstock.engines.job import Job
    from penstock.engines.process import ProcessEngine
    from penstock.engines.protocol import EpochStart, Started
    from penstock.schedule import Lease

    if __name__ == "__main__":
        class Numbers:
            def __getitem__(self, index):
                time.sleep(0.1)
                return index

        context = multiprocessing.get_context(sys.argv[1])
        engine = ProcessEngine(Job(Numbers(), 3), context=context)
        engine.start()
        engine.begin_epoch(EpochStart(1))
        ready = 0
        while ready < 3:
            ready += sum(isinstance(event, Started) for event in engine.poll(None))
        # One is idle, and two have work, one of them more than it will get done.
        engine.submit(Lease(0, 0, 1, [1]))
        engine.submit(Lease(1, 0, 2, [1]))
        for batch in range(2, 100):
            engine.submit(Lease(batch, 0, 2, [1]))
        engine.flush()
        print(json.dumps(engine.pids()), flush=True)
        sys.stdin.read()
        time.sleep(60)
"""


@pytest.mark.usefixtures("no_leaks")
def test_workers_are_gone_soon_after_their_parent_was_killed(tmp_path, start_method):
    with run_script(tmp_path, KILLED, start_method) as program:
        assert program.stdout is not None
        pids = json.loads(program.stdout.readline())
        assert len(alive(pids)) == 3
        program.kill()
        try:
            assert wait_gone(pids, SOON_S)
        finally:
            for pid in alive(pids):
                os.kill(pid, signal.SIGKILL)


UNGUARDED = """
    import collections, dataclasses, multiprocessing, os, sys
    import penstock

    print("main runs")

    @dataclasses.dataclass(frozen=True)
    class Key:
        number: int

    Batch = collections.namedtuple("Batch", "numbers")

    class Numbers:
        def __getitem__(self, key):
            assert isinstance(key, Key)
            return key.number + offset

        def __len__(self):
            return 10

    offset = 100

    def collate(samples):
        return Batch(samples)

    loader = penstock.DataLoader(
        Numbers(), batch_size=2, sampler=[Key(number) for number in range(10)], num_workers=2,
        multiprocessing_context=sys.argv[1], collate_fn=collate,
    )
    batches = list(loader)
    assert all(type(batch) is Batch for batch in batches)
    print([number for batch in batches for number in batch.numbers])
"""


@pytest.mark.usefixtures("no_leaks")
def test_a_program_without_a_guard_runs_once_with_classes_of_its_own(tmp_path, start_method):
    with run_script(tmp_path, UNGUARDED, start_method) as program:
        out, err = program.communicate(timeout=TIMEOUT_S)
    assert program.returncode == 0, err
    assert out.splitlines() == ["main runs", str(list(range(100, 110)))]


@pytest.mark.usefixtures("no_leaks")
@pytest.mark.parametrize(
    "step", ["penstock.engines.process.Journal", "penstock.transport.arena.claim"]
)
def test_an_engine_that_cannot_be_made_leaves_no_descriptor_behind(monkeypatch, step):
    def refuse(*_):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(step, refuse)
    with pytest.raises(WorkerStartError, match="Too many"):
        ProcessEngine(job_of([1]))


def test_ctrl_c_while_replies_are_read_loses_no_slot(make, monkeypatch):
    engine = make(Numbers())

    def interrupted(number):
        engine.begin_epoch(EpochStart(number))
        engine.submit(lease(0, [1]))
        engine.flush()
        read = engine._hearing.read

        def read_and_stop(seat, frame, events):
            read(seat, frame, events)
            if any(isinstance(event, Done) for event in events):
                raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(engine._hearing, "read", read_and_stop)
            with pytest.raises(KeyboardInterrupt):
                poll_until(engine, lambda _: False)
        return engine.arena.capacity_bytes

    first = interrupted(0)
    assert first > 0
    assert [interrupted(number) for number in range(1, 8)] == [first] * 7


def answered(engine, batch):
    """The result of a batch that is made now."""
    engine.submit(lease(batch, [batch]))
    (done,) = poll_for(engine, Done)
    return done.result


def test_results_that_nobody_has_come_for_give_their_slots_back_in_the_next_epoch(make):
    engine = make(Numbers())
    kept = answered(engine, 1).open().value
    for number in range(2, 12):
        # Ctrl-C where somebody has taken it, to open it or give it up.
        answered(engine, number)
        engine.begin_epoch(EpochStart(number))
    assert len(engine.arena._slots) == 2
    assert kept.unique().tolist() == [1]


def test_a_result_that_is_discarded_twice_gives_its_slot_back_once(make):
    engine = make(Numbers())
    result = answered(engine, 1)
    result.discard()
    result.discard()
    first, second = (answered(engine, number).open().value for number in (2, 3))
    assert (first.unique().item(), second.unique().item()) == (2, 3)


def test_a_result_of_an_epoch_before_has_no_slot_any_more(make):
    engine = make(Numbers())
    late = [answered(engine, number) for number in (1, 2)]
    engine.begin_epoch(EpochStart(2))
    kept = [answered(engine, number).open().value for number in (3, 4)]
    late[0].discard()
    with pytest.raises(ClosedError):
        late[1].open()
    kept += [answered(engine, number).open().value for number in (5, 6)]
    assert [value.unique().tolist() for value in kept] == [[3], [4], [5], [6]]


def test_answers_that_were_read_and_not_dealt_with_give_their_slots_back(make, monkeypatch):
    engine = make(Numbers())

    def interrupt(*_):
        raise KeyboardInterrupt

    # The first that it says is that it is ready.
    answered(engine, 1).discard()
    for number in range(2, 12):
        engine.begin_epoch(EpochStart(number))
        with monkeypatch.context() as patched:
            patched.setattr(engine._hearing, "read", interrupt)
            engine.submit(lease(0, [1]))
            with pytest.raises(KeyboardInterrupt):
                poll_until(engine, lambda _: False)
        answered(engine, 1).discard()
    # One that is lost, until an answer in a later epoch shows it, and one that is in use.
    assert len(engine.arena._slots) <= 3


def test_a_slot_that_a_worker_may_write_to_stays_with_it_in_the_next_epoch(make, waits):
    engine = make(waits)
    engine.submit(lease(0, [13]))
    engine.flush()
    assert waits.begun.recv_bytes() == b"begun"
    (lent,) = (slot for slot, _ in engine._seats[0].lent.values())
    engine.begin_epoch(EpochStart(2))
    assert engine.arena.acquire(0)[0] != lent
    waits.go_on.send_bytes(b"go on")


def test_that_nobody_can_go_on_is_told_once_in_one_report(make, monkeypatch):
    engine = make(Small(), start=False)
    stuck = Cramped(lease(0, [1]), 1)
    monkeypatch.setattr(engine._room, "stuck", lambda: stuck)
    for _ in range(2):
        events = []
        # For each request that is read, and before anybody waits.
        engine._room.give(events)
        engine._room.give(events)
        assert events == [stuck]


def test_taking_back_what_a_worker_had_that_is_gone_does_not_hide_that_the_next_is_stuck(make):
    engine = make(Numbers(), memory_budget=6 * LARGE)
    kept = answered(engine, 0)
    engine.submit(lease(1, [1]))
    poll_for(engine, Cramped)
    os.kill(engine.pids()[0], signal.SIGKILL)
    poll_for(engine, Died)
    # As for a report of before its death.
    engine.recall(lease(1, [1]))
    engine.restart(0)
    engine.submit(lease(1, [1], attempt=1))
    (stuck,) = poll_for(engine, Cramped)
    assert stuck.lease.attempt == 1
    kept.discard()


def test_a_look_at_the_state_in_a_batch_does_not_count_it_as_kept(make):
    engine = make(Numbers())
    results = [answered(engine, number) for number in range(HELD_SLOTS + 1)]
    assert [result.snapshot() for result in results] == [None] * len(results)
    assert engine.arena.lent == 0
    batches = [result.open().value.unique().tolist() for result in results]
    assert batches == [[number] for number in range(len(results))]
