"""The account that is kept of an epoch, against loaders that do not keep theirs."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from penstock import Statistics
from penstock.cli import consume
from penstock.cli.iterate import run
from penstock.cli.request import Request
from tests.cli.conftest import Album


def request_for(album: Album) -> Request:
    return Request(
        source=str(album.folder),
        workers=0,
        batch_size=5,
        size=8,
        on_error="skip",
        max_skipped=None,
        in_order=True,
        start_method=None,
        shuffle=False,
        seed=0,
        strict=False,
        json=True,
        traceback=False,
    )


class Careless:
    """A loader and its epoch, which hands over what it was told to."""

    batches: tuple[tuple[int, ...], ...] = ()
    skipped: tuple[()] = ()

    def __init__(self, *_: Any, **__: Any) -> None:
        self._left = iter(self.batches)

    def __iter__(self) -> Careless:
        return self

    def __next__(self) -> tuple[None, None, torch.Tensor]:
        return None, None, torch.tensor(next(self._left))

    def ready(self) -> bool:
        return True

    def close(self) -> None:
        pass

    def statistics(self) -> Statistics:
        return Statistics(batches=len(self.batches), elapsed_s=1.0)


def test_a_run_without_workers_accounts_for_every_picture(
    album: Album, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(request_for(album)) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["samples"], report["skipped"], report["batches"]) == (12, 3, 3)
    assert report["busy_share"] > 0


def test_shuffle_draws_the_order_from_the_seed(
    album: Album, capsys: pytest.CaptureFixture[str]
) -> None:
    def first_broken(**order: Any) -> str:
        assert run(replace(request_for(album), on_error="raise", batch_size=1, **order)) == 1
        return str(json.loads(capsys.readouterr().out)["error"]["message"])

    assert album.broken[0] in first_broken()
    met = [first_broken(shuffle=True, seed=seed) for seed in (1, 2, 3, 4, 5, 1, 2, 3, 4, 5)]
    assert met[:5] == met[5:]
    assert len(set(met)) > 1


@pytest.mark.parametrize(
    ("batches", "fault"),
    [
        ([range(14)], "1 are missing and 0 came"),
        ([range(15), [4]], "0 are missing and 1 came"),
        ([range(14), [0]], "1 are missing and 1 came"),
    ],
    ids=["lost", "twice", "one-for-another"],
)
def test_a_picture_lost_or_twice_is_an_error(
    batches: list[Any],
    fault: str,
    album: Album,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Careless, "batches", tuple(map(tuple, batches)))
    monkeypatch.setattr(consume, "DataLoader", Careless)
    assert run(request_for(album)) == 1
    streams = capsys.readouterr()
    assert json.loads(streams.out)["outcome"] == "stopped"
    assert fault in streams.err
