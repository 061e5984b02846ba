"""A loader's state as plain JSON, and what is checked before one is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from penstock.errors import StateError

# Goes up when an older Penstock could no longer make sense of what is written.
VERSION = 1

# Keys of a state of torchdata's StatefulDataLoader, documented by its tests and saved files.
_TORCHDATA_KEYS = frozenset({"_snapshot", "_iterator_finished", "_steps_since_snapshot"})

_NAMES = {
    "kind": "kind of dataset",
    "length": "dataset length",
    "samples": "number of samples in an epoch",
    "batch_size": "batch_size",
    "drop_last": "drop_last",
    "sampler": "sampler",
    "seed": "seed",
}


@dataclass(frozen=True)
class Identity:
    """What has to be the same for a state to fit.

    Attributes:
        kind: `"map"` or `"iterable"`.
        length: samples in the dataset, or None where that is unknown.
        samples: samples, or batches of a batch sampler, in an epoch; None where that is unknown.
        batch_size: samples a batch; None where a batch sampler decides, or single samples.
        drop_last: whether an incomplete batch is left out.
        sampler: the class that orders the samples, or groups them.
        seed: the loader's `seed`.
    """

    kind: str
    length: int | None
    samples: int | None
    batch_size: int | None
    drop_last: bool
    sampler: str
    seed: int | None


def make_state(identity: Identity, **parts: Any) -> dict[str, Any]:
    """Joins the parts of a state."""
    return {"penstock": VERSION, "loader": asdict(identity), **parts}


def check_state(state: object, identity: Identity) -> dict[str, Any]:
    """Makes sure that a state is one, and of a loader like this.

    Args:
        state: what was given to `load_state_dict`.
        identity: of the loader that it was given to.

    Returns:
        The state.

    Raises:
        StateError: it is not, or of another; the message says both values.
    """
    if not isinstance(state, Mapping):
        raise StateError(
            f"a state is a dict, as state_dict() returns it, and {type(state).__name__} was given"
        )
    if state.keys() >= _TORCHDATA_KEYS:
        raise StateError(
            "this is a state of torchdata's StatefulDataLoader. It holds where each of its workers "
            "had read ahead to, and not the order of the samples, so Penstock cannot go on from "
            "it. Finish the epoch with that loader, or begin the epoch anew"
        )
    version = state.get("penstock")
    if version is None:
        raise StateError(
            f"a state of a Penstock loader has the key 'penstock', and this one has "
            f"{sorted(map(str, state))!r:.200}; was another object's state given?"
        )
    if version != VERSION:
        raise StateError(
            f"this state has version {version!r}, and this Penstock reads version {VERSION}; load "
            "it with the Penstock that wrote it"
        )
    saved, own = state["loader"], asdict(identity)
    for key, name in _NAMES.items():
        if saved.get(key) != own[key]:
            raise StateError(
                f"this state was saved with {name} {saved.get(key)!r}, and the loader has "
                f"{own[key]!r}; what is left of the epoch would be other samples"
            )
    return dict(state)
