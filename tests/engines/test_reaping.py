from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time

import pytest

from penstock.engines.launch import start_process
from penstock.engines.reaping import UNKNOWN_EXIT_CODE, abandon, is_gone, reap


def swell():
    bytearray(b"x" * (200 << 20))


def leave_with_five():
    os._exit(5)


def be_killed():
    os.kill(os.getpid(), signal.SIGKILL)


def wait_for_ever():
    signal.pause()


def started(method, target):
    context = multiprocessing.get_context(method)
    return start_process(context, target, (), name="x")


@pytest.mark.usefixtures("no_leaks")
@pytest.mark.parametrize(
    ("target", "code"), [(leave_with_five, 5), (be_killed, -signal.SIGKILL), (swell, 0)]
)
def test_a_process_that_ends_is_reaped_with_its_exit_code(start_method, target, code):
    process = started(start_method, target)
    reap(process, 60.0)
    assert process.exitcode == code
    process.join()
    process.close()


def test_of_a_child_the_most_memory_that_it_had_is_known(start_method):
    process = started(start_method, swell)
    peak = reap(process, 60.0)
    process.close()
    if start_method == "forkserver":
        assert peak is None, "it is the fork server's child"
    else:
        assert peak is not None
        assert 200 << 20 < peak < 8 << 30


def test_a_process_that_goes_on_is_waited_for_no_longer_than_asked():
    process = started("fork", wait_for_ever)
    began = time.monotonic()
    assert reap(process, 0.2) is None
    assert 0.1 < time.monotonic() - began < 5
    assert process.exitcode is None
    process.kill()
    assert reap(process, 60.0) is not None
    assert process.exitcode == -signal.SIGKILL
    process.close()


def test_a_process_whose_exit_code_was_taken_has_it_still(start_method):
    process = started(start_method, leave_with_five)
    process.join()
    assert reap(process, 1.0) is None
    assert process.exitcode == 5
    process.close()


def test_a_process_whose_exit_code_somebody_else_took_is_over(caplog):
    process = started("fork", leave_with_five)
    os.waitpid(process.pid, 0)
    began = time.monotonic()
    assert reap(process, 30.0) is None
    assert time.monotonic() - began < 10
    assert process.exitcode == UNKNOWN_EXIT_CODE
    assert f"of x (pid {process.pid}) was taken by somebody else" in caplog.text
    process.close()


def test_a_process_that_cannot_be_ended_is_not_waited_for_at_the_programs_end(caplog):
    process = started("fork", wait_for_ever)
    assert process in multiprocessing.active_children()
    with caplog.at_level(logging.ERROR, "penstock"):
        abandon(process)
    assert process not in multiprocessing.active_children()
    assert f"x (pid {process.pid}) cannot be ended, even by SIGKILL" in caplog.text
    process.kill()
    process.join()
    process.close()


@pytest.mark.usefixtures("no_leaks")
def test_an_exit_code_that_another_thread_takes_for_multiprocessing_is_known(monkeypatch, caplog):
    process = started("fork", leave_with_five)
    threads = []

    def take_first(pid, options):
        _, status = os.waitpid(pid, 0)

        def note():
            process._popen.returncode = os.waitstatus_to_exitcode(status)

        threads.append(threading.Timer(0.01, note))
        threads[-1].start()
        raise ChildProcessError(10, "No child processes")

    monkeypatch.setattr(os, "wait4", take_first)
    assert reap(process, 30.0) is None
    threads[0].join()
    assert process.exitcode == 5
    assert caplog.text == ""
    process.close()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_process_whose_exit_code_somebody_else_took_is_gone(method):
    process = started(method, leave_with_five)
    os.waitpid(process.pid, 0)
    assert is_gone(process)
    reap(process, 1.0)
    process.close()


@pytest.mark.usefixtures("no_leaks")
def test_the_exit_code_of_a_process_whose_child_holds_its_pipes_is_taken_at_once():
    reader, writer = os.pipe()

    def leave_a_child():
        if not os.fork():
            os.close(writer)
            os.read(reader, 1)
        os._exit(5)

    process = started("fork", leave_a_child)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    began = time.monotonic()
    reap(process, 60.0)
    assert time.monotonic() - began < 30
    assert process.exitcode == 5
    process.close()
    os.close(reader)
    os.close(writer)
