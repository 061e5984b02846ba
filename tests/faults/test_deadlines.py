"""Samples that take longer than they may, wherever they are held up."""

import contextlib
import os
import signal
import time

import pytest

import penstock
from tests.faults.deliveries import ids, ids_of, loader_of, wait_until, worker_pids
from tests.faults.roles import Numbers, NumbersAtOnce, Once, Stream, hang, wait_for_ever

pytestmark = [pytest.mark.timeout(90), pytest.mark.usefixtures("no_leaks")]

LENGTH = 40
LIMIT_S = 1.0


@pytest.mark.parametrize("stuck", [hang, wait_for_ever])
def test_row_08_a_sample_stuck_in_c_or_python_is_raised(start_method, stuck):
    dataset = Numbers(LENGTH, {13: stuck})
    batches = iter(loader_of(dataset, start_method, batch_size=8, sample_timeout=LIMIT_S))
    arrived = ids_of(next(batches))
    with pytest.raises(penstock.SampleTimeout, match=r"sample 13 .*\[13\]") as caught:
        next(batches)
    certificate = caught.value.certificate
    assert certificate.index == 13
    assert certificate.ran_s >= LIMIT_S
    # It says where the sample was stuck, and nothing of who called it.
    assert f"in {stuck.__name__}" in certificate.stack
    assert "in __getitem__" in certificate.stack
    assert "in _fetch" not in certificate.stack
    assert all(line.strip() in str(caught.value) for line in certificate.stack.splitlines())
    assert caught.value.__cause__.index == 13
    assert caught.value.message == (
        f"sample 13 (Numbers[13]) took longer than sample_timeout=1 s, and {certificate.what[:8]} "
        f"(pid {certificate.pid}) was ended; raise sample_timeout if it can take so long"
    )
    assert arrived + ids(batches) == [index for index in range(LENGTH) if not 8 <= index < 16]


def test_row_08_a_sample_that_hangs_is_skipped_and_not_tried_again(start_method):
    loader = loader_of(
        Numbers(LENGTH, {13: hang}),
        start_method,
        sample_timeout=LIMIT_S,
        on_error="skip",
        max_skipped=1,
        persistent_workers=True,
    )
    expected = [index for index in range(LENGTH) if index != 13]
    for restarts in (1, 0):
        assert sorted(ids(loader)) == expected
        assert loader.statistics().restarts == restarts
        (skipped,) = loader.skipped
        assert skipped.index == 13
        assert isinstance(skipped.cause, penstock.SampleTimeout)


def test_row_08_one_of_many_that_are_made_at_once_is_found(start_method):
    dataset = NumbersAtOnce(LENGTH, {13: hang})
    batches = iter(loader_of(dataset, start_method, batch_size=4, sample_timeout=LIMIT_S))
    arrived = ids(next(batches) for _ in range(3))
    with pytest.raises(penstock.SampleTimeout, match=r"sample 13 ") as caught:
        next(batches)
    assert caught.value.certificate.index == 13
    assert arrived + ids(batches) == [index for index in range(LENGTH) if not 12 <= index < 16]


def test_row_08_a_stream_that_hangs_once_is_run_again(start_method, tmp_path):
    once = Once(tmp_path, hang)
    expected = [ids_of(batch) for batch in loader_of(Stream(LENGTH), start_method)]
    loader = loader_of(Stream(LENGTH, {21: once}), start_method, sample_timeout=LIMIT_S)
    assert [ids_of(batch) for batch in loader] == expected
    assert once.pid
    assert loader.statistics().restarts == 1


def test_row_08_a_stream_that_hangs_each_time_ends_with_the_reason(start_method):
    dataset = Stream(LENGTH, {21: hang})
    loader = loader_of(dataset, start_method, num_workers=1, sample_timeout=LIMIT_S)
    batches = iter(loader)
    arrived = ids(next(batches) for _ in range(5))
    with pytest.raises(penstock.SampleTimeout, match="cannot go on behind a sample") as caught:
        next(batches)
    assert "in hang" in caught.value.certificate.stack
    # The third line of the page, and the message, speak of one and the same batch.
    batch = "batch 5 of the stream of worker 0"
    assert caught.value.message.startswith("a sample took longer than sample_timeout=1 s, and ")
    assert f"not the first time at {batch}. " in caught.value.message
    assert f"5: {batch}" in str(caught.value)
    assert arrived == list(range(20))
    assert worker_pids() == []


@pytest.mark.parametrize("mode", ["ready", "round_robin"])
def test_row_08_a_sample_that_hangs_while_several_loaders_are_waited_for(mode):
    loaders = {
        name: loader_of(
            Numbers(8, {5: hang}), "fork", sample_timeout=LIMIT_S, on_error="skip", max_skipped=1
        )
        for name in "ab"
    }
    delivered = {name: [] for name in loaders}
    for name, batch in penstock.concurrent(loaders, mode=mode):
        delivered[name] += ids_of(batch)
    expected = [0, 1, 2, 3, 4, 6, 7]
    assert [sorted(each) for each in delivered.values()] == [expected, expected]


def test_row_08_a_slow_sample_within_its_time_is_left_alone(start_method):
    dataset = Numbers(LENGTH, {13: lambda: time.sleep(LIMIT_S / 2)})
    loader = loader_of(dataset, start_method, batch_size=LENGTH // 2, sample_timeout=5 * LIMIT_S)
    assert ids(loader) == list(range(LENGTH))
    assert loader.statistics().restarts == 0


def take_a_second():
    # In pieces: a sleep that was slept through while stopped would be over at once.
    for _ in range(50):
        time.sleep(LIMIT_S / 50)


def signal_all(pids, number):
    for pid in pids:
        # One may have left by then.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


@pytest.mark.parametrize("in_the_loop", [False, True])
def test_row_08_time_that_the_program_was_stopped_for_is_not_counted(tmp_path, in_the_loop):
    """Ctrl-Z stops a program with its workers, and a sample has its time left behind it."""
    began = Once(tmp_path, take_a_second)
    over = Once(tmp_path, lambda: None, "over")
    dataset = Numbers(8, {5: began, 6: over})
    loader = loader_of(dataset, "fork", num_workers=1, sample_timeout=2 * LIMIT_S)
    batches = iter(loader)
    family = [os.getpid(), *worker_pids()]
    stopper = os.fork()
    if not stopper:
        wait_until(lambda: began.pid)
        signal_all(family, signal.SIGSTOP)
        time.sleep(4 * LIMIT_S)
        came_too_late = bool(over.pid)
        signal_all(family, signal.SIGCONT)
        os._exit(came_too_late)
    try:
        if in_the_loop:
            # The program computes when it is stopped, and asks for a batch right behind that.
            wait_until(lambda: began.pid)
            begun, took_s = time.monotonic(), 0.0
            while took_s < 2 * LIMIT_S:
                time.sleep(0.01)
                took_s = time.monotonic() - begun
        assert ids(batches) == list(range(8))
        assert loader.statistics().restarts == 0
    finally:
        _, status = os.waitpid(stopper, 0)
    assert os.waitstatus_to_exitcode(status) == 0, "the sample was over before it was stopped"


def test_row_08_an_answer_that_nobody_reads_is_not_counted(tmp_path):
    """The pipe is full of what came before, and the training loop is busy."""
    raised = Once(tmp_path, lambda: refuse("x" * 20_000))
    dataset = Replies(8, {2: raised})
    options = {"num_workers": 1, "batch_size": None, "prefetch_factor": 6}
    loader = loader_of(dataset, "fork", sample_timeout=LIMIT_S, **options)
    batches = iter(loader)
    next(batches)
    wait_until(lambda: raised.pid)
    time.sleep(2 * LIMIT_S)
    next(batches)
    with pytest.raises(ValueError, match="xxx"):
        next(batches)
    assert len(list(batches)) == 5
    assert loader.statistics().restarts == 0


class Replies(Numbers):
    """Each sample travels in its message, and fills a pipe."""

    def __getitem__(self, index):
        super().__getitem__(index)
        return bytes(60_000)


def refuse(why):
    raise ValueError(why)
