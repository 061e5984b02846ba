"""Has `num_workers="auto"` choose at once, whatever anything takes."""

from __future__ import annotations

import pytest

from penstock.engines import chooser
from penstock.engines.looks import Looks, Tally

WORKERS = 2


class Choices:
    """What loaders are made to choose.

    Args:
        monkeypatch: pytest's.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        monkeypatch.setattr("penstock.automatic.usable_processors", lambda: WORKERS)
        self.never()

    def never(self) -> None:
        """They stay with their workers, and go on as they are from epoch to epoch."""
        self._patch(1 << 62, 0.0)
        self._monkeypatch.setattr(chooser.Chooser, "_judge", lambda *_: None)

    def alone_from(self, batches: int, *, for_good: bool = True, again: bool = False) -> None:
        """They try it without workers once so many batches were handed over.

        Args:
            batches: how many.
            for_good: whether the trial says that this is faster; otherwise it ends one batch later.
            again: whether it is tried again then.
        """
        self._patch(batches, 1e9 if for_good else -1.0, again=again)

    def _patch(self, first: int, waited_s: float, *, again: bool = False) -> None:
        def begin(looks: Looks, _: int) -> None:
            looks.due = first

        def look(looks: Looks, now: Tally) -> Tally:
            looks.due = 1 << 62
            return Tally(1, waited_s, 1, 1e-3)

        def resume(looks: Looks, now: Tally) -> None:
            if again:
                looks.due = now.batches + 2

        for name, function in (("__init__", begin), ("look", look), ("resume", resume)):
            self._monkeypatch.setattr(Looks, name, function)
        self._monkeypatch.setattr(chooser, "WARM_UP_BATCHES", 0)
        self._monkeypatch.setattr(chooser, "TRIAL_BATCHES", 1)
        self._monkeypatch.setattr(chooser, "MOST_TRIALS", 1 << 30)
