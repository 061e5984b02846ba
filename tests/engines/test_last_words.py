"""What real processes write to their descriptor 2, as the parent shows and quotes it."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.engines import last_words
from penstock.engines.crew import LeasedSeat
from penstock.engines.job import Job
from penstock.engines.last_words import STACK_SIGNAL, LastWords, record
from tests.engines.seated import wait_until

MIB = 1 << 20
TIMEOUT_S = 30.0

pytestmark = pytest.mark.skipif(
    not hasattr(os, "memfd_create"), reason="there are no files in memory"
)


@pytest.fixture
def words():
    words = LastWords.open()
    yield words
    words.let_go()


_started: list[int] = []


@pytest.fixture(autouse=True)
def nobody_is_left():
    """A child that a failed test leaves would hold open what the tests write to."""
    yield
    while _started:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(child := _started.pop(), signal.SIGKILL)
            os.waitpid(child, 0)


def start(words: LastWords, run: Callable[[], object]) -> int:
    """Runs something in a child whose stderr is recorded, with exit code 0 behind it."""
    child = os.fork()
    if child:
        _started.append(child)
        return child
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        # As an interpreter has it, and not as pytest does.
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
        record(words.descriptor)
        run()
        sys.stderr.flush()
        os._exit(0)
    finally:
        os._exit(1)


def end_of(child: int) -> int:
    """The exit code of a child, as of `multiprocessing`."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            _started.remove(pid)
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.005)


def run_to_its_end(words: LastWords, run: Callable[[], object]) -> int:
    return end_of(start(words, run))


def memory_of(words: LastWords) -> int:
    return os.fstat(words.descriptor).st_blocks * 512


def say_by_c(text: bytes) -> None:
    """Writes as C's `write` and `perror` do, without a word to Python."""
    ctypes.CDLL(None).write(2, text, len(text))


# What is shown.


def test_what_c_and_python_write_is_shown_in_its_order(words, capfd):
    def speak():
        sys.stderr.write("from Python\n")
        sys.stderr.flush()
        say_by_c(b"from C\n")
        sys.stderr.write("from Python again\n")

    assert run_to_its_end(words, speak) == 0
    assert capfd.readouterr().err == ""
    words.show()
    assert capfd.readouterr().err == "from Python\nfrom C\nfrom Python again\n"


def test_what_was_shown_is_not_shown_again(words, capfd):
    run_to_its_end(words, lambda: say_by_c(b"once\n"))
    for _ in range(3):
        words.show()
    words.close()
    assert capfd.readouterr().err == "once\n"


def test_what_comes_later_is_shown_later(words, capfd):
    os.write(words.descriptor, b"one\n")
    words.show()
    os.write(words.descriptor, b"two\n")
    words.close()
    words.close()
    assert capfd.readouterr().err == "one\ntwo\n"


def test_what_this_process_has_said_before_comes_before(words, capfd):
    os.write(words.descriptor, b"the worker\n")
    sys.stderr.write("the parent\n")
    words.show()
    assert capfd.readouterr().err == "the parent\nthe worker\n"


@pytest.mark.usefixtures("capfd")
def test_a_parent_without_a_stderr_goes_on(words, monkeypatch):
    os.write(words.descriptor, b"hello\n")
    monkeypatch.setattr(sys, "stderr", None)
    monkeypatch.setattr(os, "write", refuse)
    words.show()
    assert words.lines() == "hello"


def refuse(descriptor: int, data: bytes) -> int:
    raise OSError("no stderr")


def test_a_process_that_is_not_to_show_it_lets_go_of_it_silently(words, capfd):
    os.write(words.descriptor, b"hello\n")
    words.let_go()
    words.show()
    words.close()
    assert words.lines() == words.stack() == ""
    assert capfd.readouterr().err == ""


# What is quoted.


def test_the_last_lines_are_quoted(words, capfd):
    text = "".join(f"line {number}\n" for number in range(1000))
    run_to_its_end(words, lambda: say_by_c(text.encode()))
    assert words.lines().splitlines() == [f"line {number}" for number in range(980, 1000)]
    assert capfd.readouterr().err == text


def test_of_one_line_without_an_end_the_last_of_it_is_quoted(words, capfd):
    run_to_its_end(words, lambda: say_by_c(b"x" * MIB + b"the end"))
    assert words.lines().endswith("the end")
    assert len(words.lines()) == 8192
    assert len(capfd.readouterr().err) == MIB + 7


def test_bytes_that_are_no_text_are_quoted_all_the_same(words):
    os.write(words.descriptor, b"\xff\xfe broken\n")
    assert "broken" in words.lines()


@pytest.mark.usefixtures("capfd")
def test_a_flood_is_never_waited_for_and_its_memory_is_given_back(words):
    block = b"x" * 1023 + b"\n"

    def flood():
        for _ in range(50 * 1024):
            os.write(2, block)
        os.write(2, b"the end\n")

    # Nobody reads: with a pipe it would wait for ever.
    assert run_to_its_end(words, flood) == 0
    assert memory_of(words) >= 50 * MIB
    words.show()
    assert memory_of(words) <= 2 * MIB
    assert words.lines().splitlines()[-1] == "the end"


@pytest.mark.usefixtures("capfd")
def test_a_flood_that_is_shown_meanwhile_takes_little_memory(words):
    most = 0
    for _ in range(40):
        os.write(words.descriptor, b"y" * MIB)
        words.show()
        most = max(most, memory_of(words))
    assert most <= 3 * MIB


# Stacks.


def crash_in_c() -> None:
    ctypes.string_at(0)


def test_the_stack_of_a_crash_is_kept_and_not_shown(words, capfd):
    def crash():
        say_by_c(b"about to crash\n")
        crash_in_c()

    assert run_to_its_end(words, crash) == -signal.SIGSEGV
    words.show()
    assert capfd.readouterr().err == "about to crash\n"
    assert words.stack().startswith("Fatal Python error: Segmentation fault")
    assert "in crash_in_c" in words.stack()
    # Dozens of names, by which nobody is helped.
    assert b"\nExtension modules: " in os.pread(words.descriptor, words.size, 0)
    assert "Extension modules" not in words.stack()
    assert words.lines() == "about to crash"


def test_a_crash_behind_a_flood_is_found_wherever_it_begins(words, capfd):
    flood = (b"f" * 99 + b"\n") * 1310
    # So that a piece that is read at once ends within the words by which a crash is known.
    head = b"h" * (2 * (1 << 16) - len(flood) - 6) + b"\n"
    fatal = b"Fatal Python error: Aborted\n\nThread 1:\n"
    os.write(words.descriptor, flood + head + fatal)
    assert words.stack().startswith("Fatal Python error: Aborted")
    assert "Fatal" not in capfd.readouterr().err


def test_a_line_that_only_speaks_of_a_fatal_error_is_shown(words, capfd):
    run_to_its_end(words, lambda: say_by_c(b"no Fatal Python error: here\nmore\n"))
    assert words.stack() == ""
    assert capfd.readouterr().err == "no Fatal Python error: here\nmore\n"


def wait_in_c() -> None:
    ctypes.CDLL(None).pause()


@pytest.mark.skipif(not STACK_SIGNAL, reason="there is no signal to ask with")
def test_a_stack_that_was_asked_for_is_kept_and_not_shown(words, capfd):
    def work():
        say_by_c(b"working\n")
        while True:
            wait_in_c()

    child = start(words, work)
    wait_until(lambda: words.size > 0)
    words.expect_stacks()
    assert capfd.readouterr().err == "working\n"
    asked = words.size
    os.kill(child, STACK_SIGNAL)
    wait_until(lambda: words.size > asked and "in work" in words.stack())
    os.kill(child, signal.SIGKILL)
    assert end_of(child) == -signal.SIGKILL, "it lives on when it is asked"
    assert "in wait_in_c" in words.stack()
    words.close()
    assert capfd.readouterr().err == ""


def test_stacks_end_where_the_users_code_is_called(words):
    ours = Path(last_words.__file__).with_name("fetch.py")

    def called_from_ours():
        exec(compile("crash_in_c()", str(ours), "exec"), {"crash_in_c": crash_in_c})

    run_to_its_end(words, called_from_ours)
    assert "in crash_in_c" in words.stack()
    assert "fetch.py" not in words.stack()
    assert "called_from_ours" not in words.stack()


def test_each_thread_has_its_stack():
    frames = last_words._without_our_frames(
        [
            "Thread 1 (most recent call first):",
            '  File "/user/a.py", line 1 in decode',
            f'  File "{Path(last_words.__file__).with_name("worker.py")}", line 5 in run',
            '  File "/usr/lib/python3/runpy.py", line 9 in main',
            "",
            "Thread 2 (most recent call first):",
            '  File "/user/b.py", line 2 in fetch',
        ]
    )
    assert [line.split()[-1] for line in frames if line.startswith("  ")] == ["decode", "fetch"]


# What outlives the worker.


def test_a_child_that_outlives_the_worker_may_go_on_writing(words, capfd):
    go_reader, go_writer = os.pipe()
    done_reader, done_writer = os.pipe()

    def leave_a_child():
        if os.fork():
            os._exit(0)
        os.close(go_writer)
        os.close(done_reader)
        say_by_c(b"the child\n")
        os.read(go_reader, 1)
        for _ in range(100):
            os.write(2, b"z" * (1 << 16))
        os.write(done_writer, b"done")
        os._exit(0)

    assert run_to_its_end(words, leave_a_child) == 0
    wait_until(lambda: words.size > 0)
    words.close()
    assert capfd.readouterr().err == "the child\n"
    # From now on nobody reads what it writes.
    for end in (go_reader, done_writer):
        os.close(end)
    os.write(go_writer, b".")
    assert os.read(done_reader, 4) == b"done"
    for end in (go_writer, done_reader):
        os.close(end)


# Where there are no files in memory.


def test_without_files_in_memory_a_worker_writes_where_its_parent_does(monkeypatch, capfd):
    monkeypatch.delattr(os, "memfd_create")
    words = LastWords.open()
    assert words.descriptor == -1
    assert run_to_its_end(words, lambda: say_by_c(b"straight on\n")) == 0
    assert capfd.readouterr().err == "straight on\n"
    words.expect_stacks()
    words.show()
    assert (words.size, words.stack(), words.lines()) == (0, "", "")
    words.close()


@pytest.mark.usefixtures("no_leaks")
def test_a_file_that_was_closed_leaves_nothing_behind():
    for _ in range(5):
        words = LastWords.open()
        run_to_its_end(words, lambda: say_by_c(b""))
        words.close()


def test_a_seat_without_a_worker_holds_no_file():
    job = Job(["a sample"], 1)
    before = len(list(Path("/proc/self/fd").iterdir()))
    seats = [LeasedSeat(job, number) for number in range(8)]
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert {seat.words.size for seat in seats} == {0}


def test_the_tests_own_stderr_and_handler_are_as_they_were():
    assert faulthandler.is_enabled()
    assert sys.stderr is not None
