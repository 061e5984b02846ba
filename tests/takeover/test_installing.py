"""Which loaders are penstock's, and from when until when."""

from __future__ import annotations

import inspect
import pickle
import threading

import pytest
import torch
from torch.utils.data import (
    DataLoader,
)
from torch.utils.data.dataloader import _BaseDataLoaderIter

import penstock
from penstock.takeover import Report
from tests.takeover.roles import (
    ORIGINALS,
    Mine,
    Numbers,
    is_by_penstock,
    lists,
    make_by_default_argument,
    only_place,
)


def test_a_name_that_was_imported_before_means_loaders_by_penstock():
    assert isinstance(iter(DataLoader(Numbers())), _BaseDataLoaderIter)
    penstock.install()
    assert is_by_penstock(DataLoader(Numbers()))
    assert is_by_penstock(torch.utils.data.DataLoader(Numbers()))
    assert is_by_penstock(torch.utils.data.dataloader.DataLoader(Numbers()))
    assert is_by_penstock(make_by_default_argument())
    assert is_by_penstock(DataLoader[int](Numbers()))
    penstock.uninstall()
    assert isinstance(iter(DataLoader(Numbers())), _BaseDataLoaderIter)


def test_all_loaders_stay_what_their_types_say():
    before = DataLoader(Numbers())
    with penstock.install():
        after, derived = DataLoader(Numbers()), Mine(Numbers(), seed=None)
        ours = penstock.DataLoader(Numbers(), seed=3)

        class Late(DataLoader):
            pass

        late = Late(Numbers())
        for loader in (before, after, derived, ours, late):
            assert isinstance(loader, torch.utils.data.DataLoader)
        assert type(before) is type(after) is DataLoader
        assert type(derived) is Mine
        assert type(late) is Late
        assert is_by_penstock(late)
        assert type(ours) is penstock.DataLoader
        assert ours.seed == 3


def test_a_class_of_the_user_s_own_keeps_what_it_defines_and_gets_its_batches_from_penstock():
    with penstock.install() as taken:
        loader = Mine(Numbers(4), seed="of love", batch_size=2, num_workers=1)
        assert lists(loader) == [[100, 101], [102, 103]]
        assert len(loader) == 7
        assert (loader.seed, loader._engine) == ("of love", "steam")
        assert is_by_penstock(loader)
    assert only_place(taken).epochs == 2


def test_penstock_s_own_loaders_are_left_alone():
    with penstock.install() as taken:
        assert lists(penstock.DataLoader(Numbers(4), batch_size=2)) == [[0, 1], [2, 3]]
    assert taken.report() == Report(())


def test_a_loader_that_was_pickled_knows_nothing_of_penstock():
    with penstock.install():
        loader = DataLoader(Numbers(), batch_size=4, num_workers=2, persistent_workers=True)
        want = lists(loader)
        pickled = pickle.dumps(loader)
        assert lists(pickle.loads(pickled)) == want
    assert b"penstock" not in pickled
    assert type(pickle.loads(pickled)) is DataLoader


def test_uninstall_undoes_any_number_of_installs_and_none():
    penstock.uninstall()
    penstock.install()
    penstock.install()
    penstock.uninstall()
    assert vars(DataLoader)["__iter__"] is ORIGINALS["__iter__"]
    assert vars(DataLoader)["__init__"] is ORIGINALS["__init__"]


def test_blocks_may_lie_in_each_other_and_each_has_its_account():
    loader = DataLoader(Numbers(), batch_size=10)
    with penstock.install() as outer:
        list(loader)
        with penstock.install() as inner:
            list(loader)
        assert is_by_penstock(loader)
    assert only_place(inner).batches == 2
    assert sum(place.batches for place in outer.report().places) == 4
    assert vars(DataLoader)["__iter__"] is ORIGINALS["__iter__"]


def test_a_block_that_raises_withdraws_penstock():
    with pytest.raises(KeyError), penstock.install():
        raise KeyError
    assert vars(DataLoader)["__iter__"] is ORIGINALS["__iter__"]


def test_uninstall_in_a_block_leaves_nothing_to_its_end():
    with penstock.install():
        penstock.uninstall()
        assert vars(DataLoader)["__iter__"] is ORIGINALS["__iter__"]


def test_who_wraps_the_class_as_well_may_leave_in_any_order():
    calls = []
    penstock.install()
    ours = DataLoader.__init__

    def wrapper(self, *args, **kwargs):
        calls.append(self)
        ours(self, *args, **kwargs)

    wrapper.__wrapped__ = ours
    DataLoader.__init__ = wrapper
    penstock.uninstall()
    assert DataLoader.__init__ is wrapper
    DataLoader(Numbers())
    with penstock.install() as taken:
        DataLoader(Numbers())
    assert only_place(taken).loaders == 1
    assert len(calls) == 2
    DataLoader.__init__ = ours
    with penstock.install() as taken:
        DataLoader(Numbers())
    assert only_place(taken).loaders == 1


def test_threads_may_iterate_at_the_same_time():
    sums = {}

    def work(number):
        sums[number] = sum(sum(batch) for batch in lists(DataLoader(Numbers(), batch_size=5)))

    with penstock.install() as taken:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sums == dict.fromkeys(range(8), 190)
    place = only_place(taken)
    assert (place.loaders, place.epochs, place.samples) == (8, 8, 160)


def test_the_signature_is_the_one_that_frameworks_look_up():
    before = inspect.signature(DataLoader.__init__)
    with penstock.install():
        assert inspect.signature(DataLoader.__init__) == before
        assert DataLoader.__init__.__qualname__ == "DataLoader.__init__"
