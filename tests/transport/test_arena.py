from __future__ import annotations

import errno
import gc
import mmap
import os
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from penstock.transport import arena as transport_arena
from penstock.transport.arena import Arena
from penstock.transport.backing import GROWTH_STEP_BYTES
from penstock.transport.writer import ALIGNMENT_BYTES, SlotWriter
from tests.support.leaks import SHARED_MEMORY, take_census, wait_no_leaks
from tests.transport.slots import lend, write

CONTENT = bytes(range(256)) * 32


@pytest.fixture(params=[False, True], ids=["memfd", "portable"])
def portable(request):
    return request.param


@pytest.fixture
def arena(portable):
    arena = Arena(most_lent=4, portable=portable)
    yield arena
    arena.close()


def tensor_of(root):
    return torch.from_numpy(root)


@torch.inference_mode()
def inference_view(root):
    return tensor_of(root).view(-1, 4)[3:]


DERIVED = {
    "the array": lambda root: root,
    "a slice": lambda root: root[5:9],
    "a view of a view": lambda root: root[5:900][3:].reshape(-1, 2)[7:].T,
    "an array of another dtype": lambda root: root.view(np.float32)[8:],
    "a memoryview": lambda root: memoryview(root)[10:],
    "an array of a memoryview": lambda root: np.frombuffer(memoryview(root), np.uint8)[2:],
    "a tensor": tensor_of,
    "a detached tensor": lambda root: tensor_of(root).detach(),
    "a tensor's array": lambda root: tensor_of(root).numpy(),
    "a slice of a tensor": lambda root: tensor_of(root)[17:],
    "a tensor of another dtype": lambda root: tensor_of(root).view(torch.float32)[3:],
    "a storage": lambda root: tensor_of(root).untyped_storage(),
    "a parameter": lambda root: torch.nn.Parameter(tensor_of(root).view(torch.float32)),
    "a view under inference mode": inference_view,
    "a tensor by way of DLPack": lambda root: torch.from_dlpack(tensor_of(root)),
    "an array by way of DLPack": lambda root: np.from_dlpack(tensor_of(root))[4:],
    "a DLPack capsule": lambda root: tensor_of(root).__dlpack__(),
    "an alias": lambda root: torch.ops.aten.alias(tensor_of(root)),
    "an unbound row": lambda root: tensor_of(root).view(-1, 16).unbind()[1],
}


@pytest.mark.parametrize("derive", DERIVED.values(), ids=DERIVED)
def test_a_slot_is_lent_until_what_was_derived_of_it_dies(arena, derive):
    kept = derive(lend(arena, CONTENT))
    assert arena.lent == 1
    other = lend(arena, bytes(len(CONTENT)))
    assert arena.lent == 2
    del kept
    assert arena.lent == 1
    del other
    assert arena.lent == 0


@pytest.mark.parametrize(
    "derive",
    [d for name, d in DERIVED.items() if "capsule" not in name and "storage" not in name],
)
def test_what_was_derived_of_a_slot_is_not_overwritten(arena, derive):
    kept = derive(lend(arena, CONTENT))
    before = bytes(np.asarray(kept.detach() if isinstance(kept, torch.Tensor) else kept).tobytes())
    for _ in range(8):
        lend(arena, b"\xff" * len(CONTENT))
    after = np.asarray(kept.detach() if isinstance(kept, torch.Tensor) else kept).tobytes()
    assert after == before


def test_slots_are_recycled(arena):
    numbers = set()
    for _ in range(50):
        number, used = write(arena, CONTENT)
        numbers.add(number)
        arena.lend(number, used)
    assert numbers == {0}


def test_a_slot_that_was_released_is_recycled_too(arena):
    number, _ = write(arena, CONTENT)
    arena.release(number)
    assert write(arena, CONTENT)[0] == number


def test_two_slots_never_share_memory(arena):
    first, second = lend(arena, b"a" * 100), lend(arena, b"b" * 100)
    assert first.tobytes() == b"a" * 100
    assert second.tobytes() == b"b" * 100


def test_a_worker_gets_the_slot_back_that_it_has_mapped(arena):
    slots = {seat: arena.acquire(seat)[0] for seat in range(3)}
    for slot in slots.values():
        arena.release(slot)
    for seat in (1, 2, 0):
        assert arena.acquire(seat)[0] == slots[seat]


def test_a_view_that_dies_in_another_thread_frees_its_slot(arena):
    kept = [lend(arena, CONTENT)]
    thread = threading.Thread(target=kept.clear)
    thread.start()
    thread.join()
    assert arena.lent == 0


def test_a_view_that_the_garbage_collector_finds_frees_its_slot(arena):
    class Holder:
        pass

    gc.disable()
    try:
        holder = Holder()
        holder.view = tensor_of(lend(arena, CONTENT))  # type: ignore[attr-defined]
        holder.itself = holder  # type: ignore[attr-defined]
        del holder
        assert arena.lent == 1
        gc.collect()
        assert arena.lent == 0
    finally:
        gc.enable()


def test_views_may_die_in_many_threads_while_slots_are_lent(arena):
    handed_over: list[list[object]] = [[] for _ in range(4)]
    stop = threading.Event()

    def drop(box):
        while not stop.is_set() or box:
            if box:
                box.pop()

    threads = [threading.Thread(target=drop, args=(box,)) for box in handed_over]
    for thread in threads:
        thread.start()
    try:
        for turn in range(120):
            content = bytes([turn]) * 64
            view = lend(arena, content)
            assert view.tobytes() == content
            handed_over[turn % 4].append(view)
            del view
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert arena.lent == 0


def test_more_views_than_may_be_lent_are_private_copies_and_stay_as_they_are(portable):
    arena = Arena(most_lent=2, portable=portable)
    kept = [lend(arena, bytes([number]) * 5000) for number in range(20)]
    assert arena.lent == 2
    for number, view in enumerate(kept):
        assert view.tobytes() == bytes([number]) * 5000
        assert view.flags.writeable
    # Three slots are all that it took: two in the user's hands, one for the next batch.
    assert arena.capacity_bytes <= 3 * GROWTH_STEP_BYTES
    kept.clear()
    assert arena.lent == 0
    arena.close()


@pytest.mark.usefixtures("no_leaks")
def test_without_a_descriptor_for_a_mapping_a_private_copy_is_handed_out(arena, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EMFILE, "Too many open files")

    lent = write(arena, bytes(range(256)) * 1000)
    with monkeypatch.context() as limited:
        limited.setattr(transport_arena, "map_slot", refuse)
        view = arena.lend(*lent)
    assert bytes(view) == bytes(range(256)) * 1000
    # Its slot is free, and another batch in it changes nothing.
    assert write(arena, b"x" * 256_000)[0] == lent[0]
    assert view[255] == 255
    assert arena.lent == 0


def test_writing_to_a_view_changes_no_other(arena):
    first, second = lend(arena, b"a" * 100), lend(arena, b"b" * 100)
    first[:] = 0
    assert second.tobytes() == b"b" * 100


def test_a_forked_child_frees_nothing_of_its_parent(arena):
    view = lend(arena, CONTENT)
    child = os.fork()
    if not child:
        del view
        gc.collect()
        # Exit codes: 0 as it should be, 1 if the child believes to have given the slot back.
        os._exit(int(arena.lent == 0))
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert arena.lent == 1
    assert view.tobytes() == CONTENT
    del view
    assert arena.lent == 0


def test_the_backing_has_no_name(arena):
    lend(arena, CONTENT)
    assert os.fstat(arena.descriptor).st_nlink == 0
    backing = os.fstat(arena.descriptor)
    for folder in (SHARED_MEMORY, Path(tempfile.gettempdir())):
        if folder.is_dir():
            names = [entry.name for entry in os.scandir(folder) if entry.inode() == backing.st_ino]
            assert not [n for n in names if os.path.samestat((folder / n).stat(), backing)]


@pytest.mark.usefixtures("no_leaks")
def test_an_arena_that_was_closed_gives_everything_back(portable):
    arena = Arena(most_lent=4, portable=portable)
    lend(arena, CONTENT)
    arena.close()
    arena.close()


@pytest.mark.usefixtures("no_leaks")
def test_views_stay_intact_when_the_arena_is_closed_and_dropped(portable):
    arena = Arena(most_lent=4, portable=portable)
    kept = [tensor_of(lend(arena, bytes([number]) * 5000)) for number in range(4)]
    arena.close()
    del arena
    gc.collect()
    for number, tensor in enumerate(kept):
        assert bytes(tensor.numpy()) == bytes([number]) * 5000
        tensor += 1


def test_a_view_that_outlives_the_arena_is_unmapped_when_it_dies(portable):
    before = take_census()
    arena = Arena(most_lent=4, portable=portable)
    view = lend(arena, CONTENT)
    arena.close()
    del arena
    assert view.tobytes() == CONTENT
    del view
    assert wait_no_leaks(before, 0.0) == []


def test_a_slot_grows_from_a_kilobyte_to_many_megabytes_where_it_is(arena):
    small = lend(arena, b"s" * 1024)
    number, used = write(arena, b"s" * 1024)
    arena.release(number)
    large = b"L" * (64 << 20)
    assert write(arena, large)[0] == number
    view = arena.lend(number, len(large))
    assert view.size == 64 << 20
    assert not (view != ord("L")).any()
    assert small.tobytes() == b"s" * 1024
    assert arena.capacity_bytes >= (64 << 20) + 1024
    assert used == 1024


def test_a_batch_that_was_begun_in_a_small_slot_goes_on_in_the_grown_one(arena):
    writer = SlotWriter(arena.descriptor, arena.stride)
    number, capacity, _ = arena.acquire(0)
    writer.begin(number, capacity)
    parts = [writer.allocate(size) for size in (1000, 3 << 20, 1, 0, 9 << 20)]
    for value, part in enumerate(parts):
        part[:] = value + 1
    addresses = [int(part.__array_interface__["data"][0]) for part in parts if part.size]
    assert all(address % ALIGNMENT_BYTES == 0 for address in addresses)
    offsets = [
        writer.offset_of(address, part.size)
        for address, part in zip(addresses, [p for p in parts if p.size], strict=True)
    ]
    arena.note_capacity(number, writer.capacity)
    view = arena.lend(number, writer.used)
    for value, (offset, size) in zip(
        (1, 2, 3, 5), zip(offsets, (1000, 3 << 20, 1, 9 << 20), strict=True), strict=True
    ):
        assert offset is not None
        assert (view[offset : offset + size] == value).all()


def test_a_slot_that_was_emptied_grows_again_though_its_mapping_is_large_enough(arena):
    writer = SlotWriter(arena.descriptor, arena.stride)
    number, capacity, _ = arena.acquire(0)
    writer.begin(number, capacity)
    writer.allocate(32 << 20)[:] = 1
    asked = []
    writer.ask = lambda needed: asked.append(needed) or needed
    writer.begin(number, 0, 0)
    for part in range(1, 4):
        writer.allocate(8 << 20)[:] = part
        assert writer.used <= writer.capacity
    assert asked == [8 << 20, 16 << 20, 24 << 20]


def test_memory_that_was_made_elsewhere_is_never_taken_for_the_slots(arena):
    writer = SlotWriter(arena.descriptor, arena.stride)
    writer.begin(*arena.acquire(0))
    writer.allocate(1 << 20)
    # Nothing is left of the first mapping but its addresses, which the next ones may get.
    writer.allocate(32 << 20)
    others = [np.frombuffer(mmap.mmap(-1, size), np.uint8) for size in (1 << 20, 2 << 20) * 4]
    for other in others:
        assert writer.offset_of(int(other.__array_interface__["data"][0]), other.size) is None
