"""Real processes, looked at from outside."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil
import pytest

from penstock.engines import vitals
from penstock.engines.vitals import has_opened, look_at

MIB = 1 << 20


@contextmanager
def child_that(prepare: Callable[[], object]) -> Iterator[int]:
    """A child process that has done something and waits."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        kept = prepare()
        os.write(writer, b".")
        signal.pause()
        os._exit(int(kept is None))
    os.close(writer)
    try:
        assert os.read(reader, 1) == b"."
        yield child
    finally:
        os.close(reader)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_process_is_seen_with_what_it_takes():
    seen = look_at(os.getpid())
    rss = psutil.Process().memory_info().rss
    assert seen is not None
    assert abs(seen.rss_bytes - rss) < 16 * MIB
    assert seen.descriptors is not None
    assert abs(seen.descriptors - psutil.Process().num_fds()) <= 1


def test_what_a_process_takes_more_than_another_is_seen():
    with child_that(lambda: None) as small, child_that(lambda: bytearray(b"x" * (64 * MIB))) as big:
        difference = look_at(big).rss_bytes - look_at(small).rss_bytes
    assert 56 * MIB < difference < 80 * MIB


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="only Linux says it")  # noqa: PTH110
def test_the_peak_is_remembered_behind_what_was_given_back():
    with child_that(lambda: len(bytearray(b"x" * (64 * MIB)))) as child:
        seen = look_at(child)
    assert seen.peak_rss_bytes > seen.rss_bytes + 48 * MIB


def test_open_descriptors_are_counted():
    with child_that(lambda: None) as child:
        few = look_at(child).descriptors
    with child_that(lambda: [os.dup(0) for _ in range(20)]) as child:
        assert look_at(child).descriptors - few == 20


def test_a_process_that_is_stopped_is_seen():
    with child_that(lambda: None) as child:
        os.kill(child, signal.SIGSTOP)
        assert look_at(child) is not None


def test_a_process_that_has_died_and_was_not_waited_for_is_not_there_any_more():
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert psutil.Process(child).status() == psutil.STATUS_ZOMBIE
    assert look_at(child) is None
    os.waitpid(child, 0)


def test_a_process_that_was_waited_for_is_not_there_any_more():
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    assert look_at(child) is None


def test_where_the_system_has_no_such_files_psutil_is_asked(monkeypatch):
    def no_such_file(pid: int) -> dict[str, int]:
        raise FileNotFoundError

    monkeypatch.setattr(vitals, "_status", no_such_file)
    seen = look_at(os.getpid())
    assert seen is not None
    assert seen.rss_bytes > 0
    assert seen.peak_rss_bytes is None
    assert seen.descriptors


@pytest.mark.parametrize(
    ("prepare", "opens"),
    [
        (lambda: 1, False),
        (os.pipe, False),
        (lambda: os.memfd_create("batches"), False),
        (lambda: os.open("/dev/urandom", os.O_RDONLY), False),
        (lambda: os.open(__file__, os.O_RDONLY), True),
        (lambda: os.open("/", os.O_RDONLY), True),
        (socket.socket, True),
    ],
    ids=["nothing", "a pipe", "memory", "a device", "a file", "a folder", "a socket"],
)
def test_files_and_sockets_that_a_process_has_opened_are_seen(prepare, opens):
    with child_that(prepare) as pid:
        assert has_opened(pid) == opens


def test_what_this_process_has_open_too_does_not_count(tmp_path):
    with (tmp_path / "file").open("w"), child_that(lambda: 1) as pid:
        assert not has_opened(pid)


def test_of_a_process_that_is_gone_nobody_knows():
    with child_that(lambda: 1) as pid:
        pass
    assert has_opened(pid)
