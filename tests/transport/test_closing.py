"""A descriptor's last owner, who may go without closing it."""

from __future__ import annotations

import gc
import os

import pytest

from penstock.transport.closing import Closing

pytestmark = pytest.mark.usefixtures("no_leaks")


class Owner:
    def __init__(self) -> None:
        self.descriptor = os.open(os.devnull, os.O_RDONLY)
        self.close = Closing(self, self.descriptor)


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def test_it_is_closed_once_and_not_again_as_another_files():
    owner = Owner()
    owner.close()
    assert not is_open(owner.descriptor)
    other = os.open(os.devnull, os.O_RDONLY)
    assert other == owner.descriptor
    owner.close()
    del owner
    gc.collect()
    assert is_open(other)
    os.close(other)


def test_it_is_closed_when_its_owner_goes():
    owner = Owner()
    descriptor = owner.descriptor
    del owner
    gc.collect()
    assert not is_open(descriptor)


def test_an_owner_that_goes_in_a_forked_child_closes_nothing_there():
    owner = Owner()
    descriptor = owner.descriptor
    child = os.fork()
    if not child:
        del owner
        gc.collect()
        os._exit(0 if is_open(descriptor) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    owner.close()
