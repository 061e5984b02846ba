from __future__ import annotations

import multiprocessing
import os
import random
import threading

import pytest

from penstock.errors import WireError
from penstock.transport.channel import Channel, ChannelClosed
from penstock.transport.frames import Kind, pack

pytestmark = pytest.mark.usefixtures("no_leaks")


@pytest.fixture
def ends(no_leaks):
    """The parent's end, which never waits, and a worker's, which does."""
    worker_reads, parent_writes = multiprocessing.Pipe(duplex=False)
    parent_reads, worker_writes = multiprocessing.Pipe(duplex=False)
    parent = Channel(parent_reads, parent_writes, blocking=False)
    worker = Channel(worker_reads, worker_writes, blocking=True)
    yield parent, worker
    parent.close()
    worker.close()


def numbered(number, size):
    return pack(Kind.LEASE, bytes([number % 256]) * size, batch=number)


def send(channel, frame):
    channel.queue(frame)
    return channel.flush()


def take(channel, count):
    found = []
    while len(found) < count:
        found += [(frame.batch, bytes(frame.body)) for frame in channel.receive()]
    return found


def expected(sizes):
    return [(number, bytes([number % 256]) * size) for number, size in enumerate(sizes)]


def test_a_frame_goes_each_way(ends):
    parent, worker = ends
    send(parent, numbered(0, 10))
    assert take(worker, 1) == expected([10])
    worker.send_all(numbered(0, 20))
    assert take(parent, 1) == expected([20])


def test_frames_that_were_queued_go_together_and_in_order(ends):
    parent, worker = ends
    sizes = [0, 10, 2000, 3]
    for number, size in enumerate(sizes):
        parent.queue(numbered(number, size))
    assert not worker.has_data()
    assert parent.flush()
    assert [(frame.batch, bytes(frame.body)) for frame in worker.receive()] == expected(sizes)


def test_the_parent_does_not_wait_for_a_frame(ends):
    parent, _ = ends
    assert parent.receive() == []


def test_what_a_full_pipe_does_not_take_waits_in_the_outbox_and_goes_later_in_order(ends):
    parent, worker = ends
    sizes = [10, *(random.Random(n).choice([0, 10, 5000, 200_000]) for n in range(1, 40))]
    went = [send(parent, numbered(number, size)) for number, size in enumerate(sizes)]
    assert went[0]
    assert not went[-1]
    found = []
    while len(found) < len(sizes):
        found += [(frame.batch, bytes(frame.body)) for frame in worker.receive()]
        parent.flush()
    assert found == expected(sizes)
    assert parent.flush()


def test_both_may_send_more_than_the_pipes_hold_at_once(ends):
    parent, worker = ends
    sizes = [100_000] * 20
    thread = threading.Thread(
        target=lambda: [worker.send_all(numbered(n, size)) for n, size in enumerate(sizes)]
    )
    thread.start()
    for number, size in enumerate(sizes):
        send(parent, numbered(number, size))
    assert take(parent, len(sizes)) == expected(sizes)
    thread.join()
    found = []
    while len(found) < len(sizes):
        parent.flush()
        found += [(frame.batch, bytes(frame.body)) for frame in worker.receive()]
    assert found == expected(sizes)


def test_the_end_of_the_file_is_told_behind_the_last_whole_frame(ends):
    parent, worker = ends
    worker.send_all(numbered(0, 10))
    os.write(worker.write_fd, numbered(1, 10)[:-1])
    worker.close()
    assert take(parent, 1) == expected([10])
    with pytest.raises(ChannelClosed):
        parent.receive()
    with pytest.raises(ChannelClosed):
        parent.receive()


def test_a_worker_that_waits_for_work_wakes_up_when_the_parent_is_gone(ends):
    parent, worker = ends
    woken = threading.Event()

    def wait():
        with pytest.raises(ChannelClosed):
            worker.receive()
        woken.set()

    thread = threading.Thread(target=wait)
    thread.start()
    parent.close()
    assert woken.wait(10)
    thread.join()


@pytest.mark.parametrize("size", [10, 1_000_000])
def test_sending_to_a_process_that_is_gone_is_told(ends, size):
    parent, worker = ends
    worker.close()
    with pytest.raises(ChannelClosed):
        send(parent, numbered(0, size))


def test_the_rest_of_a_frame_whose_reader_has_gone_is_told(ends):
    parent, worker = ends
    send(parent, numbered(0, 1_000_000))
    worker.close()
    with pytest.raises(ChannelClosed):
        parent.flush()


def test_bytes_that_are_no_frame_are_refused(ends):
    parent, worker = ends
    os.write(worker.write_fd, b"Segmentation fault (core dumped)" * 4)
    with pytest.raises(WireError, match="something else writes to this pipe"):
        parent.receive()


def test_has_data_tells_whether_receiving_would_wait(ends):
    parent, worker = ends
    assert not worker.has_data()
    send(parent, numbered(0, 10))
    assert worker.has_data()
    worker.receive()
    assert not worker.has_data()
    parent.close()
    assert worker.has_data()


def test_closing_twice_does_no_harm(ends):
    parent, _ = ends
    parent.close()
    parent.close()
