from __future__ import annotations

import logging
import multiprocessing
import os
import sys
import threading
from multiprocessing import spawn

import pytest

from penstock.engines import launch
from penstock.engines.launch import choose_context, start_method, start_process
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


@pytest.mark.usefixtures("no_leaks")
@pytest.mark.parametrize("needs_main", [False, True])
def test_arguments_that_cannot_be_sent_are_an_error_that_leaves_nothing_behind(
    start_method, needs_main
):
    if start_method == "fork":
        pytest.skip("everything is inherited")
    original = spawn.get_preparation_data
    context = multiprocessing.get_context(start_method)
    with pytest.raises(SerializationError, match="cannot be sent to a worker"):
        start_process(context, print, (threading.Lock(),), name="x", needs_main=needs_main)
    assert spawn.get_preparation_data is original
    assert not launch._main_lock.locked()


def test_a_process_that_the_system_will_not_start_is_an_error_with_the_remedy(monkeypatch):
    context = multiprocessing.get_context("fork")

    def refuse(self):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(context.Process, "start", refuse)
    with pytest.raises(WorkerStartError, match=r"temporarily unavailable.*lower num_workers"):
        start_process(context, print, (), name="x", needs_main=False)


def report_state(connection):
    connection.send((launch._main_lock.locked(), spawn.get_preparation_data.__module__))
    connection.close()


@pytest.mark.usefixtures("no_leaks")
def test_a_worker_may_start_processes_of_its_own(start_method):
    # A forked child inherits every lock as it is, and one that is held it would wait for for ever.
    context = multiprocessing.get_context(start_method)
    reader, writer = context.Pipe(duplex=False)
    process = start_process(context, report_state, (writer,), name="x", needs_main=False)
    writer.close()
    assert reader.poll(30)
    assert reader.recv() == (False, spawn.get_preparation_data.__module__)
    reader.close()
    process.join()
    process.close()
