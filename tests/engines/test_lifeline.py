from __future__ import annotations

import contextlib
import fcntl
import multiprocessing
import os
import select
import signal
import time
from pathlib import Path

import pytest

from penstock.engines import crew, worker
from penstock.engines.lifeline import Lifeline, hang_on
from penstock.engines.process import ProcessEngine
from penstock.engines.protocol import Done, EpochStart
from tests.engines.driving import job_of, lease, poll_for

pytestmark = [
    pytest.mark.usefixtures("no_leaks"),
    pytest.mark.skipif(
        not hasattr(fcntl, "F_SETSIG"), reason="the system has no signal at the end of a pipe"
    ),
]

KILLED = -signal.SIGKILL


@contextlib.contextmanager
def forked(what):
    """A forked process that does something, and leaves with 0 if it comes to its end."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(30)
            what()
            code = 0
        finally:
            os._exit(code)
    try:
        yield pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def exit_code(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.fixture
def lifeline():
    line = Lifeline(multiprocessing.get_context())
    yield line
    line.let_go()
    line.reader.close()


def test_a_process_and_those_that_it_forks_end_with_the_lifeline(lifeline):
    reader, writer = os.pipe()

    def fork_twice():
        lifeline.let_go()
        os.close(reader)
        hang_on(lifeline.reader)
        if not os.fork():
            os.fork()
        signal.alarm(30)
        os.write(writer, b"x")
        signal.pause()

    with forked(fork_twice) as pid:
        os.close(writer)
        assert [os.read(reader, 1) for _ in range(3)] == [b"x"] * 3
        lifeline.let_go()
        assert exit_code(pid) == KILLED
        # The end of the file: none of them has the pipe any more.
        assert select.select([reader], [], [], 10)[0]
        assert os.read(reader, 1) == b""
    os.close(reader)


def test_a_process_that_hangs_on_to_what_has_ended_ends_at_once(lifeline):
    lifeline.let_go()
    with forked(lambda: hang_on(lifeline.reader)) as pid:
        assert exit_code(pid) == KILLED


def test_a_process_that_is_forked_behind_the_end_ends_at_once(lifeline):
    def fork_behind_the_end():
        # The kernel's signal, which would come first, is not for this process.
        hang_on(lifeline.reader)
        fcntl.fcntl(lifeline.reader.fileno(), fcntl.F_SETOWN, 0)
        lifeline.let_go()
        child = os.fork()
        if not child:
            os._exit(0)
        assert exit_code(child) == KILLED

    with forked(fork_behind_the_end) as pid:
        lifeline.let_go()
        assert exit_code(pid) == 0


def test_another_pipe_in_the_place_of_one_that_was_closed_ends_nobody(lifeline):
    def fork_behind_closing():
        lifeline.let_go()
        hang_on(lifeline.reader)
        os.closerange(3, 100)
        pipes = [os.pipe() for _ in range(20)]
        child = os.fork()
        if not child:
            for _, writer in pipes:
                os.write(writer, b"x")
                os.close(writer)
            os._exit(0)
        assert exit_code(child) == 0

    with forked(fork_behind_closing) as pid:
        assert exit_code(pid) == 0


def test_where_the_system_refuses_the_signal_a_process_goes_on(lifeline, monkeypatch):
    def refuse(*_):
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(fcntl, "fcntl", refuse)

    def hang():
        hang_on(lifeline.reader)

    with forked(hang) as pid:
        assert exit_code(pid) == 0


class PutsAway:
    """Starts a process that has something to put away when it is asked to leave."""

    def __init__(self, path):
        self.path = path

    def __getitem__(self, index):
        context = multiprocessing.get_context("spawn")
        reader, writer = context.Pipe(duplex=False)
        context.Process(target=self.wait, args=(writer,), daemon=True).start()
        return reader.recv()

    def wait(self, writer):
        def leave(*_):
            time.sleep(0.2)
            self.path.touch()
            os._exit(0)

        signal.signal(signal.SIGTERM, leave)
        writer.send(os.getpid())
        while True:
            time.sleep(3600)


class Deaf(PutsAway):
    """The process that it starts does not leave when it is asked to."""

    def wait(self, writer):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        writer.send(os.getpid())
        while True:
            time.sleep(3600)


def pid_started_by(dataset):
    """The process that a worker has started, whose engine has been closed since."""
    engine = ProcessEngine(job_of(dataset), context=multiprocessing.get_context("fork"))
    try:
        engine.start()
        engine.begin_epoch(EpochStart(1))
        engine.submit(lease(0, [1]))
        (done,) = poll_for(engine, Done)
        return int(done.result.open().value)
    finally:
        engine.close()


def test_what_a_worker_has_started_may_leave_in_order(tmp_path, monkeypatch):
    # However busy the machine is.
    monkeypatch.setattr(crew, "LEAVE_S", 30.0)
    monkeypatch.setattr(worker, "_CHILDREN_S", 30.0)
    path = tmp_path / "put away"
    pid_started_by(PutsAway(path))
    assert path.exists()


def test_what_a_worker_has_started_and_does_not_leave_is_killed(tmp_path):
    pid = pid_started_by(Deaf(tmp_path))
    deadline = time.monotonic() + 30
    while is_there(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_there(pid):
    """Whether a process goes on."""
    with contextlib.suppress(OSError):
        stat = Path(f"/proc/{pid}/stat").read_text()
        return stat.rsplit(")", 1)[1].split()[0] not in "ZX"
    return False
