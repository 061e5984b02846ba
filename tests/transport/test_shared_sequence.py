"""A sequence of the program's own making."""

from __future__ import annotations

import copy
import mmap
import multiprocessing
import pickle
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

import penstock
from penstock import SharedSequence
from penstock.engines.sharing import is_reachable
from penstock.errors import SerializationError

ANYTHING = st.lists(
    st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.integers()), max_size=20
)


@given(ANYTHING | st.lists(st.text(), max_size=20), st.integers(-25, 25), st.integers(-25, 25))
def test_it_reads_as_the_list_that_it_was_made_of(items, begin, end):
    shared = SharedSequence(items)
    assert len(shared) == len(items)
    assert list(map(repr, shared)) == list(map(repr, items))
    assert list(reversed(shared)) == items[::-1]
    assert shared[begin:end] == items[begin:end]
    assert shared[::-2] == items[::-2]
    for at in range(-len(items), len(items)):
        assert shared[at] == items[at]
        assert items[at] in shared
        assert shared.index(items[at]) == items.index(items[at])
    for at in (len(items), -len(items) - 1):
        with pytest.raises(IndexError):
            shared[at]


def test_it_cannot_be_changed():
    shared = SharedSequence(["a"])
    with pytest.raises(TypeError):
        shared[0] = "b"  # type: ignore[index]
    with pytest.raises(TypeError, match="ints or slices, not str"):
        shared["a"]  # type: ignore[call-overload]
    assert copy.copy(shared) is shared
    assert copy.deepcopy([shared])[0] is shared
    assert repr(shared).startswith("<SharedSequence of 1 items in ")


def test_what_cannot_be_pickled_is_an_error():
    with pytest.raises(TypeError, match="pickle"):
        SharedSequence([threading.Lock()])


def test_items_may_be_of_classes_that_cannot_be_imported():
    class Local:
        number = 5

    assert SharedSequence([Local()])[0].number == 5


def test_a_pickle_takes_the_contents_along():
    found = pickle.loads(pickle.dumps(SharedSequence(["a", "bc"])))
    assert list(found) == ["a", "bc"]


def test_it_is_nothing_that_the_program_could_change_between_epochs(monkeypatch):
    shared = SharedSequence(["a"])
    assert shared[0] == "a"
    # Whatever else there is that the classes of this package name.
    others = [mmap.mmap(-1, 1)]
    monkeypatch.setattr("penstock.transport.shared_sequence.pack", others)
    assert is_reachable(others)
    assert not is_reachable(shared)


@pytest.mark.usefixtures("no_leaks")
def test_its_descriptors_go_with_it():
    shared = SharedSequence(range(1000))
    assert sum(shared) == 499_500


class Paths:
    def __init__(self, paths):
        self.paths = self.again = paths

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        return self.paths[index], self.paths is self.again, type(self.paths).__name__


@pytest.mark.usefixtures("no_leaks")
@pytest.mark.parametrize("read_before", [False, True])
def test_it_travels_to_workers(start_method, read_before):
    shared = SharedSequence([f"{n}.jpg" for n in range(50)])
    assert not read_before or shared[3] == "3.jpg"
    got = penstock.iterate(Paths(shared), workers=2, multiprocessing_context=start_method)
    assert [value for _, value in got] == [(f"{n}.jpg", True, "SharedSequence") for n in range(50)]


def test_its_contents_do_not(monkeypatch):
    from penstock.engines.payload import Payload

    monkeypatch.setattr("penstock.transport.shared_file._copy", None)
    payload = Payload(Paths(SharedSequence(["x" * 1_000_000])))
    assert payload.size < 10_000
    assert len(payload.files) == 1
    payload.close()


def read(shared, answers):
    answers.put(shared[7])


@pytest.mark.usefixtures("no_leaks")
def test_it_travels_to_any_process_that_is_started_with_it(start_method):
    context = multiprocessing.get_context(start_method)
    answers = context.SimpleQueue()
    process = context.Process(target=read, args=(SharedSequence(range(100)), answers))
    process.start()
    assert answers.get() == 7
    process.join()
    process.close()
    answers.close()


def test_an_item_that_cannot_be_pickled_is_named():
    with pytest.raises(SerializationError, match=r"items\[1\]"):
        SharedSequence([1.5j, threading.Lock()])
