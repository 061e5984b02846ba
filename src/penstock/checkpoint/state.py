"""A loader's state as plain JSON, and what is checked before one is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from penstock.checkpoint.progress import Progress
from penstock.errors import StateError

# Goes up when an older Penstock could no longer make sense of what is written.
VERSION = 1

# In every state of torchdata's StatefulDataLoader, with workers and without.
_TORCHDATA_KEY = "_iterator_finished"

# What a state has of the epoch that is next, and of the beginning of the one under way.
_BEGINNING: dict[str, type | tuple[type, ...]] = {
    "epoch": int,
    "told": (int, type(None)),
    "drawn": (list, type(None)),
    "redraws": bool,
    "streams": (int, type(None)),
    "random": Mapping,
    "sampler": Mapping,
    "dataset": object,
}

# What it has besides.
_LOADER: dict[str, type | tuple[type, ...]] = {
    "loader": Mapping,
    "position": (Mapping, type(None)),
    "quarantine": list,
}

_NAMES = {
    "kind": "kind of dataset",
    "length": "dataset length",
    "samples": "number of samples, or batches of its batch sampler, in an epoch",
    "batch_size": "batch_size",
    "drop_last": "drop_last",
    # Before the sampler, which follows from it.
    "seed": "seed",
    "sampler": "sampler (of sampler= or shuffle=)",
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
    # Accelerate writes that key into the states of other loaders too.
    if _TORCHDATA_KEY in state and "penstock" not in state:
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
    _check_parts(state, {**_LOADER, **_BEGINNING})
    saved, own = state["loader"], asdict(identity)
    for key, name in _NAMES.items():
        if saved.get(key) != own[key]:
            raise StateError(
                f"this state was saved with {name} {saved.get(key)!r}, and the loader has "
                f"{own[key]!r}; what is left of the epoch would be other samples. Load it into a "
                "loader like that which wrote it (Accelerate's prepare() makes others), or begin "
                "an epoch without it, by set_epoch()"
            )
    position = state["position"]
    if position is not None:
        _check_parts(position, {"origin": Mapping, "progress": Mapping})
        _check_parts(position["origin"], _BEGINNING)
        try:
            Progress.from_state(position["progress"])
        except (TypeError, KeyError) as error:
            raise StateError(f"this state is damaged, in its progress: {error}") from error
    for part in (state, *([position["origin"]] if position else [])):
        _check_parts(part["random"], {"own": list, "program": Mapping})
        _check_parts(part["sampler"], {"epochs": list})
    return dict(state)


def _check_parts(state: Mapping[str, Any], parts: Mapping[str, type | tuple[type, ...]]) -> None:
    for key, kind in parts.items():
        if key not in state:
            raise StateError(f"this state is damaged: {key!r} is missing")
        if not isinstance(state[key], kind):
            found = type(state[key]).__name__
            raise StateError(f"this state is damaged: {key!r} is of type {found}")
