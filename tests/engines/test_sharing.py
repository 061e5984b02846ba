"""What a program and its workers share is found, and what each has of its own is not."""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.shared_memory
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, Subset, TensorDataset, default_collate

from penstock.engines import sharing
from penstock.engines.sharing import is_reachable

SHARED = multiprocessing.Value("i", 0)


def made_of_a_global(samples):
    return [sample + SHARED.value for sample in samples]


def collate_with(number, samples):
    return samples


class Holder(Dataset):
    def __init__(self, part):
        self.part = part

    def __getitem__(self, index):
        return index


class Naming(Dataset):
    def __getitem__(self, index):
        return index + SHARED.value


SHARED_PARTS = {
    "a tensor": lambda: torch.zeros(3).share_memory_(),
    "a value": lambda: multiprocessing.Value("i", 0),
    "a value without a lock": lambda: multiprocessing.RawValue("i", 0),
    "an array": lambda: np.frombuffer(multiprocessing.RawArray("i", 4), np.int32),
    "an event": multiprocessing.Event,
    "a queue": multiprocessing.Queue,
}


@pytest.mark.parametrize("kind", SHARED_PARTS)
def test_what_processes_share_is_found(kind):
    part = SHARED_PARTS[kind]()
    assert is_reachable(Holder(part))
    assert is_reachable(Subset(Holder([{"deep": (1, part)}]), [0]))
    assert is_reachable(Holder(0), partial(collate_with, part))
    assert is_reachable(Holder(lambda: part))


def test_it_is_found_where_code_names_it():
    assert is_reachable(Naming())
    assert is_reachable(Holder(0), made_of_a_global)


def test_a_block_of_shared_memory_is_found():
    block = multiprocessing.shared_memory.SharedMemory(create=True, size=64)
    try:
        assert is_reachable(Holder(block))
    finally:
        block.close()
        block.unlink()


@pytest.mark.parametrize("mode", ["r", "r+"])
def test_a_mapped_file_is_found_if_it_can_be_written_to(tmp_path, mode):
    np.save(tmp_path / "array.npy", np.zeros(4))
    array = np.load(tmp_path / "array.npy", mmap_mode=mode)
    assert is_reachable(Holder(array)) == (mode == "r+")
    assert is_reachable(Holder(array[1:])) == (mode == "r+")


def test_what_each_process_has_of_its_own_is_not():
    own = [torch.zeros(3), np.zeros(3), multiprocessing.Lock(), {"a": 1}, "text", object()]
    assert not is_reachable(Holder(own), default_collate)
    assert not is_reachable(TensorDataset(torch.zeros(2, 2)), list)


def test_a_large_dataset_is_not_looked_through():
    class Counted(list):
        asked = 0

        def __iter__(self):
            for item in super().__iter__():
                Counted.asked += 1
                yield item

    assert not is_reachable(Holder(Counted([str(number)] for number in range(100_000))))
    assert Counted.asked < 1000


def test_of_more_than_is_looked_at_nobody_knows():
    dataset: list[object] = []
    for number in range(3000):
        dataset = [str(number), dataset]
    assert is_reachable(dataset)
    deep = [[[object() for _ in range(50)] for _ in range(50)]]
    assert is_reachable(deep)


def test_little_has_to_be_looked_at():
    # Whatever else is imported: what the standard library and torch name is not the program's.
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sharing, "_MOST_OBJECTS", 50)
        assert not is_reachable(Holder([Path("a"), re.compile("b"), logging.getLogger()]))
        assert not is_reachable(default_collate)
