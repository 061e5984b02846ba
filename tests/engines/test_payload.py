from __future__ import annotations

import os
import sys
import threading
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from penstock.engines.payload import Payload, load_payload
from penstock.errors import SerializationError
from penstock.transport.codec import find_culprit


class Reader:
    def __init__(self, handle):
        self.handle = handle


class Dataset:
    itself: Dataset
    lock: object

    def __init__(self, **parts):
        vars(self).update(parts)


def through(value, times=1):
    """What workers get of a value, each by itself."""
    payload = Payload(value)
    try:
        found = [load_payload(os.dup(payload.descriptor)) for _ in range(times)]
    finally:
        payload.close()
    return found if times > 1 else found[0]


def test_a_lambda_travels():
    offset = 5
    assert through(lambda x: x + offset)(1) == 6


def test_an_object_of_a_local_class_travels():
    class Local:
        def double(self):
            return 2 * self.number

    value = Local()
    value.number = 21  # type: ignore[attr-defined]
    assert through(value).double() == 42


def test_an_object_of_a_class_of_main_travels_by_value(monkeypatch):
    main = types.ModuleType("__main__")
    exec("class Mine:\n    def answer(self):\n        return 42\n", main.__dict__)
    monkeypatch.setitem(sys.modules, "__main__", main)
    payload = Payload(main.Mine())
    # The worker's main module is another, without the class.
    monkeypatch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))
    assert load_payload(os.dup(payload.descriptor)).answer() == 42
    payload.close()


ARRAYS = [
    np.arange(10.0),
    np.empty((0, 3)),
    np.asfortranarray(np.arange(12).reshape(3, 4)),
    np.arange(5, dtype=np.uint8),
    np.array("2020-01-01", "M8[s]"),
    np.array([1, "two", None], dtype=object),
    np.frombuffer(b"read-only", np.uint8),
    np.ones(100_000),
    np.empty(0),
]


def test_arrays_arrive_as_they_were_and_writable():
    for found, array in zip(through(ARRAYS), ARRAYS, strict=True):
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        assert (found == array).all()
        assert found.flags.writeable
        assert found.flags.aligned


def test_tensors_arrive_as_they_were():
    tensors = [torch.arange(10), torch.ones(3, 4).T, torch.ones(5, dtype=torch.bfloat16)]
    for found, tensor in zip(through(tensors), tensors, strict=True):
        assert torch.equal(found, tensor)
        assert found.dtype == tensor.dtype


@pytest.mark.usefixtures("no_leaks")
def test_what_one_worker_writes_no_other_sees():
    first, second = through([np.zeros(100_000), torch.zeros(100_000)], times=2)
    for array in first:
        array[:] = 7
    for array in second:
        assert not array.any()
    payload = Payload(np.zeros(1000))
    load_payload(os.dup(payload.descriptor))[:] = 1
    assert not load_payload(os.dup(payload.descriptor)).any()
    payload.close()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_memory_of_arrays_is_that_of_the_file():
    payload = Payload(np.zeros(1 << 20, np.uint8))
    target = os.fstat(payload.descriptor).st_ino
    array = load_payload(os.dup(payload.descriptor))
    address = array.__array_interface__["data"][0]
    spans = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    inodes = [
        int(span[4])
        for span in spans
        if int(span[0].split("-")[0], 16) <= address < int(span[0].split("-")[1], 16)
    ]
    assert inodes == [target]
    payload.close()


@pytest.mark.usefixtures("no_leaks")
def test_a_payload_that_was_closed_can_still_be_read_by_who_has_mapped_it():
    payload = Payload(np.arange(100_000))
    array = load_payload(os.dup(payload.descriptor))
    payload.close()
    payload.close()
    assert array.sum() == 4_999_950_000


LOCK = threading.Lock()


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (Dataset(lock=LOCK), "Dataset.lock, of type lock"),
        (Dataset(name="x", reader=Reader(LOCK)), "Dataset.reader.handle, of type lock"),
        (Dataset(readers=[Reader(1), Reader(LOCK)]), "Dataset.readers[1].handle, of type lock"),
        (Dataset(parts={"a": 1, "b": (1, LOCK)}), "Dataset.parts['b'][1], of type lock"),
        (LOCK, "lock, of type lock"),
    ],
)
def test_the_attribute_at_fault_is_named(value, path):
    assert find_culprit(value) == path
    with pytest.raises(SerializationError, match=r"cannot be sent to worker processes") as caught:
        Payload(value)
    assert str(caught.value).startswith(path.removeprefix("Dataset."))
    assert caught.value.__cause__ is not None


def test_a_function_at_fault_is_named():
    lock = threading.Lock()
    dataset = Dataset(transform=lambda: lock)
    assert find_culprit(dataset) == "Dataset.transform, of type function"


def test_a_structure_that_contains_itself_is_searched_to_an_end():
    dataset = Dataset()
    dataset.itself = dataset
    dataset.lock = LOCK
    assert find_culprit(dataset).startswith("Dataset.itself")
