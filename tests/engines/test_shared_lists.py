"""Which lists are found in a dataset, and what is put in their places."""

from __future__ import annotations

import dataclasses
import gc
import os
import threading
from collections import OrderedDict, UserList, defaultdict
from typing import Any, NamedTuple

import numpy as np
import pytest

from penstock.engines import shared_lists
from penstock.engines.job import Job
from penstock.engines.payload import Payload, load_payload
from penstock.engines.shared_lists import LEAST_BYTES, SharedLists
from penstock.transport.shared_list import SharedList

COUNT = 60_000


def many(start=0):
    return [f"/photos/{n:012d}.jpg" for n in range(start, start + COUNT)]


class Dataset:
    itself: Any
    paths: Any

    def __init__(self, **parts):
        vars(self).update(parts)

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return index


class Slotted:
    __slots__ = ("paths", "unset")

    def __init__(self, paths):
        self.paths = paths


class Named(NamedTuple):
    paths: Any
    number: int


class Marked(tuple):
    """With attributes of its own."""


@dataclasses.dataclass(frozen=True)
class Frozen:
    paths: Any


class Strange:
    """Any code of it that is called is one call too many."""

    def __init__(self, paths):
        object.__setattr__(self, "paths", paths)

    def __getattribute__(self, name):
        raise AssertionError(name)

    def __setattr__(self, name, value):
        raise AssertionError(name)


class OddDict(dict):
    def __len__(self):
        raise AssertionError

    keys = values = items = __iter__ = __len__  # type: ignore[assignment]


def job_of(dataset):
    return Job(dataset, seats=1)


def sent(dataset):
    """The dataset, as a spawned worker has it."""
    job = job_of(dataset)
    lists = SharedLists(job, forks=False)
    payload = Payload(job, lists)
    files = [os.dup(file.descriptor) for file in payload.files]
    found = load_payload(os.dup(payload.descriptor), files)
    payload.close()
    return found.dataset


def forked(dataset):
    """The dataset, as a forked worker has it: here, in place of the program's."""
    return SharedLists(job_of(dataset), forks=False).arrive().dataset


@pytest.fixture(autouse=True)
def originals(monkeypatch):
    """A forked worker keeps the lists that it does not use, for good."""
    monkeypatch.setattr(shared_lists, "_originals", [])


@pytest.mark.usefixtures("no_leaks")
@pytest.mark.parametrize("way", [sent, forked])
@pytest.mark.parametrize(
    ("wrap", "get"),
    [
        (lambda paths: paths, lambda found: found),
        (lambda paths: Dataset(paths=paths), lambda found: found.paths),
        (lambda paths: Dataset(inner=Dataset(paths=paths)), lambda found: found.inner.paths),
        (lambda paths: Dataset(by={"a": paths}), lambda found: found.by["a"]),
        (lambda paths: Dataset(by=OrderedDict(a=paths)), lambda found: found.by["a"]),
        (lambda paths: Dataset(by=defaultdict(int, a=paths)), lambda found: found.by["a"]),
        (lambda paths: Dataset(parts=[0, [paths]]), lambda found: found.parts[1][0]),
        (lambda paths: Dataset(parts=(0, (paths, 1))), lambda found: found.parts[1][0]),
        (lambda paths: Dataset(named=Named(paths, 3)), lambda found: found.named.paths),
        (lambda paths: Slotted(paths), lambda found: found.paths),
        (lambda paths: Dataset(frozen=Frozen(paths)), lambda found: found.frozen.paths),
        (lambda paths: Dataset(user=UserList(paths)), lambda found: found.user.data),
    ],
)
def test_a_list_is_found_wherever_it_is_held(wrap, get, way):
    paths = many()
    found = get(way(wrap(paths)))
    assert type(found) is SharedList
    assert found == paths


@pytest.mark.parametrize("way", [sent, forked])
def test_what_is_held_twice_stays_one_object(way):
    paths, others = many(), many(5)
    dataset = Dataset(paths=paths, again=[paths], pair=(others, paths), others=others)
    dataset.itself = dataset
    found = way(dataset)
    assert found.itself is found
    assert found.paths is found.again[0] is found.pair[1]
    assert found.others is found.pair[0] is not found.paths
    assert (found.paths, found.others) == (paths, others)


@pytest.mark.parametrize("way", [sent, forked])
@pytest.mark.parametrize(
    "items",
    [
        ["short"] * 10,
        [*many(), None],
        [None, *many()],
        [[n] for n in range(COUNT)],
        UserList,
    ],
)
def test_other_lists_stay_lists(way, items):
    if items is UserList:
        items = type("Special", (list,), {})(many())
    found = way(Dataset(paths=items)).paths
    assert type(found).__name__ == type(items).__name__
    assert found == items


@pytest.mark.parametrize(
    "items",
    [
        list(range(-5, 200_000)),
        [n / 7 for n in range(200_000)],
        [b"x" * (n % 50) for n in range(COUNT)],
        [(f"/photos/{n:09d}", n) for n in range(COUNT)],
        ["x" * LEAST_BYTES],
    ],
)
def test_lists_of_all_kinds_are_shared(items):
    found = sent(Dataset(paths=items)).paths
    assert type(found) is SharedList
    assert found == items


def test_no_code_of_the_dataset_is_called():
    paths = many()
    strange = Strange(paths)
    lists = SharedLists(job_of(Dataset(strange=strange, odd=OddDict(a=many(1)))), forks=False)
    assert len(lists.found) == 2
    lists.arrive()
    assert type(object.__getattribute__(strange, "__dict__")["paths"]) is SharedList


def test_a_tuple_that_has_more_than_items_is_left_alone():
    marked = Marked([many()])
    marked.note = "mine"  # type: ignore[attr-defined]
    found = forked(Dataset(marked=marked)).marked
    assert found is marked
    assert type(found[0]) is list


def test_iterators_over_a_list_and_arrays_of_objects_arrive():
    paths = many()
    iterator = iter(paths)
    next(iterator)
    objects = np.array(paths, dtype=object)
    found = sent(Dataset(paths=paths, iterator=iterator, objects=objects))
    assert next(found.iterator) == paths[1]
    assert (found.objects == objects).all()


class Stateful(Dataset):
    handle: Any

    def __getstate__(self):
        state = dict(vars(self))
        del state["handle"]
        return state

    def __setstate__(self, state):
        vars(self).update(state, handle="opened again")


class Reduced:
    def __init__(self, paths):
        self.paths = paths

    def __reduce__(self):
        return Reduced, (self.paths[:100],)


def test_an_object_says_itself_how_it_travels():
    paths = many()
    found = sent(Stateful(paths=paths, handle=threading.Lock()))
    assert found.handle == "opened again"
    assert type(found.paths) is SharedList
    reduced = sent(Dataset(inner=Reduced(paths))).inner
    assert reduced.paths == paths[:100]
    assert type(reduced.paths) is list


def test_the_program_keeps_its_list():
    paths = many()
    dataset = Dataset(paths=paths)
    sent(dataset)
    assert dataset.paths is paths


def test_a_list_is_packed_once_for_all_who_hold_it_now_and_again_if_it_has_changed():
    paths = many()
    dataset = Dataset(paths=paths)
    first = SharedLists(job_of(dataset), forks=False)
    second = SharedLists(job_of(Dataset(other=paths)), forks=False)
    assert first.found[0] is second.found[0]
    paths[7] = "changed"
    third = SharedLists(job_of(dataset), forks=False)
    assert third.found[0] is not first.found[0]
    assert third.found[0].shared() == paths
    assert SharedLists(job_of(dataset), forks=False).found[0] is third.found[0]
    paths.append("one more")
    assert SharedLists(job_of(dataset), forks=False).found[0].shared()[-1] == "one more"


@pytest.mark.parametrize(
    ("items", "other"),
    [
        ([0, *range(200_000)], False),
        ([0.0, *map(float, range(200_000))], -0.0),
        ([("x" * 30, 0)] * 60_000, ("x" * 30, False)),
        (many(), np.array(["a", "b"])),
        (many(), "b"),
    ],
)
def test_what_equals_an_item_is_another_item(items, other):
    first = SharedLists(job_of(Dataset(paths=items)), forks=False)
    assert len(first.found) == 1
    items[0] = other
    second = SharedLists(job_of(Dataset(paths=items)), forks=False)
    assert first.found[0] not in second.found


def test_a_forked_worker_that_comes_later_leaves_alone_what_has_changed_since():
    dataset = Dataset(changed=many(), replaced=many(1), kept=many(2))
    lists = SharedLists(job_of(dataset), forks=False)
    dataset.changed[3] = "changed"
    dataset.replaced = replaced = many(3)
    found = lists.arrive().dataset
    assert type(found.changed) is list
    assert found.changed[3] == "changed"
    assert found.replaced is replaced
    assert type(found.kept) is SharedList


def test_a_forked_worker_never_frees_a_list_that_it_does_not_use():
    paths = many()
    forked(Dataset(paths=paths))
    assert [kept is paths for kept in shared_lists._originals] == [True]


@pytest.mark.usefixtures("no_leaks")
def test_all_of_it_takes_one_descriptor():
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    lists = SharedLists(
        job_of(Dataset(one=many(), two=many(1), three=list(range(200_000)))), forks=False
    )
    assert len(os.listdir("/proc/self/fd")) == before + 1  # noqa: PTH208
    assert len(lists.found) == 3
    del lists
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


@pytest.mark.usefixtures("no_leaks")
def test_without_memory_for_a_copy_the_list_travels_as_it_does_otherwise(monkeypatch, caplog):
    def refuse(items, file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shared_lists, "pack", refuse)
    paths = many()
    assert type(sent(Dataset(paths=paths)).paths) is list
    assert "not shared with workers: [Errno 28]" in caplog.text


def test_a_structure_without_end_is_not_looked_through():
    deep: list[Any] = []
    dataset = Dataset(deep=deep, late=None)
    for _ in range(shared_lists._MOST_OBJECTS + 10):
        deep.append([])
        deep = deep[0]
    deep.append(many())
    assert SharedLists(job_of(dataset), forks=False).found == []


def test_under_fork_only_what_is_worth_the_wait_is_packed(monkeypatch):
    job = job_of(Dataset(paths=many()))
    assert SharedLists(job, forks=False).found
    assert not SharedLists(job, forks=True).found
    monkeypatch.setattr("penstock.engines.shared_lists.LEAST_FORKED_BYTES", LEAST_BYTES)
    assert SharedLists(job, forks=True).found


# What is not worth it, or cannot be had.


def test_large_items_stay_where_they_are_under_fork(monkeypatch):
    monkeypatch.setattr(shared_lists, "LEAST_FORKED_BYTES", LEAST_BYTES)
    job = job_of(Dataset(pictures=[bytes([n]) * 20_000 for n in range(200)]))
    assert SharedLists(job, forks=False).found
    assert not SharedLists(job, forks=True).found


def test_a_text_that_is_there_many_times_is_not_packed_as_often():
    texts = ["x" * 20_000, "y" * 20_000] * 100
    assert not SharedLists(job_of(Dataset(texts=texts)), forks=False).found
    # Small ones are: each takes less than the pointer to it does in the list, or little more.
    labels = ["cat", "dog"] * 150_000
    assert SharedLists(job_of(Dataset(labels=labels)), forks=False).found


def test_without_memory_for_a_copy_each_worker_has_its_own(monkeypatch, caplog):
    monkeypatch.setattr(shared_lists, "available_bytes", lambda: 1 << 20)
    assert not SharedLists(job_of(Dataset(paths=many())), forks=False).found
    assert "is not shared with workers" in caplog.text


def test_a_list_that_changes_while_it_is_packed_is_what_it_was_before(monkeypatch):
    paths = many()
    pack = shared_lists.pack

    def pack_and_change(items, file):
        packed = pack(items, file)
        paths[0] = "changed"
        return packed

    monkeypatch.setattr(shared_lists, "pack", pack_and_change)
    (found,) = SharedLists(job_of(Dataset(paths=paths)), forks=False).found
    assert found.shared()[0] == many()[0]
    assert not found.is_unchanged()
