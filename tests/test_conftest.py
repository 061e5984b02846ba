"""The guards of the other tests must notice what they guard against."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import uuid

import pytest

from tests.support.leaks import SHARED_MEMORY, inodes_mapped_by, take_census, wait_no_leaks


def leaks_now(before):
    return wait_no_leaks(before, timeout_s=0.0)


def test_a_test_that_gives_all_back_has_no_leaks():
    before = take_census()
    reader, writer = os.pipe()
    os.close(reader)
    os.close(writer)
    subprocess.run([sys.executable, "-c", ""], check=True)
    assert leaks_now(before) == []


def test_a_child_process_is_noticed():
    before = take_census()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert any(f"child process {child.pid} " in leak for leak in leaks_now(before))
        assert child.stdin is not None
        child.stdin.write(b"\n")
    assert leaks_now(before) == []


def test_a_child_that_ended_but_was_not_waited_for_is_noticed():
    before = take_census()
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    leaks = leaks_now(before)
    child.wait()
    assert leaks == [f"child process {child.pid} (ended, never waited for)"]
    assert leaks_now(before) == []


def test_each_descriptor_is_noticed():
    before = take_census()
    reader, writer = os.pipe()
    copy = os.dup(writer)
    leaks = leaks_now(before)
    for descriptor in (reader, writer, copy):
        os.close(descriptor)
    assert [leak.split(" of ")[0] for leak in leaks] == ["3 descriptor(s)"]
    assert leaks_now(before) == []


@pytest.mark.skipif(not SHARED_MEMORY.is_dir(), reason="the platform has no such folder")
def test_a_name_in_shared_memory_is_noticed():
    before = take_census()
    segment = SHARED_MEMORY / f"penstock-test-{uuid.uuid4().hex}"
    segment.touch()
    try:
        assert f"name in {SHARED_MEMORY}: {segment.name}" in leaks_now(before)
    finally:
        segment.unlink()


# As semaphores are made: mapped under one name, and known by another.
_MAPS_A_FILE = """
import mmap, os, sys
first, second = sys.argv[1:]
with open(first, "wb+") as file:
    file.truncate(8)
    mapped = mmap.mmap(file.fileno(), 8)
os.rename(first, second)
print(flush=True)
input()
"""


@pytest.mark.skipif(not SHARED_MEMORY.is_dir(), reason="the platform has no such folder")
def test_a_name_that_a_process_beside_this_one_has_mapped_is_known():
    name = SHARED_MEMORY / f"penstock-test-{uuid.uuid4().hex}"
    arguments = [sys.executable, "-c", _MAPS_A_FILE, f"{name}-first", name]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        try:
            inode = name.stat().st_ino
            mapped = inodes_mapped_by(child.pid)
        finally:
            name.unlink()
            child.communicate(b"\n")
    assert inode in mapped
    assert inode not in inodes_mapped_by(os.getpid())


def test_a_thread_is_noticed():
    before = take_census()
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="left-behind")
    thread.start()
    leaks = leaks_now(before)
    stop.set()
    thread.join()
    assert leaks == ["thread left-behind"]
    assert leaks_now(before) == []


def test_the_wait_ends_as_soon_as_all_is_given_back():
    before = take_census()
    release = threading.Event()
    thread = threading.Thread(target=release.wait)
    thread.start()
    threading.Timer(0.05, release.set).start()
    assert wait_no_leaks(before, timeout_s=30.0) == []
    thread.join()


@pytest.mark.usefixtures("no_leaks")
def test_the_helpers_of_multiprocessing_are_not_leaks(start_method):
    context = multiprocessing.get_context(start_method)
    process = context.Process(target=int)
    process.start()
    process.join()
    exit_code = process.exitcode
    process.close()
    assert exit_code == 0
