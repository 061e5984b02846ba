"""The line of the user's code that a loader is known by."""

from __future__ import annotations

import sys

from torch.utils.data import (
    DataLoader,
)

import penstock
from tests.takeover.roles import (
    Numbers,
    lists,
    only_place,
)


def test_a_loader_that_was_made_before_has_its_next_epoch_by_penstock():
    loader = DataLoader(Numbers(), batch_size=8)
    before = lists(loader)
    with penstock.install() as taken:
        line = sys._getframe().f_lineno + 1
        assert [batch.tolist() for batch in loader] == before
    place = only_place(taken)
    assert (place.place.file, place.place.line) == (__file__, line)
    assert place.place.iterated
    assert (place.loaders, place.epochs, place.batches, place.samples) == (1, 1, 3, 20)


def test_loaders_are_grouped_by_the_line_that_made_them():
    with penstock.install() as taken:
        first, second = [DataLoader(Numbers(), batch_size=size) for size in (5, 10)]
        never = DataLoader(Numbers())
        list(first)
        list(second)
    together, alone = taken.report().places
    assert (together.loaders, together.epochs, together.batches) == (2, 2, 6)
    assert alone.place.line == together.place.line + 1
    text = str(taken.report())
    assert ": 2 loaders, 2 epochs, 6 batches, 40 samples in " in text
    assert ": 1 loader, never iterated" in text
    del never


def test_a_loader_that_a_framework_makes_is_known_by_the_line_that_called_the_framework(
    tmp_path, monkeypatch
):
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "framework_of_tests.py").write_text(
        "from torch.utils.data import DataLoader\ndef fit(data): return list(DataLoader(data))\n"
    )
    monkeypatch.syspath_prepend(folder)
    import framework_of_tests  # type: ignore[import-not-found]

    with penstock.install() as taken:
        framework_of_tests.fit(Numbers(2))
    place = only_place(taken).place
    assert (place.file, place.through) == (__file__, "framework_of_tests")
    assert "(through framework_of_tests)" in str(taken.report())
