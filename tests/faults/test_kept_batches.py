"""Batches that the user keeps, drops, or never comes for."""

import gc
import queue
import random
import sys
import threading

import psutil
import pytest
import torch

from tests.faults.deliveries import WORKERS, ids, ids_of, loader_of, worker_pids
from tests.faults.roles import Epochs, Numbers

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("no_leaks")]

LENGTH = 40
# Leases of this epoch and of the one that was broken off, and what the user may hold.
MOST_SLOTS = 4 + 4 + 4
# What the memory of a process may vary by, that leaks nothing.
SLACK_BYTES = 24 << 20


def held_now(pids):
    """What this process and its workers have: memory, descriptors, threads."""
    gc.collect()
    processes = [psutil.Process(), *map(psutil.Process, pids)]
    return [(p.memory_info().rss, p.num_fds(), p.num_threads()) for p in processes]


def check_growth(before, after, *, mappings):
    for (memory, descriptors, threads), now in zip(before, after, strict=True):
        assert now[0] - memory < SLACK_BYTES
        assert now[1] - descriptors <= mappings
        assert now[2] == threads


def check_broken_off(loader, dataset, times):
    """Breaks off an epoch again and again; no batch is of another epoch."""
    for _ in range(times):
        epoch = dataset.epoch + 1
        loader.set_epoch(epoch)
        dataset.epoch = epoch
        stop_at = epoch % 4
        for number, batch in enumerate(loader):
            first = epoch * LENGTH + 4 * number
            assert ids_of(batch) == list(range(first, first + 4))
            if number == stop_at:
                break


def test_row_17_break_and_iterate_again_with_workers_that_live_on(start_method):
    dataset = Epochs(LENGTH)
    loader = loader_of(dataset, start_method, persistent_workers=True)
    check_broken_off(loader, dataset, 100)
    pids = worker_pids()
    before = held_now(pids)
    check_broken_off(loader, dataset, 1000)
    after = held_now(pids)
    assert worker_pids() == pids
    assert len(pids) == WORKERS
    # A process maps each slot that it has come to. How many there are depends on how far the
    # workers have been behind at most; a leak would be one for each of a thousand epochs.
    check_growth(before, after, mappings=MOST_SLOTS)


def test_row_17_break_and_iterate_again_with_new_workers(start_method):
    times = {"fork": 60, "forkserver": 12, "spawn": 1}[start_method]
    dataset = Epochs(LENGTH)
    loader = loader_of(dataset, start_method)
    check_broken_off(loader, dataset, 1)
    before = held_now([])
    check_broken_off(loader, dataset, times)
    after = held_now([])
    assert worker_pids() == []
    check_growth(before, after, mappings=4)


def test_row_24_the_user_keeps_every_batch(start_method):
    loader = loader_of(Numbers(400), start_method, prefetch_factor=4)
    before = psutil.Process().num_fds()
    kept = list(loader)
    again = list(loader)
    # Few of them are slots, each with a descriptor of its mapping; the others are copies.
    assert psutil.Process().num_fds() - before < 50
    assert ids(kept) == ids(again) == list(range(400))
    # They are the user's: what is written to one is seen in no other.
    for batch in kept[::2]:
        batch.fill_(-1)
    assert ids(kept[1::2]) == [i for i in range(400) if i // 4 % 2]
    assert ids(again) == list(range(400))


def inference_view(batch):
    with torch.inference_mode():
        return batch[:, 1:].view(-1)


VIEWS = {
    "detached": lambda batch: batch.detach(),
    "array": lambda batch: batch.numpy(),
    "slice": lambda batch: batch[:, 5:],
    "slice of an array": lambda batch: batch.numpy()[0, 7:9],
    "parameter": lambda batch: torch.nn.Parameter(batch, requires_grad=False),
    "inference": inference_view,
    "storage": lambda batch: batch.untyped_storage(),
}


def test_row_25_only_views_are_kept_for_ten_thousand_batches(start_method):
    loader = loader_of(Numbers(10_000), start_method, batch_size=1, prefetch_factor=8)
    every = len(loader) // len(VIEWS)
    kept, arrived = [], 0
    for number, batch in enumerate(loader):
        turn, step = divmod(number, every)
        if step == 0:
            # Those before it have stayed for as long; the next ones lie in slots again.
            check_views(kept)
            kept.clear()
        if step < 3 and turn < len(VIEWS):
            make = list(VIEWS.values())[turn]
            kept.append((make(batch), batch.clone(), make))
        assert batch[0, 0] == number
        arrived += 1
    check_views(kept)
    assert arrived == len(loader) == 10_000


def check_views(kept):
    for view, expected, make in kept:
        assert bytes_of(view) == bytes_of(make(expected))


def bytes_of(view):
    if isinstance(view, torch.UntypedStorage):
        return bytes(view.tolist())
    if isinstance(view, torch.Tensor):
        view = view.numpy()
    return view.tobytes()


def test_row_26_the_garbage_collector_frees_batches_within_next_and_in_a_thread(start_method):
    loader = loader_of(Numbers(2000), start_method)
    given, stop = queue.SimpleQueue(), threading.Event()
    held, dice = [], random.Random(26)

    def collect_in_thread():
        while not stop.is_set():
            give_to_collector([given.get()])

    def collect_anywhere(*_):
        """Called at each call of a function within `next()`, of which there are hundreds."""
        if held and dice.random() < 0.01:
            give_to_collector([held.pop()])

    thread = threading.Thread(target=collect_in_thread)
    thread.start()
    arrived, batches = [], iter(loader)
    try:
        for number in range(len(loader)):
            sys.setprofile(collect_anywhere)
            batch = next(batches)
            sys.setprofile(None)
            arrived += ids_of(batch)
            if number % 3:
                held.append(batch)
            else:
                given.put(batch)
            del batch
    finally:
        sys.setprofile(None)
        stop.set()
        given.put(None)
        thread.join()
    assert arrived == list(range(2000))
    assert len(held) < 100


def give_to_collector(batches):
    """Has nothing but the garbage collector free what is in a list."""
    batches.append(batches)
    del batches
    gc.collect(0)
