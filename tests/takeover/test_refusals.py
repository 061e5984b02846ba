"""What penstock refuses or cannot do, and torch's own loader does."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest
import torch
from torch.utils.data import (
    DataLoader,
)
from torch.utils.data.dataloader import _SingleProcessDataLoaderIter
from torch.utils.data.datapipes.iter import IterableWrapper

import penstock
from tests.takeover.roles import (
    Numbers,
    OwnIterator,
    is_by_penstock,
    only_place,
)


def test_what_penstock_refuses_is_torch_s_with_one_line_of_warning(caplog):
    torch.manual_seed(5)
    by_torch = list(DataLoader("abcdefgh", batch_size=3, shuffle=True))
    with penstock.install() as taken, caplog.at_level(logging.WARNING, "penstock"):
        torch.manual_seed(5)
        loader = DataLoader("abcdefgh", batch_size=3, shuffle=True)
        assert list(loader) == by_torch
        list(loader)
    (record,) = caplog.records
    assert Path(__file__).name in record.getMessage()
    assert "is a text" in record.getMessage()
    place = only_place(taken)
    assert place.epochs == 0
    assert list(place.left.values()) == [2]
    assert "2 epochs were left to torch's own loader: dataset='abcdefgh'" in str(taken.report())


def test_options_that_mean_nothing_without_workers_are_no_reason_to_refuse():
    with penstock.install():
        assert is_by_penstock(DataLoader(Numbers(), timeout=5))


@pytest.mark.filterwarnings("ignore:Got pickle error")
def test_what_no_loader_can_send_to_workers_fails_as_it_does_in_torch():
    dataset = Numbers()
    dataset.lock = threading.Lock()
    options = {"num_workers": 1, "multiprocessing_context": "spawn"}
    with pytest.raises(TypeError) as by_torch:
        list(DataLoader(dataset, **options))
    torch.manual_seed(5)
    with penstock.install(), pytest.raises(TypeError) as caught:
        list(DataLoader(dataset, **options))
    assert type(caught.value) is type(by_torch.value)
    assert str(caught.value) == str(by_torch.value)
    drawn = torch.rand(())
    torch.manual_seed(5)
    torch.empty((), dtype=torch.int64).random_()  # torch's base seed
    assert drawn == torch.rand(())


def test_an_iterator_of_the_user_s_own_stays(caplog):
    with penstock.install() as taken:
        assert isinstance(iter(OwnIterator(Numbers())), _SingleProcessDataLoaderIter)
    assert list(only_place(taken).left) == ["OwnIterator has its own _get_iterator"]


def test_a_datapipe_is_divided_among_the_workers_by_torch():
    with penstock.install() as taken:
        pipe = IterableWrapper(range(10)).sharding_filter()
        assert sorted(DataLoader(pipe, batch_size=None, num_workers=2)) == list(range(10))
    assert only_place(taken).epochs == 0
