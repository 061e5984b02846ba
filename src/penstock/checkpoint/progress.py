"""What of an epoch the training loop has been given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from penstock.checkpoint.own_state import pack, unpack


@dataclass(slots=True)
class StreamMark:
    """Where a stream stands behind one of its batches.

    Attributes:
        stream: its number.
        pulled: samples taken from it so far, bad ones among them.
        ended: whether it has no more.
        snapshot: what the dataset's own `state_dict` returned at this place, packed, or None.
    """

    stream: int
    pulled: int
    ended: bool = False
    snapshot: bytes | None = None


@dataclass(slots=True)
class Mark:
    """What one batch adds to the progress of its epoch.

    Attributes:
        batch: its number in the plan.
        skipped: samples that were left out of it.
        read: samples in it, and those left out.
        donated: places in the order whose samples it took for those that were skipped.
        stream: where its stream stands, if it is of one.
        sampler: what the sampler's own `state_dict` returned behind it, packed, or None.
        copy: whose copy of a map-style dataset made it, and what its `state_dict` returned then,
            packed.
    """

    batch: int
    skipped: int = 0
    read: int = 0
    donated: Sequence[int] = ()
    stream: StreamMark | None = None
    sampler: bytes | None = None
    copy: tuple[int, bytes] | None = None


@dataclass(slots=True)
class StreamProgress:
    """How far a stream was handed over.

    Attributes:
        pulled: samples taken from it.
        ended: whether it has no more.
        snapshot: the last state of its dataset that was kept, or None.
        snapshot_at: samples that had been taken from it then.
    """

    pulled: int = 0
    ended: bool = False
    snapshot: bytes | None = None
    snapshot_at: int = 0


@dataclass(slots=True)
class Progress:
    """What the training loop has been given of an epoch.

    Attributes:
        passed: batches 0 to `passed - 1` were handed over, or turned out to hold nothing.
        beyond: batches behind those, out of order, of which the same is true.
        started: whether the sampler was asked for a batch.
        finished: whether the loop was told that there are no more.
        skipped: samples that were left out.
        read: samples that were handed over or left out.
        donated: places in the epoch's order whose samples filled skipped places.
        streams: how far each stream came, for an iterable dataset.
        turn: the stream whose turn is next.
        sampler: the last state of the sampler that was kept, or None.
        sampler_at: the batch behind that state.
        copies: the last states of the workers' copies of a map-style dataset, by seat; a list,
            since JSON has no numbers for keys.
    """

    passed: int = 0
    beyond: set[int] = field(default_factory=set)
    started: bool = False
    finished: bool = False
    skipped: int = 0
    read: int = 0
    donated: list[int] = field(default_factory=list)
    streams: list[StreamProgress] = field(default_factory=list)
    turn: int = 0
    sampler: bytes | None = None
    sampler_at: int = 0
    copies: list[Any] = field(default_factory=list)
    # Of batches behind one that is still to come.
    _samplers: dict[int, Any] = field(default_factory=dict)

    def add(self, marks: Iterable[Mark]) -> None:
        """These have been handed over."""
        for mark in marks:
            if mark.batch == self.passed and mark.sampler is None and not self.beyond:
                # As nearly always.
                self.passed += 1
            else:
                self._pass(mark)
            self.skipped += mark.skipped
            self.read += mark.read
            self.donated += mark.donated
            if mark.stream is not None:
                self._move(mark.stream)
            if mark.copy is not None:
                seat, state = mark.copy
                self.copies += [None] * (seat + 1 - len(self.copies))
                self.copies[seat] = state

    def _pass(self, mark: Mark) -> None:
        if mark.sampler is not None:
            self._samplers[mark.batch] = mark.sampler
        self.beyond.add(mark.batch)
        while self.passed in self.beyond:
            self.beyond.remove(self.passed)
            if self.passed in self._samplers:
                self.sampler = self._samplers.pop(self.passed)
                self.sampler_at = self.passed + 1
            self.passed += 1

    def _move(self, mark: StreamMark) -> None:
        stream = self.streams[mark.stream]
        stream.pulled = mark.pulled
        stream.ended = stream.ended or mark.ended
        if mark.snapshot is not None:
            stream.snapshot, stream.snapshot_at = mark.snapshot, mark.pulled
        self.turn = (mark.stream + 1) % len(self.streams)

    def to_state(self) -> dict[str, Any]:
        """As plain data, but for what datasets and samplers returned; `from_state` reads it."""
        state = _shallow(self)
        state["beyond"] = sorted(self.beyond)
        state["donated"] = list(self.donated)
        state["streams"] = [
            {**_shallow(each), "snapshot": unpack(each.snapshot)} for each in self.streams
        ]
        state["sampler"] = unpack(self.sampler)
        state["copies"] = [unpack(each) for each in self.copies]
        return state

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Progress:
        """What `to_state` was called on."""
        streams = [
            StreamProgress(**{**each, "snapshot": _packed(each["snapshot"])})
            for each in state["streams"]
        ]
        return cls(
            **{
                **state,
                "beyond": set(state["beyond"]),
                "donated": list(state["donated"]),
                "streams": streams,
                "sampler": _packed(state["sampler"]),
                "copies": [_packed(each) for each in state["copies"]],
            }
        )


def _shallow(thing: Progress | StreamProgress) -> dict[str, Any]:
    """Its fields as they are: `asdict` would take the users' own objects apart."""
    names = [field.name for field in fields(thing)]
    return {name: getattr(thing, name) for name in names if not name.startswith("_")}


def _packed(state: Any) -> bytes | None:
    return None if state is None else pack(state)
