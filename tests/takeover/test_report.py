"""What is counted and told."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
from torch.utils.data import (
    DataLoader,
)

import penstock
from tests.takeover.roles import (
    Numbers,
    only_place,
)


class DiesOnce(Numbers):
    def __init__(self, flag: Path) -> None:
        super().__init__()
        self.flag = flag

    def __getitem__(self, index):
        if index == 7 and not self.flag.exists():
            self.flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.zeros(100_000) + index


@pytest.mark.usefixtures("no_leaks")
def test_a_worker_that_dies_is_replaced_and_counted(tmp_path):
    with penstock.install() as taken:
        for batch in DataLoader(DiesOnce(tmp_path / "died"), batch_size=5, num_workers=2):
            assert len(batch) == 5
        del batch
    place = only_place(taken)
    assert (place.restarts, place.samples, place.batches) == (1, 20, 4)
    assert place.shared_bytes >= 5 * 400_000
    assert 0 < place.busy_share <= 1
    assert 0 < place.waited_s <= place.elapsed_s
    text = str(taken.report())
    assert "    1 worker died and was replaced\n" in text
    assert "gained: 1 worker died and was replaced, where torch's loader ends with an" in text


def test_a_thousand_epochs_are_remembered_as_one():
    with penstock.install() as taken:
        loader = DataLoader(Numbers(2), batch_size=2)
        for _ in range(1000):
            list(loader)
    (tally,) = taken._account._tallies.values()
    assert len(tally.running) == 1
    assert only_place(taken).epochs == 1000


def test_without_loaders_the_summary_says_that_there_were_none(capsys):
    with penstock.install(summary=True):
        pass
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("penstock: summary\n  no torch.utils.data.DataLoader was")


def test_the_summary_comes_once_and_only_if_asked_for(capsys):
    with penstock.install():
        list(DataLoader(Numbers()))
    assert capsys.readouterr().err == ""
    with penstock.install(summary=True):
        list(DataLoader(Numbers()))
        penstock.uninstall()
        assert "no worker died" in capsys.readouterr().err
    assert capsys.readouterr().err == ""
