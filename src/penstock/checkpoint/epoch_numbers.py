"""The number of an epoch, as samplers and datasets are told it by the loader or by others.

Frameworks call `set_epoch` of samplers, and never of a loader. What a sampler was told has to be
the loader's own number too: else the order is of one epoch, and the random contents of the samples
of another.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any

from penstock.checkpoint.own_state import tell_epoch
from penstock.plan import SeededShuffle


def with_wrapped(samplers: Iterable[Any]) -> list[Any]:
    """Samplers and batch samplers, and behind them those that they wrap, outermost first."""
    found: list[Any] = []
    waiting = list(samplers)
    while waiting:
        part = waiting.pop(0)
        if part is not None and not any(part is known for known in found):
            found.append(part)
            waiting += [getattr(part, "sampler", None), getattr(part, "batch_sampler", None)]
    return found


class EpochNumbers:
    """Tells the parts of one loader its epochs, and notices what samplers are told by others.

    Penstock's own sampler says that it was told a number. Of any other only its `epoch` is known:
    if that is not what it was when the last epoch began, and the sampler did not change it itself
    while it gave samples, somebody has called `set_epoch`. So has somebody where a sampler comes
    to a loader with another number than 0.
    """

    def __init__(self) -> None:
        # By identity: a sampler's class may define what is equal.
        self._noted: list[tuple[Any, int]] = []
        # What parts had before this loader told them anything; None: they do not show it.
        self._first: list[tuple[Any, int | None]] = []

    def copied(self) -> EpochNumbers:
        """The same, for a copy of the loader; its parts are pickled and copied along."""
        other = EpochNumbers()
        other._noted, other._first = list(self._noted), list(self._first)
        return other

    def told_by_others(self, samplers: Iterable[Any]) -> int | None:
        """The number that a sampler was told since `note`; that of the outermost, if several."""
        for part in samplers:
            number = part.told if isinstance(part, SeededShuffle) else number_of(part)
            if number is not None and (isinstance(part, SeededShuffle) or number != self._of(part)):
                return number
        return None

    def note(self, samplers: Iterable[Any]) -> None:
        """From here on, only what samplers are told next counts."""
        # In place: an iterator that `watch` has made goes on with the list.
        self._noted.clear()
        for part in samplers:
            number = number_of(part)
            if isinstance(part, SeededShuffle):
                part.told = None
            elif number is not None:
                self._noted.append((part, number))

    def watch(self, ordering: Iterable[Any], samplers: Iterable[Any]) -> Iterable[Any]:
        """Iterates an ordering, and notes how samplers go on to another epoch by themselves."""
        counting = [
            part
            for part in samplers
            if not isinstance(part, SeededShuffle) and number_of(part) is not None
        ]
        return _Watched(iter(ordering), counting, self._noted) if counting else ordering

    def tell(self, parts: Iterable[Any], number: int) -> None:
        """Tells samplers and dataset the loader's number."""
        for part in parts:
            if not callable(getattr(part, "set_epoch", None)):
                continue
            if not any(part is known for known, _ in self._first):
                first = getattr(part, "epoch", None)
                self._first.append((part, first if isinstance(first, int) else None))
            tell_epoch(part, number)

    def take_back(self, parts: Collection[Any]) -> list[Any]:
        """Tells parts what they had before they were told anything.

        Returns:
            Those that do not show what that was: they keep the number.
        """
        taken_back = [entry for entry in self._first if any(entry[0] is each for each in parts)]
        for part, first in taken_back:
            tell_epoch(part, first)
            if first is not None:
                self._first = [entry for entry in self._first if entry[0] is not part]
        return [part for part, first in taken_back if first is None]

    def _of(self, part: Any) -> int:
        return next((number for known, number in self._noted if known is part), 0)


def number_of(sampler: Any) -> int | None:
    """The epoch that a sampler shows; None if it cannot be told one, or has none yet."""
    number = getattr(sampler, "epoch", None)
    tellable = callable(getattr(sampler, "set_epoch", None))
    return number if tellable and isinstance(number, int) and number >= 0 else None


class _Watched:
    """An iterator that notes what samplers do to their epoch while they give samples.

    Args:
        iterator: gives what they order.
        samplers: those that show their epoch.
        noted: where their numbers are noted; those that others have told them stay as they are.
    """

    def __init__(
        self, iterator: Iterator[Any], samplers: list[Any], noted: list[tuple[Any, int]]
    ) -> None:
        self._iterator = iterator
        self._samplers = samplers
        self._noted = noted

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        before = [part.epoch for part in self._samplers]
        try:
            return next(self._iterator)
        finally:
            for part, number in zip(self._samplers, before, strict=True):
                if part.epoch != number:
                    self._note_own(part, number)

    def _note_own(self, part: Any, before: int) -> None:
        for place, (known, number) in enumerate(self._noted):
            if known is part and number == before:
                self._noted[place] = (part, part.epoch)
