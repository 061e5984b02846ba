"""The training process: killed, with threads, or forked while it holds batches."""

import contextlib
import gc
import os
import signal
import socket
import threading
import time

import pytest

from penstock.engines import starter
from penstock.engines.lifeline import Lifeline
from penstock.errors import ClosedError
from tests.faults.deliveries import WORKERS, ids, ids_of, loader_of, variant, wait_until
from tests.faults.programs import family_of, run, started, wait_gone
from tests.faults.roles import Log, Numbers
from tests.support.leaks import SHARED_MEMORY

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("no_leaks")]

LENGTH = 40
# Within which workers are promised to be gone.
GONE_S = 2.0

TO_BE_KILLED = """
import sys, time
from tests.faults.deliveries import loader_of
from tests.faults.roles import Numbers, hang

at = {int(index): hang for index in sys.argv[4:]}
dataset = Numbers(100_000, at, pause_s=float(sys.argv[2]))
loader = loader_of(dataset, sys.argv[1], num_workers=2)
kept = []
for batch in loader:
    kept.append(batch)
    if len(kept) == 6:
        print("begun", flush=True)
        time.sleep(float(sys.argv[3]))
"""


def check_killed(program):
    """SIGKILL of a program leaves none of its processes, and no file."""
    family = family_of(program.pid)
    assert len(family) >= 2
    program.kill()
    program.wait()
    wait_gone(family, GONE_S)


def names_left(before):
    return set(SHARED_MEMORY.iterdir()) - before


def test_row_12_the_parent_is_killed(start_method, tmp_path):
    before = set(SHARED_MEMORY.iterdir())
    with started(tmp_path, TO_BE_KILLED, start_method, 0.01, 0) as program:
        assert program.stdout.readline() == "begun\n"
        check_killed(program)
        assert not names_left(before)


def test_row_12_the_parent_is_killed_while_a_sample_holds_the_gil_in_c(start_method, tmp_path):
    # Batches of four: the workers come to them behind the six that are taken.
    with started(tmp_path, TO_BE_KILLED, start_method, 0, 60, 28, 32) as program:
        assert program.stdout.readline() == "begun\n"
        wait_until(lambda: all_wait(program.pid))
        check_killed(program)


SLOW_TO_ARRIVE = """
import multiprocessing, sys, time

def linger():
    with open(sys.argv[2], "a") as log:
        log.write("arriving\\n")
    time.sleep(60)

if __name__ != "__main__" and sys.argv[3] == "main":
    linger()

class Locked:
    def __init__(self, context):
        # Workers get it as an argument, since it cannot be serialised ahead.
        self.lock = context.Lock()

    def __len__(self):
        return 40

    def __getitem__(self, index):
        return index

    def __setstate__(self, state):
        linger()

if __name__ == "__main__":
    from tests.faults.deliveries import loader_of
    dataset = Locked(multiprocessing.get_context(sys.argv[1]))
    for _ in loader_of(dataset, sys.argv[1]):
        pass
"""


@pytest.mark.parametrize("what", ["main", "dataset"])
def test_row_12_the_parent_is_killed_while_its_workers_unpickle_what_they_get(
    start_method, tmp_path, what
):
    if start_method == "fork":
        pytest.skip("everything is inherited")
    log = Log(tmp_path / "arriving")
    with started(tmp_path, SLOW_TO_ARRIVE, start_method, log.path, what) as program:
        wait_until(lambda: len(log.lines()) == WORKERS)
        check_killed(program)


HAS_STARTED_PROCESSES = """
import sys
from tests.faults.deliveries import loader_of
from tests.faults.roles import Log, Numbers, StartProcess

if __name__ == "__main__":
    start = StartProcess(sys.argv[2], Log(sys.argv[3]))
    for number, _ in enumerate(loader_of(Numbers(100_000, {0: start, 4: start}), sys.argv[1])):
        if number == 6:
            print("begun", flush=True)
"""


@pytest.mark.parametrize("started_by", ["fork", "spawn", "forkserver", "os.fork"])
def test_row_12_the_parent_is_killed_whose_workers_have_started_processes(
    start_method, tmp_path, started_by
):
    variant(start_method, main=started_by in ("fork", "forkserver"))
    log = Log(tmp_path / "pids")
    with started(tmp_path, HAS_STARTED_PROCESSES, start_method, started_by, log.path) as program:
        assert program.stdout.readline() == "begun\n"
        wait_until(lambda: len(log.lines()) == 2)
        assert {int(pid) for pid in log.lines()} <= {p.pid for p in family_of(program.pid)}
        check_killed(program)


def test_row_12_a_child_forked_while_a_loader_starts_does_not_keep_the_workers(monkeypatch):
    threads = []
    codes = []

    def fork(lifeline):
        child = os.fork()
        if not child:
            os._exit(0 if lifeline._writer.closed else 1)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    class Watched(Lifeline):
        def __init__(self, context):
            super().__init__(context)
            threads.append(threading.Thread(target=fork, args=(self,)))
            threads[-1].start()
            # It may have to wait until this is known as the parent's.
            threads[-1].join(0.2)

    monkeypatch.setattr(starter, "Lifeline", Watched)
    assert ids(loader_of(Numbers(LENGTH), "fork")) == list(range(LENGTH))
    for thread in threads:
        thread.join()
    assert codes == [0] * WORKERS


def test_row_13_the_parent_is_killed_while_workers_wait(start_method, tmp_path):
    before = set(SHARED_MEMORY.iterdir())
    with started(tmp_path, TO_BE_KILLED, start_method, 0, 60) as program:
        assert program.stdout.readline() == "begun\n"
        # All that may be made ahead is made, and the slots are full.
        wait_until(lambda: all_wait(program.pid))
        check_killed(program)
        assert not names_left(before)


def all_wait(pid):
    """Whether no process of a program has used the processor for a while."""
    used_s = [sum(process.cpu_times()[:2]) for process in family_of(pid)]
    time.sleep(0.3)
    return [sum(process.cpu_times()[:2]) for process in family_of(pid)] == used_s


def test_row_14_a_thread_that_began_the_epoch_ends(start_method):
    loader = loader_of(Numbers(LENGTH, pause_s=0.005), start_method, prefetch_factor=1)
    began = []

    def begin():
        batches = iter(loader)
        began.extend([batches, ids_of(next(batches))])

    thread = threading.Thread(target=begin)
    thread.start()
    thread.join()
    batches, arrived = began
    # A signal that the end of the thread sends would have come by now.
    time.sleep(0.2)
    assert arrived + ids(batches) == list(range(LENGTH))
    assert loader.statistics().restarts == 0


def test_row_19_a_signal_to_a_forked_worker_is_not_told_to_the_parents_event_loop():
    reader, writer = socket.socketpair()
    with reader, writer:
        reader.setblocking(False)
        writer.setblocking(False)
        handler = signal.signal(signal.SIGUSR1, lambda *_: None)
        before = signal.set_wakeup_fd(writer.fileno())
        try:
            loader = loader_of(Numbers(LENGTH, {20: send_usr1}), "fork")
            assert ids(loader) == list(range(LENGTH))
        finally:
            signal.set_wakeup_fd(before)
            signal.signal(signal.SIGUSR1, handler)
        with pytest.raises(BlockingIOError):
            reader.recv(1)


def send_usr1():
    os.kill(os.getpid(), signal.SIGUSR1)


HOLDS_A_LOCK = """
import threading, time
import penstock
from busy import Locked, lock

def hold():
    while True:
        with lock:
            time.sleep(0.01)

for _ in range(2):
    threading.Thread(target=hold, daemon=True).start()
time.sleep(0.05)
for _ in range(5):
    loader = penstock.DataLoader(Locked(), batch_size=4, num_workers=2)
    assert [i for batch in loader for i in batch.tolist()] == list(range(40))
print("done")
"""

LOCKED = """
import threading

lock = threading.Lock()


class Locked:
    def __len__(self):
        return 40

    def __getitem__(self, index):
        with lock:
            return index
"""


def test_row_18_threads_that_hold_locks(tmp_path):
    (tmp_path / "busy.py").write_text(LOCKED)
    done = run(tmp_path, HOLDS_A_LOCK)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


@contextlib.contextmanager
def forked(in_child):
    """A forked child that runs a function and says by its exit code whether that returned True.

    The child may wait for the end of the block, by reading from the descriptor that it is given.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(30)
            os.close(writer)
            os._exit(0 if in_child(reader) else 1)
        finally:
            os._exit(2)
    os.close(reader)
    try:
        yield
    finally:
        os.close(writer)
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_row_19_the_user_forks_while_holding_batches(start_method):
    loader = loader_of(Numbers(400), start_method)
    batches = iter(loader)
    held = [next(batches) for _ in range(3)]
    views = [batch.numpy()[1:] for batch in held]

    def let_go(_):
        nonlocal batches, loader
        intact = ids(held) == list(range(12))
        held.clear()
        views.clear()
        del batches, loader
        gc.collect()
        return intact

    with forked(let_go):
        pass
    # The slots that the child has let go of are not free: what comes later leaves them alone.
    arrived = ids(batches)
    assert ids(held) + arrived == list(range(400))
    assert [view[:, 0].tolist() for view in views] == [[1, 2, 3], [5, 6, 7], [9, 10, 11]]
    assert loader.statistics().restarts == 0


HAS_A_CHILD_THAT_LEAVES = """
import os, sys
from tests.faults.deliveries import ids, ids_of, loader_of
from tests.faults.roles import Numbers

if __name__ == "__main__":
    loader = loader_of(Numbers(400), sys.argv[1])
    batches = iter(loader)
    arrived = ids_of(next(batches))
    child = os.fork()
    if not child:
        # In order: what is to be done at the end of a program is done.
        sys.exit(3)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    print(arrived + ids(batches) == list(range(400)), loader.statistics().restarts)
"""


def test_row_19_a_forked_child_that_leaves_in_order_leaves_the_workers_alone(
    start_method, tmp_path
):
    done = run(tmp_path, HAS_A_CHILD_THAT_LEAVES, start_method)
    assert (done.stdout, done.stderr) == ("3\nTrue 0\n", "")


def test_row_19_the_parent_lets_go_of_what_a_forked_child_holds(start_method):
    # The parent's own references alone say when a slot is free.
    loader = loader_of(Numbers(400), start_method, persistent_workers=True)
    batches = iter(loader)
    held = [next(batches) for _ in range(3)]
    with forked(lambda end: not os.read(end, 1) and len(held) == 3):
        arrived = ids(held)
        held.clear()
        assert arrived + ids(batches) == list(range(400))
        assert ids(loader) == list(range(400))


def test_row_19_a_forked_child_is_not_handed_the_parents_batches(start_method):
    # Those that have arrived lie in slots that the parent alone uses again.
    loader = loader_of(Numbers(400), start_method, prefetch_factor=4)
    batches = iter(loader)
    arrived = ids_of(next(batches))
    wait_until(
        lambda: batches._source._turn(0.0) or batches._source._scheduler.ready > WORKERS * 4 // 2
    )

    def is_refused(_):
        with pytest.raises(ClosedError, match="forked"):
            next(batches)
        return True

    with forked(is_refused):
        pass
    assert arrived + ids(batches) == list(range(400))
