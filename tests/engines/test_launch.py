from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
from multiprocessing import forkserver, spawn

import pytest

from penstock.engines import launch
from penstock.engines.launch import (
    choose_context,
    start_method,
    start_process,
)
from penstock.engines.process import ProcessEngine
from penstock.engines.protocol import Done, EpochStart
from penstock.errors import SerializationError, WorkerStartError
from tests.engines.driving import job_of, lease, poll_for

FORKS_BY_DEFAULT = multiprocessing.get_context().get_start_method() == "fork"


@pytest.fixture
def other_thread():
    """Another thread of the program, that waits."""
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="telemetry")
    thread.start()
    yield
    stop.set()
    thread.join()


@pytest.fixture
def forks(monkeypatch):
    """Fork as multiprocessing's default, as it is up to Python 3.13 on Linux."""
    context = multiprocessing.get_context("fork")
    original = multiprocessing.get_context
    monkeypatch.setattr(
        multiprocessing, "get_context", lambda method=None: original(method) if method else context
    )


def serialises():
    pass


def does_not_serialise():
    raise SerializationError("cannot be sent to a worker: it holds a lock")


def no_question():
    raise AssertionError("nobody needs to know whether the dataset serialises")


def test_what_the_user_asked_for_is_what_they_get(start_method, other_thread):
    asked = multiprocessing.get_context(start_method)
    assert choose_context(asked, no_question) is asked


@pytest.mark.usefixtures("forks")
def test_without_other_threads_workers_are_forked():
    assert start_method_of(choose_context(None, no_question)) == "fork"


@pytest.mark.usefixtures("forks", "other_thread")
def test_with_other_threads_workers_come_from_a_fork_server_and_a_log_line_says_so(caplog):
    with caplog.at_level(logging.INFO, "penstock"):
        context = choose_context(None, serialises)
    assert start_method_of(context) == "forkserver"
    assert len(caplog.records) == 1
    assert "telemetry" in caplog.text


@pytest.mark.usefixtures("forks", "other_thread")
def test_with_other_threads_a_dataset_that_cannot_travel_is_forked_with_a_warning():
    with pytest.warns(RuntimeWarning, match=r"telemetry.*can deadlock.*holds a lock"):
        context = choose_context(None, does_not_serialise)
    assert start_method_of(context) == "fork"


def start_method_of(context):
    return start_method(context)


class Locked:
    def __init__(self):
        self.lock = threading.Lock()

    def __getitem__(self, index):
        return index


class Plain:
    def __getitem__(self, index):
        return os.getppid()


@pytest.mark.usefixtures("no_leaks", "forks", "other_thread")
def test_an_engine_works_beside_other_threads():
    engine = ProcessEngine(job_of(Plain()))
    try:
        engine.start()
        engine.begin_epoch(EpochStart(1))
        engine.submit(lease(0, [1]))
        (done,) = poll_for(engine, Done)
        assert done.result.open().value.tolist() != [os.getpid()]
    finally:
        engine.close()


@pytest.mark.usefixtures("no_leaks", "forks", "other_thread")
def test_an_engine_works_beside_other_threads_where_the_dataset_cannot_travel():
    engine = ProcessEngine(job_of(Locked()))
    try:
        with pytest.warns(RuntimeWarning, match=r"since dataset\.lock"):
            engine.start()
        engine.begin_epoch(EpochStart(1))
        engine.submit(lease(0, [5]))
        (done,) = poll_for(engine, Done)
        assert done.result.open().value.tolist() == [5]
    finally:
        engine.close()


# Without the program's main module.


def test_the_main_module_is_left_out_for_this_thread_alone(monkeypatch):
    # Whatever runs the tests may have none that could be imported again.
    monkeypatch.setattr(sys.modules["__main__"], "__file__", __file__, raising=False)
    original = spawn.get_preparation_data("x")
    assert {"init_main_from_path", "init_main_from_name"} & set(original)
    found = []
    with launch._without_main():
        here = spawn.get_preparation_data("x")
        thread = threading.Thread(target=lambda: found.append(spawn.get_preparation_data("x")))
        thread.start()
        thread.join()
    assert not {"init_main_from_path", "init_main_from_name"} & set(here)
    assert found == [original]


def test_the_main_module_is_put_back_after_an_error():
    original = spawn.get_preparation_data
    with pytest.raises(ZeroDivisionError), launch._without_main():
        1 / 0  # noqa: B018
    assert spawn.get_preparation_data is original
    assert not launch._main_lock.locked()


def exit_code_of_forked(what):
    """That of a forked child, which is 0 if the function returns True there."""
    child = os.fork()
    if not child:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(30)
            os._exit(0 if what() else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_child_that_another_thread_forks_meanwhile_can_start_processes():
    original = spawn.get_preparation_data
    codes = []

    def is_put_back():
        with launch._without_main():
            pass
        return spawn.get_preparation_data is original

    with launch._without_main():
        forking = threading.Thread(target=lambda: codes.append(exit_code_of_forked(is_put_back)))
        forking.start()
        forking.join()
    assert codes == [0]


@pytest.mark.usefixtures("no_leaks")
def test_a_forked_child_has_a_fork_server_of_its_own():
    context = multiprocessing.get_context("forkserver")

    def leaves_with_five():
        launch.warm_up(context)
        process = start_process(context, leave_with_five, (), name="x")
        process.join(30)
        code = process.exitcode
        forkserver._forkserver._stop()
        return code == 5

    launch.warm_up(context)
    server = forkserver._forkserver._forkserver_pid
    assert exit_code_of_forked(leaves_with_five) == 0
    # That of the parent goes on.
    launch.warm_up(context)
    assert forkserver._forkserver._forkserver_pid == server


def leave_with_five():
    os._exit(5)


def test_ctrl_c_that_another_thread_was_sent_leaves_nothing_held_back(monkeypatch):
    mask = signal.pthread_sigmask

    def interrupted(how, signals):
        before = mask(how, signals)
        if how == signal.SIG_BLOCK and signals:
            raise KeyboardInterrupt
        return before

    monkeypatch.setattr(signal, "pthread_sigmask", interrupted)
    with pytest.raises(KeyboardInterrupt), launch.interrupts_held("fork"):
        pass
    assert signal.SIGINT not in mask(signal.SIG_BLOCK, ())


@pytest.mark.usefixtures("no_leaks")
def test_arguments_that_cannot_be_sent_are_an_error_that_leaves_nothing_behind(start_method):
    if start_method == "fork":
        pytest.skip("everything is inherited")
    original = spawn.get_preparation_data
    context = multiprocessing.get_context(start_method)
    with pytest.raises(SerializationError, match="cannot be sent to a worker"):
        start_process(context, print, (threading.Lock(),), name="x")
    assert spawn.get_preparation_data is original
    assert not launch._main_lock.locked()


class Unreadable:
    def __init__(self, error):
        self.error = error

    def __getstate__(self):
        raise self.error


@pytest.mark.usefixtures("no_leaks")
@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(2, "No such file", "/data/index"),
        EOFError("it is short"),
        ConnectionResetError("it is gone"),
        KeyError("its name"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_of_arguments_is_not_taken_for_the_systems(start_method, error):
    if start_method == "fork":
        pytest.skip("everything is inherited")
    context = multiprocessing.get_context(start_method)
    with pytest.raises(SerializationError, match="cannot be sent to a worker: ") as caught:
        start_process(context, print, (Unreadable(error),), name="x")
    assert caught.value.__cause__ is error


@pytest.mark.usefixtures("no_leaks")
def test_a_fork_that_the_system_refuses_leaves_no_descriptor_behind(monkeypatch):
    def refuse():
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)
    context = multiprocessing.get_context("fork")
    for _ in range(3):
        with pytest.raises(WorkerStartError, match=r"temporarily unavailable.*use fewer workers"):
            start_process(context, print, (), name="x")


def test_a_process_that_the_system_will_not_start_is_an_error_with_the_remedy(monkeypatch):
    context = multiprocessing.get_context("fork")

    def refuse(self):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(context.Process, "start", refuse)
    with pytest.raises(WorkerStartError, match=r"temporarily unavailable.*use fewer workers"):
        start_process(context, print, (), name="x")


def report_state(connection):
    connection.send((launch._main_lock.locked(), spawn.get_preparation_data.__module__))
    connection.close()


@pytest.mark.usefixtures("no_leaks")
def test_a_worker_may_start_processes_of_its_own(start_method):
    # A forked child inherits every lock as it is, and one that is held it would wait for for ever.
    context = multiprocessing.get_context(start_method)
    reader, writer = context.Pipe(duplex=False)
    process = start_process(context, report_state, (writer,), name="x")
    writer.close()
    assert reader.poll(30)
    assert reader.recv() == (False, spawn.get_preparation_data.__module__)
    reader.close()
    process.join()
    process.close()
