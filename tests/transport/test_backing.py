"""The file that slots lie in."""

from __future__ import annotations

import errno
import os

import pytest

from penstock.errors import MemoryBudgetError
from penstock.transport import backing
from penstock.transport.budget import RESERVE_BYTES


class Reserved:
    """Counts what is asked of the system, with little memory left."""

    def __init__(self, left: int) -> None:
        self.left = left
        self.claimed: list[int] = []

    def available_bytes(self) -> int:
        return self.left

    def claim(self, descriptor: int, offset: int, size: int) -> None:
        self.claimed.append(size)


@pytest.fixture
def little_memory(monkeypatch):
    reserved = Reserved(RESERVE_BYTES + (10 << 20))
    monkeypatch.setattr(backing, "available_bytes", reserved.available_bytes)
    monkeypatch.setattr(backing, "claim", reserved.claim)
    return reserved


def grow(needed, held=0, stride=1 << 40):
    return backing.grow_slot(-1, 0, stride, held, needed)


def test_a_batch_beyond_the_memory_that_is_left_is_refused_before_it_is_claimed(little_memory):
    with pytest.raises(MemoryBudgetError, match="lower a DataLoader's") as caught:
        grow(20 << 20)
    assert f"{20 << 20:,} bytes" in str(caught.value)
    assert f"{10 << 20:,} are left" in str(caught.value)
    assert little_memory.claimed == []


def test_a_batch_that_fits_without_the_usual_surplus_is_taken(little_memory):
    assert grow((10 << 20) - 1) == (10 << 20) - 1
    assert little_memory.claimed == [(10 << 20) - 1]


def test_only_what_is_new_counts_against_the_memory_that_is_left(little_memory):
    little_memory.left = RESERVE_BYTES + (40 << 20)
    assert grow(90 << 20, held=64 << 20) >= 90 << 20


def test_a_batch_larger_than_a_slot_can_be_is_refused():
    with pytest.raises(MemoryBudgetError, match="a slot holds at most 1,048,576"):
        grow((1 << 20) + 1, stride=1 << 20)


def test_memory_that_the_system_will_not_give_is_a_budget_error():
    reader, writer = os.pipe()
    try:
        with pytest.raises(MemoryBudgetError, match="could not be had"):
            backing.grow_slot(writer, 0, 1 << 40, 0, 100)
    finally:
        os.close(reader)
        os.close(writer)


def test_the_portable_backing_is_made_where_there_is_no_memfd(monkeypatch):
    monkeypatch.delattr(os, "memfd_create", raising=False)
    descriptor, stride = backing.open_backing()
    try:
        assert stride == backing.FILE_STRIDE_BYTES
        assert os.fstat(descriptor).st_nlink == 0
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
def test_the_portable_backing_is_made_where_a_memfd_is_refused(monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "memfd_create", refuse, raising=False)
    descriptor, stride = backing.open_backing()
    os.close(descriptor)
    assert stride == backing.FILE_STRIDE_BYTES


def test_the_surplus_is_left_out_where_a_slot_ends():
    stride = 4 << 20
    descriptor, _ = backing.open_backing()
    try:
        assert backing.grow_slot(descriptor, 0, stride, 0, stride) == stride
    finally:
        os.close(descriptor)


def test_memory_that_is_given_back_is_the_systems_again():
    descriptor, stride = backing.open_backing()
    try:
        offset = backing.slot_offset(0, stride)
        held = backing.grow_slot(descriptor, offset, stride, 0, 3 << 20)
        assert os.fstat(descriptor).st_blocks * 512 >= held
        assert backing.empty_slot(descriptor, offset, held)
        assert os.fstat(descriptor).st_blocks == 0
    finally:
        os.close(descriptor)


def test_memory_is_given_back_of_a_slot_that_could_have_grown_beyond_the_end_of_the_file():
    descriptor, stride = backing.open_backing()
    try:
        offset = backing.slot_offset(0, stride)
        backing.grow_slot(descriptor, offset, stride, 0, 3 << 20)
        assert backing.empty_slot(descriptor, offset, 300 << 20)
        assert os.fstat(descriptor).st_blocks == 0
    finally:
        os.close(descriptor)


def test_a_slot_that_never_had_memory_has_none_to_give_back():
    descriptor, stride = backing.open_backing()
    try:
        assert not backing.empty_slot(descriptor, backing.slot_offset(0, stride), 1 << 20)
        assert os.fstat(descriptor).st_size == 0
    finally:
        os.close(descriptor)


def test_a_file_that_gives_nothing_back_says_so():
    reader, writer = os.pipe()
    try:
        assert not backing.empty_slot(writer, 0, 1 << 20)
    finally:
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize("step", [backing.SMALL_STEP_BYTES, backing.GROWTH_STEP_BYTES])
def test_a_slot_grows_in_steps(step):
    descriptor, stride = backing.open_backing()
    try:
        held = backing.grow_slot(descriptor, stride, stride, 0, step + 1, step=step)
        assert held == 2 * step
        # As much of it as may be.
        assert backing.grow_slot(descriptor, stride, stride, 0, 100, 200, step=step) == 200
    finally:
        os.close(descriptor)
