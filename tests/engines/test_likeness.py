"""What samples look like: the same when they are made again, and unlike others."""

from __future__ import annotations

import multiprocessing
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from penstock.engines import likeness as likeness_module
from penstock.engines.likeness import UNKNOWN, likeness


class Pair(NamedTuple):
    image: Any
    label: int


class Thing:
    """Its representation names its address, which is another one each time that it is made."""


def image(seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 100, (3, 16, 16), generator=generator).to(dtype)


# Each makes the sample of a number.
MAKERS: dict[str, Callable[[int], object]] = {
    "an int": lambda number: number,
    "a large int": lambda number: 10**30 + number,
    "a float": lambda number: number / 7,
    "a complex number": lambda number: complex(1, number),
    "a bool": lambda number: number > 0,
    "a text": lambda number: f"sample {number}",
    "a text that is no Unicode": lambda number: f"{number}\udcff",
    "bytes": lambda number: bytes([number]) * 300,
    "a bytearray": lambda number: bytearray([number]),
    "a tensor": image,
    "a tensor of bfloat16": lambda number: image(number, torch.bfloat16),
    "a tensor of float16": lambda number: image(number, torch.float16),
    "a tensor of bools": lambda number: image(number) > 50,
    "a tensor with a gradient": lambda number: image(number).requires_grad_(),
    "a tensor of one number": torch.tensor,
    "a view that is not contiguous": lambda number: image(number).transpose(0, 2),
    "a sparse tensor": lambda number: torch.eye(3 + number).to_sparse(),
    "an array": lambda number: np.full((4, 4), number),
    "an array of texts": lambda number: np.array([f"sample {number}"]),
    "an array of times": lambda number: np.array([number], "datetime64[s]"),
    "a number of NumPy's": np.float32,
    "an empty array": lambda number: np.zeros((0, number)),
    "a dict": lambda number: {"image": image(0), "label": number},
    "a mapping of another kind": lambda number: OrderedDict(image=image(0), label=number),
    "a tuple": lambda number: (image(0), number),
    "a list": lambda number: [0, [number]],
    "a named tuple": lambda number: Pair(image(0), number),
    "a nested one": lambda number: {"a": [({"b": number},)]},
    "None or a number": lambda number: number or None,
}
makers = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())


@makers
def test_equal_samples_look_alike_and_others_do_not(make):
    looks = [likeness(make(number)) for number in range(8)]
    assert looks == [likeness(make(number)) for number in range(8)]
    kinds = 2 if isinstance(make(0), bool) else 8
    assert len(set(looks)) == kinds
    assert UNKNOWN not in looks
    assert all(0 < look < 1 << 32 for look in looks)


def look_at_all(writer: Any) -> None:
    writer.send([likeness(make(3)) for make in MAKERS.values()])


def test_a_sample_looks_the_same_in_another_process():
    """Another one hashes texts otherwise."""
    context = multiprocessing.get_context("spawn")
    reader, writer = context.Pipe(duplex=False)
    process = context.Process(target=look_at_all, args=(writer,))
    process.start()
    writer.close()
    looks = reader.recv()
    process.join()
    reader.close()
    assert looks == [likeness(make(3)) for make in MAKERS.values()]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (0, 0.0),
        (1, True),
        ("7", 7),
        ("7", b"7"),
        (torch.zeros(4), torch.zeros(5)),
        (torch.zeros(4), torch.zeros(2, 2)),
        (torch.zeros(4), torch.zeros(4, dtype=torch.int32)),
        (torch.zeros(4), np.zeros(4, np.float32)),
        ((1, 2), (1, 2, None)),
        ({"a": 1}, {"b": 1}),
        ("x" * 300, "x" * 301),
        (None, 0),
    ],
)
def test_kind_shape_and_length_tell_samples_apart(one, other):
    assert likeness(one) != likeness(other)


def test_not_a_number_looks_like_itself():
    assert likeness(float("nan")) == likeness(float("nan"))
    assert likeness(torch.tensor([float("nan")])) == likeness(torch.tensor([float("nan")]))


@pytest.mark.parametrize(
    "make",
    [
        Thing,
        lambda: [Thing()],
        lambda: {"thing": Thing()},
        lambda: np.array([Thing()]),
        lambda: {1, 2},
        lambda: (number for number in range(3)),
    ],
)
def test_of_what_cannot_be_looked_into_only_the_kind_counts(make):
    assert likeness(make()) == likeness(make()) != UNKNOWN


def test_a_sample_that_holds_itself_is_looked_at():
    sample: list[object] = [1]
    sample.append(sample)
    assert likeness(sample) != UNKNOWN


@pytest.mark.parametrize("order", ["C", "F"])
def test_little_is_read_of_a_large_array(order):
    """All rows of this one are the same row, and a copy would take 8 PiB."""
    endless = np.broadcast_to(np.arange(1024.0), (1 << 40, 1024))
    assert likeness(endless if order == "C" else endless.T) != UNKNOWN


class Secretive(list[int]):
    def __len__(self) -> int:
        raise PermissionError("nobody may know")


@pytest.mark.parametrize("sample", [Secretive(), [1, Secretive()]])
def test_what_will_not_be_looked_at_is_unknown(sample):
    assert likeness(sample) == UNKNOWN


def test_no_sample_looks_unknown_by_chance(monkeypatch):
    monkeypatch.setattr(likeness_module, "crc32", lambda data: 0)
    assert likeness("a text") != UNKNOWN


def test_a_sample_is_left_as_it_was():
    sample = {"image": image(1).requires_grad_(), "half": image(2, torch.bfloat16), "names": ["a"]}
    likeness(sample)
    assert torch.equal(sample["image"], image(1))
    assert sample["image"].requires_grad
    assert torch.equal(sample["half"], image(2, torch.bfloat16))
    assert sample["names"] == ["a"]
