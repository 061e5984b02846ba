"""Workers that end in the midst of their work: what they had is done again, exactly once."""

import copy
import json
import os
import signal
import sys
import time
import traceback
from multiprocessing import forkserver, popen_forkserver

import psutil
import pytest
import torch

import penstock
from penstock.errors import WorkerStartError
from tests.faults.deliveries import (
    WORKERS,
    ids,
    ids_of,
    loader_of,
    variant,
    wait_until,
    worker_pids,
)
from tests.faults.roles import (
    Leave,
    Log,
    Noise,
    Numbers,
    NumbersAtOnce,
    Once,
    TearReply,
    be_killed,
    crash,
    die_behind_reply,
    die_between_leases,
    scribble,
    tear_slot,
    wait_for_ever,
)

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("no_leaks")]

LENGTH = 40


def check_epoch(loader, *faults):
    """An epoch has every sample once, in order, though a worker has died of each fault."""
    assert ids(loader) == list(range(LENGTH))
    assert all(fault.pid for fault in faults), "a fault never happened"
    assert loader.statistics().restarts == len(faults)


def test_row_01_killed_while_computing_a_sample(start_method, tmp_path):
    # Under spawn each worker takes its second to come up.
    victims = [2, 13, 14, 30] if start_method != "spawn" else [13, 30]
    kills = {index: Once(tmp_path, be_killed, index) for index in victims}

    def epoch(dataset, **options):
        loader = loader_of(dataset, start_method, shuffle=True, seed=3, **options)
        return loader, [batch.clone() for batch in loader]

    _, undisturbed = epoch(Noise(LENGTH), num_workers=0)
    loader, arrived = epoch(Noise(LENGTH, kills))
    assert all(kill.pid for kill in kills.values())
    assert loader.statistics().restarts == len(kills)
    assert len(arrived) == len(undisturbed)
    assert all(map(torch.equal, arrived, undisturbed))
    assert sorted(int(index) for batch in arrived for index in batch[:, 0]) == list(range(LENGTH))


def test_row_02_killed_while_writing_the_slot(start_method, tmp_path):
    quick = Once(tmp_path, tear_slot, "quick")
    check_epoch(loader_of(Numbers(LENGTH, {13: quick}), start_method), quick)
    if start_method == "spawn":
        return
    slow = Once(tmp_path, tear_slot, "slow")
    check_epoch(loader_of(Numbers(LENGTH, {13: slow}, pause_s=0.001), start_method), slow)


def test_row_03_killed_in_the_middle_of_the_reply(start_method, tmp_path):
    # A byte of it is sent, half of the header, all but a byte.
    torn = {at: Once(tmp_path, TearReply(sent), at) for at, sent in ((1, 1), (13, 30), (26, -1))}
    check_epoch(loader_of(Numbers(LENGTH, torn), start_method), *torn.values())


def test_row_04_killed_between_the_reply_and_the_next_lease(start_method, tmp_path):
    ends = [Once(tmp_path, end, end.__name__) for end in (die_behind_reply, die_between_leases)]
    made = Log(tmp_path / "made")
    dataset = Numbers(LENGTH, {0: Note(made, 0), 1: ends[0], 4: Note(made, 4), 5: ends[1]})
    loader = loader_of(dataset, start_method)
    batches = iter(loader)
    # Both replies are there, and nobody who sent them, before anything is read.
    wait_until(lambda: all(end.pid and has_ended(end.pid) for end in ends))
    assert ids(batches) == list(range(LENGTH))
    assert loader.statistics().restarts == len(ends)
    assert sorted(made.lines()) == ["0", "4"], "a batch that had arrived was made again"


def has_ended(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


class Note:
    """Notes that a sample is made."""

    def __init__(self, log, line):
        self.log = log
        self.line = line

    def __call__(self):
        self.log(self.line)


def test_row_05_a_real_segmentation_fault(start_method, tmp_path, caplog):
    once = Once(tmp_path, crash)
    check_epoch(loader_of(Numbers(LENGTH, {13: once}), start_method), once)
    (told,) = [text for text in caplog.messages if str(once.pid) in text]
    assert "SIGSEGV" in told


class Fast:
    """Makes its samples faster than anything could be noted of each, and crashes at one."""

    def __len__(self):
        return LENGTH

    def __getitem__(self, index):
        return crash() if index == 13 else index


def loaded_fast(dataset):
    return loader_of(dataset, "fork", on_error="skip", max_skipped=1)


def iterated_fast(dataset):
    # In leases of many samples, since they take no time.
    return penstock.iterate(
        dataset, workers=WORKERS, on_error="skip", max_skipped=1, multiprocessing_context="fork"
    )


@pytest.mark.parametrize("begin", [loaded_fast, iterated_fast])
def test_row_05_the_sample_is_known_at_each_crash_also_among_those_that_take_no_time(begin, caplog):
    crashes = 0
    for _ in range(3):
        caplog.clear()
        samples = begin(Fast())
        list(samples)
        told = [text for text in caplog.messages if "takes its place" in text]
        crashes += len(told)
        assert all("at sample 13 (Fast[13])" in text for text in told), told
    assert crashes >= 6


def test_row_06_left_by_exit(start_method, tmp_path, caplog):
    left = {code: Once(tmp_path, Leave(code), code) for code in (0, 3)}
    loader = loader_of(Numbers(LENGTH, {13: left[0], 26: left[3]}), start_method)
    check_epoch(loader, *left.values())
    for code, once in left.items():
        (told,) = [text for text in caplog.messages if str(once.pid) in text]
        assert f"exit code {code}" in told


def set_aside_of(error):
    """What the log is told of it."""
    return f"sample 13 ({error.__cause__.source}) is set aside: {error.certificate.what}"


def check_poison(loader, caplog):
    batches = iter(loader)
    arrived = ids_of(next(batches))
    with pytest.raises(penstock.SampleKilledWorker, match=r"\[13\]") as caught:
        next(batches)
    assert isinstance(caught.value.__cause__, penstock.SampleError)
    assert caught.value.__cause__.index == 13
    assert caplog.messages.count(set_aside_of(caught.value)) == 1
    story = "".join(traceback.format_exception(caught.value))
    # Once of itself, and once of the record that is its cause.
    assert story.count("exited unexpectedly") == 2
    assert "Original traceback" not in story
    assert arrived + ids(batches) == [index for index in range(LENGTH) if not 8 <= index < 16]


def test_row_07_a_sample_that_kills_every_worker_is_raised(start_method, caplog):
    check_poison(loader_of(Numbers(LENGTH, {13: be_killed}), start_method, batch_size=8), caplog)


def test_row_07_a_sample_that_kills_every_worker_is_raised_as_the_program_decides(caplog):
    dataset = Numbers(LENGTH, {13: be_killed})
    loader = loader_of(dataset, "fork", batch_size=8, on_error=lambda error: "raise")
    check_poison(loader, caplog)


def test_row_07_a_sample_that_kills_every_worker_is_found_by_halving(caplog):
    check_poison(loader_of(NumbersAtOnce(LENGTH, {13: be_killed}), "fork", batch_size=8), caplog)


def test_row_07_a_sample_that_has_every_worker_write_nonsense_is_raised_as_that(caplog):
    check_poison(loader_of(Numbers(LENGTH, {13: scribble}), "fork", batch_size=8), caplog)
    assert caplog.messages
    for told in caplog.messages:
        assert "was ended, since b'garbageg' is not the start of a message" in told


def test_row_07_a_sample_that_kills_every_worker_is_skipped(start_method):
    dataset = Numbers(LENGTH, {13: be_killed})
    loader = loader_of(
        dataset, start_method, on_error="skip", max_skipped=1, persistent_workers=True
    )
    expected = [index for index in range(LENGTH) if index != 13]
    assert sorted(ids(loader)) == expected
    assert loader.statistics().restarts >= 2
    # It stays set aside: nobody dies of it again.
    assert sorted(ids(loader)) == expected
    assert loader.statistics().restarts == 0
    (skipped,) = loader.skipped
    assert skipped.index == 13
    assert isinstance(skipped.cause, penstock.SampleKilledWorker)


def copied(loader, _):
    return copy.copy(loader)


def loaded(loader, state):
    fresh = loader_of(loader.dataset, "fork", on_error="skip", max_skipped=2)
    fresh.load_state_dict(state)
    return fresh


@pytest.mark.parametrize("another", [copied, loaded])
def test_row_07_a_sample_in_quarantine_is_so_in_copies_and_behind_a_state(another):
    dataset = Numbers(LENGTH, {13: be_killed})
    loader = loader_of(dataset, "fork", on_error="skip", max_skipped=2)
    expected = [index for index in range(LENGTH) if index != 13]
    assert sorted(ids(loader)) == expected
    state = json.loads(json.dumps(loader.state_dict()))
    other = another(loader, state)
    assert sorted(ids(other)) == expected
    assert other.statistics().restarts == 0
    (skipped,) = other.skipped
    assert (skipped.index, type(skipped.cause)) == (13, penstock.SampleKilledWorker)
    assert str(skipped.cause).startswith(str(loader.skipped[0].cause).partition("\n")[0])
    # What one finds from now on, the other does not know.
    dataset.at[20] = be_killed
    assert sorted(ids(other)) == [index for index in expected if index != 20]
    assert other.statistics().restarts > 0
    assert len(loader.state_dict()["quarantine"]) == 1
    assert len(other.state_dict()["quarantine"]) == 2


@pytest.mark.parametrize("persistent", [False, True])
def test_row_09_all_workers_killed_at_once(start_method, persistent):
    variant(start_method, main=persistent)
    loader = loader_of(Numbers(LENGTH, pause_s=0.002), start_method, persistent_workers=persistent)
    for _ in range(2):
        arrived = []
        for number, batch in enumerate(loader):
            arrived += ids_of(batch)
            if number == 2:
                pids = worker_pids()
                assert len(pids) == WORKERS
                for pid in pids:
                    os.kill(pid, signal.SIGKILL)
        assert arrived == list(range(LENGTH))
        assert loader.statistics().restarts == WORKERS


def test_row_09_the_fork_server_is_killed_while_workers_are_at_their_samples(tmp_path):
    """Workers go on without it, also for ever, and must not write to what others have by then."""
    stuck = {index: Once(tmp_path, wait_for_ever, index) for index in (1, 5)}
    batches = iter(loader_of(Numbers(LENGTH, stuck), "forkserver"))
    pids = [wait_until(lambda once=once: once.pid) for once in stuck.values()]
    os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)
    arrived = ids_of(next(batches))
    for pid in pids:
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    assert arrived + ids(batches) == list(range(LENGTH))


def test_row_09_the_fork_server_is_killed_while_it_starts_a_worker(monkeypatch):
    connect, killed = popen_forkserver.forkserver.connect_to_new_process, []

    def die_behind(descriptors):
        server = forkserver._forkserver._forkserver_pid
        if server is None or killed:
            return connect(descriptors)
        killed.append(server)
        os.kill(server, signal.SIGSTOP)
        wait_until(lambda: psutil.Process(server).status() == psutil.STATUS_STOPPED)
        ends = connect(descriptors)
        os.kill(server, signal.SIGKILL)
        return ends

    penstock.warm_up("forkserver")
    monkeypatch.setattr(popen_forkserver.forkserver, "connect_to_new_process", die_behind)
    assert ids(loader_of(Numbers(LENGTH), "forkserver")) == list(range(LENGTH))
    assert killed


# Workers that never come up.

BROKEN_MODULE = """
import multiprocessing

from tests.faults.roles import Log

if multiprocessing.parent_process() is not None:
    Log({log!r})("tried")
    raise ImportError("no codec for this")


class Numbers:
    def __len__(self):
        return 40

    def __getitem__(self, index):
        return index
"""


class BreaksOnArrival(Numbers):
    """Cannot be unpickled."""

    def __init__(self, log):
        super().__init__(LENGTH)
        self.log = log

    def __getstate__(self):
        return {"log": self.log}

    def __setstate__(self, state):
        state["log"]("tried")
        raise LookupError("no licence for this")


class FailsInInit:
    def __init__(self, log):
        self.log = log

    def __call__(self, seat):
        self.log("tried")
        raise LookupError(f"no licence for worker {seat}")


class DiesInInit(FailsInInit):
    def __call__(self, seat):
        self.log("tried")
        os._exit(5)


def crash_in_init(seat):
    os.write(2, b"no licence\n")
    crash()


def test_row_10_the_stack_of_a_crash_in_worker_init_fn_is_told():
    loader = loader_of(Numbers(LENGTH), "fork", worker_init_fn=crash_in_init)
    with pytest.raises(WorkerStartError) as caught:
        next(iter(loader))
    told, *page = str(caught.value).splitlines()
    assert f"SIGSEGV while it started (dataset, worker_init_fn), the {WORKERS + 3}th in a" in told
    assert "Most likely native code crashed, called from " in told
    assert "on_error" not in told
    assert any("in crash_in_init" in line for line in page)
    assert page[-1].strip() == "no licence"
    assert not any("Extension modules" in line for line in page)


def check_refusal(loader, log, kind, text):
    began = time.monotonic()
    with pytest.raises(kind, match=text) as caught:
        next(iter(loader))
    assert time.monotonic() - began < 30
    # Once for each worker, and not again and again.
    assert 1 <= len(log.lines()) <= WORKERS
    assert worker_pids() == []
    return str(caught.value)


def test_row_10_a_crash_on_import(start_method, tmp_path, monkeypatch):
    if start_method == "fork":
        pytest.skip("a forked worker imports nothing")
    log = Log(tmp_path / "log")
    (tmp_path / "broken_module.py").write_text(BROKEN_MODULE.format(log=str(log.path)))
    monkeypatch.syspath_prepend(tmp_path)
    import broken_module

    monkeypatch.delitem(sys.modules, "broken_module")
    monkeypatch.setitem(sys.modules, "broken_module", broken_module)
    loader = loader_of(broken_module.Numbers(), start_method)
    text = check_refusal(loader, log, ImportError, "no codec for this")
    assert "broken_module.py" in text


def test_row_10_an_error_where_the_dataset_is_unpickled(start_method, tmp_path):
    if start_method == "fork":
        pytest.skip("a forked worker inherits the dataset as it is")
    log = Log(tmp_path / "log")
    loader = loader_of(BreaksOnArrival(log), start_method)
    text = check_refusal(loader, log, LookupError, "no licence for this")
    assert "in __setstate__" in text


def test_row_10_an_error_in_worker_init_fn(start_method, tmp_path):
    log = Log(tmp_path / "log")
    loader = loader_of(Numbers(LENGTH), start_method, worker_init_fn=FailsInInit(log))
    text = check_refusal(loader, log, LookupError, r"no licence for worker \d")
    assert "in __call__" in text
    loader.worker_init_fn = None
    assert ids(loader) == list(range(LENGTH))


def test_row_10_a_crash_in_worker_init_fn(start_method, tmp_path):
    log = Log(tmp_path / "log")
    loader = loader_of(Numbers(LENGTH), start_method, worker_init_fn=DiesInInit(log))
    with pytest.raises(WorkerStartError, match=r"exit code 5 while it started .*os\._exit\(5\)"):
        next(iter(loader))
    # A worker that is only unlucky is replaced, so a few are tried, and no more.
    assert WORKERS <= len(log.lines()) <= 4 * WORKERS
