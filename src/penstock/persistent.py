"""The one iterator of a loader whose workers live on between its epochs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from penstock.epoch import EpochRun
from penstock.pinning import PinnedRun


class RenewedRun(Iterator[Any]):
    """Iterates the epoch that was begun last; who holds it goes on with each new epoch.

    Args:
        run: the first epoch's.
        loader: whose workers end with it; a program may keep this iterator alone.
    """

    def __init__(self, run: EpochRun | PinnedRun, loader: object) -> None:
        self._run = run
        self._loader = loader

    def renew(self, run: EpochRun | PinnedRun) -> None:
        """Goes on with another epoch; what is left of the one before is given up."""
        self._run = run

    def __iter__(self) -> RenewedRun:
        return self

    def __next__(self) -> Any:
        """The next batch of the epoch; see `EpochRun.__next__`."""
        return next(self._run)

    def __len__(self) -> int:
        """See `EpochRun.__len__`."""
        return len(self._run)

    def ready(self) -> bool:
        """See `EpochRun.ready`."""
        return self._run.ready()

    def look_ahead(self) -> bool:
        """See `EpochRun.look_ahead`."""
        return self._run.look_ahead()

    def wait_handles(self) -> list[int]:
        """See `EpochRun.wait_handles`."""
        return self._run.wait_handles()

    def left_s(self, began: float) -> float | None:
        """See `EpochRun.left_s`."""
        return self._run.left_s(began)

    def close(self) -> None:
        """Gives up what is left of the epoch; see `EpochRun.close`."""
        self._run.close()
