"""What a dataset can tell, and be told, of itself: its state, and the epoch.

`state_dict`, `load_state_dict` and `set_epoch` are what torchdata's loader and torch's samplers
call such methods; a dataset has them or not.
"""

from __future__ import annotations

import pickle
from typing import Any

import cloudpickle


def has_state(thing: object) -> bool:
    """Whether something can tell its state and take it up again."""
    return callable(getattr(thing, "state_dict", None)) and callable(
        getattr(thing, "load_state_dict", None)
    )


def pack(state: Any) -> bytes:
    """A state as it is now.

    What was returned may be its owner's own, and change, or be a part of the batch that it
    travels with.
    """
    try:
        return pickle.dumps(state, 5)
    except (pickle.PicklingError, AttributeError, TypeError):
        return bytes(cloudpickle.dumps(state))


def unpack(packed: bytes | None) -> Any:
    """What `pack` was given; None stays None."""
    return None if packed is None else pickle.loads(packed)


def tell_epoch(thing: Any, number: int | None) -> None:
    """Tells a dataset or sampler which epoch begins, if it wants to know."""
    set_epoch = getattr(thing, "set_epoch", None)
    if number is not None and callable(set_epoch):
        set_epoch(number)


class Snapshots:
    """Takes a dataset's state behind every so many batches.

    Args:
        dataset: whose.
        every: of how many batches one; 0 for none.
    """

    def __init__(self, dataset: Any, every: int) -> None:
        self._dataset = dataset
        self._tells = has_state(dataset)
        self._every = every
        self._made = 0

    def begin_epoch(
        self, number: int | None, packed: bytes | None = None, *, earlier: bool = False
    ) -> Any:
        """Tells the dataset the epoch, and has it take up a state that it has told.

        Args:
            number: the epoch's; None: it is not told.
            packed: what `take` has returned, or None.
            earlier: whether that was before the epoch began.

        Returns:
            The state of the iterator at that place in the epoch, if it is known.
        """
        self._made = 0
        state: dict[str, Any] = unpack(packed) or {}
        if not earlier:
            tell_epoch(self._dataset, number)
        if "dataset" in state:
            self._dataset.load_state_dict(state["dataset"])
        if earlier:
            # Last, as it was: the state may hold the number of the epoch before.
            tell_epoch(self._dataset, number)
        return None if earlier else state.get("iterator")

    def take(self, iterator: object = None) -> bytes | None:
        """The state behind a batch that was made, packed; None if there is none, or none is due.

        Args:
            iterator: what reads the dataset; it may have a state of its own.
        """
        self._made += 1
        if not (self._tells or iterator is not None) or not self._every or self._made % self._every:
            return None
        state: dict[str, Any] = {}
        if self._tells:
            state["dataset"] = self._dataset.state_dict()
        if iterator is not self._dataset and has_state(iterator):
            state["iterator"] = iterator.state_dict()  # type: ignore[attr-defined]
        return pack(state) if state else None
