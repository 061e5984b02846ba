"""A loader's memory of how its epochs began, from which its state is told and taken up again.

An epoch that is resumed is begun as it was begun then: the generators are put back, the seed and
the order are drawn again, and the batches that were handed over are passed by. Nothing is read for
that from a map-style dataset.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import BatchSampler, DistributedSampler

from penstock.checkpoint.epoch_numbers import EpochNumbers, number_of, with_wrapped
from penstock.checkpoint.own_state import has_state, pack, tell_epoch, unpack
from penstock.checkpoint.progress import Progress
from penstock.checkpoint.randomness import RandomSources
from penstock.checkpoint.state import Identity, check_state, make_state
from penstock.errors import StateError
from penstock.plan import SeededShuffle

# What `begin` changes, and `undo` puts back.
_UNDONE = (
    "_loaded",
    "epoch",
    "told",
    "_due",
    "drawn",
    "progress",
    "_origin",
)


class LoaderMemory:
    """What one loader remembers.

    Args:
        dataset: the loader's; its own state is kept between epochs.
        draws: whether the loader draws a seed for each epoch.
        redraws: whether it draws another for each, or one for all.
        streams: how many workers read an iterable dataset; None for a map-style one.
        keeps: whether samplers and datasets are asked for states of their own.

    Attributes:
        progress: how far the epoch under way has come; None before the first.
        epoch: the epoch that is begun next.
        told: the epoch that the loader's `set_epoch` was called with last; None if it was not.
        drawn: the seed that was drawn last, and how many epochs have been derived from it since.
        redraws: see above; a loaded state brings that of the loader that wrote it.
        streams: likewise.
    """

    def __init__(
        self,
        dataset: Any,
        *,
        draws: bool,
        redraws: bool,
        streams: int | None,
        keeps: bool = True,
    ) -> None:
        self._dataset = dataset
        self._draws = draws
        self.progress: Progress | None = None
        self.epoch = 0
        self.told: int | None = None
        self.drawn: tuple[int, int] | None = None
        self.redraws = redraws
        self.streams = streams
        self._keeps = keeps
        self._numbers = EpochNumbers()
        # Whether it goes to the epoch that a sampler was told by others. Behind a loaded state it
        # counts on by itself: a framework may count from 0 again, or an epoch that it was
        # interrupted in as two.
        self._follows = True
        # Whether samplers and dataset are still to be told `told`: not within an epoch, which is
        # theirs too.
        self._due = False
        # The epoch behind the one that begins, and what will have been told then.
        self._after: tuple[int, int | None] | None = None
        self._samplers: list[Any] = []
        self._sampler: Any = None
        self._sources = RandomSources([], None, draws=False)
        self._origin: dict[str, Any] = {}
        # A state that was loaded and is taken up by the next epoch.
        self._loaded: dict[str, Any] | None = None
        # What there was before an epoch was begun, should it come to nothing.
        self._before: dict[str, Any] = {}
        # The program's generators as this loader goes on with them, where the program itself did
        # not put them back; None: as they are.
        self._programs: dict[str, Any] | None = None
        # What they are lent while an epoch begins.
        self._lent: dict[str, Any] = {}

    def look_at(self, samplers: list[Any], generator: torch.Generator | None) -> None:
        """Notes what the order is drawn from, which a program may change at any time.

        Args:
            samplers: what gives the batches, or the order; they, and those that they wrap, may draw
                random numbers, have `state_dict` and `load_state_dict`, or an `epoch` with
                `set_epoch`.
            generator: the loader's, or None.
        """
        self._samplers = with_wrapped(samplers)
        # A batch sampler of another class may have read ahead of what it has given: the state of
        # its sampler would be that of another batch.
        inner = [part.sampler for part in samplers if type(part) is BatchSampler]
        self._sampler = next((part for part in (*samplers, *inner) if has_state(part)), None)
        self._sources = RandomSources(self._samplers, generator, draws=self._draws)

    @property
    def samplers(self) -> list[Any]:
        """What the order is drawn from, and what those wrap; see `look_at`."""
        return self._samplers

    def _next_epoch(self) -> int:
        told = self._numbers.told_by_others(self._samplers) if self._follows else None
        return self.epoch if told is None else told

    # An epoch begins.

    @contextlib.contextmanager
    def begin(self) -> Iterator[Progress]:
        """For the time in which an epoch's seed is drawn; `order` comes next.

        Gives how far the epoch has come already; the batches up to there are to be passed by.
        """
        self.epoch = self._next_epoch()
        if self._due:
            # The one that the loader was told, unless a sampler was told another since.
            self.told = self.epoch
        self._before = {name: getattr(self, name) for name in _UNDONE}
        self._before["_programs"] = None if self._programs is None else dict(self._programs)
        loaded, self._loaded = self._loaded, None
        self._after = None
        if self._due and self.told is not None:
            self._numbers.tell((*self._samplers, self._dataset), self.told)
        self._due = False
        progress = Progress()
        lent = self._programs
        if loaded is not None:
            position = loaded["position"]
            start = loaded if position is None else position["origin"]
            lent = self._go_back(start, loaded)
            if position is not None:
                progress = Progress.from_state(position["progress"])
                self._after = loaded["epoch"], loaded["told"]
                # Whoever counts epochs from 0 in a new process may have told them that since.
                self._restore_numbers(start["sampler"])
                self._programs = self._unless_equal(loaded["random"]["program"])
            else:
                lent = self._programs = self._unless_equal(lent)
        for part in self._samplers:
            if isinstance(part, SeededShuffle):
                part.epoch = self.epoch
        with self._sources.programs_as(lent or {}):
            self._origin = self._now()
            self.progress = progress
            yield progress
        # A state may be of the moment between: without workers, the sampler draws only when it
        # is asked for its first batch, and then from what the program has left.
        late = loaded is not None and loaded["position"] is not None and not progress.started
        self._lent = (self._programs if late else lent) or {}

    @contextlib.contextmanager
    def order(self) -> Iterator[bool]:
        """For the time in which its order is drawn.

        Gives whether the program's generators are lent states for that time, so that all has to
        be drawn in it.
        """
        with self._sources.programs_as(self._lent):
            yield bool(self._lent)
        self._numbers.note(self._samplers)
        if self._after is None:
            self.epoch += 1
            return
        self._due = self._after[1] != self.told
        self.epoch, self.told = self._after

    @contextlib.contextmanager
    def rehearsal(self) -> Iterator[None]:
        """For the time in which the order of the epoch behind this one is drawn, to be forgotten.

        All that it is drawn from is put back afterwards.
        """
        now = self._sources.capture()
        counting = [part for part in self._samplers if self._counts_along(part)]
        numbers = [part.epoch for part in counting]
        programs = now["program"] if self._programs is None else dict(self._programs)
        for part in counting:
            part.epoch = self.epoch
        try:
            with self._sources.programs_as(programs):
                yield
        finally:
            self._sources.restore_own(now)
            for part, number in zip(counting, numbers, strict=True):
                part.epoch = number

    def _counts_along(self, sampler: Any) -> bool:
        """Whether a sampler will be told the loader's epoch, by it or, as before, by others."""
        if isinstance(sampler, SeededShuffle):
            return True
        return isinstance(sampler, DistributedSampler) and sampler.epoch == self.epoch - 1

    def watch(self, ordering: Iterable[Any]) -> Iterable[Any]:
        """The loader's batches, or indices, as its plan is to take them one by one."""
        return self._numbers.watch(ordering, self._samplers)

    def undo(self) -> None:
        """The epoch could not be begun: it is still to be begun, as if nobody had tried."""
        self.__dict__.update(self._before)

    def _go_back(self, start: dict[str, Any], loaded: dict[str, Any]) -> dict[str, Any]:
        self.epoch = start["epoch"]
        self.drawn = None if start["drawn"] is None else tuple(start["drawn"])
        self.redraws = start["redraws"]
        self.streams = start["streams"]
        if start is not loaded:
            self._sources.restore_own(start["random"])
        self._restore_sampler(start["sampler"])
        if start["dataset"] is not None and has_state(self._dataset):
            self._dataset.load_state_dict(copy.deepcopy(start["dataset"]))
        return dict(start["random"]["program"])

    def _unless_equal(self, programs: dict[str, Any]) -> dict[str, Any] | None:
        # A program that has put its generators back itself goes on drawing from them.
        return None if programs == self._sources.capture_programs() else dict(programs)

    @property
    def sampler_snapshot(self) -> Callable[[], Any] | None:
        """Tells the state of a sampler that can tell it."""
        sampler = self._sampler
        return (lambda: pack(sampler.state_dict())) if self._keeps and has_state(sampler) else None

    def resume_sampler(self) -> int:
        """Puts a sampler that has a state of its own back to the batch that it kept one for last.

        Returns:
            That batch's number and one: what is behind it is still to be passed by.
        """
        progress = self.progress
        if progress is None or progress.sampler is None:
            return 0
        self._restore_sampler({"state": unpack(progress.sampler)})
        return progress.sampler_at

    # Its state.

    def state(self, identity: Identity, quarantine: list[dict[str, Any]]) -> dict[str, Any]:
        """The state of the loader, as it is now.

        Args:
            identity: what it can be loaded into.
            quarantine: the samples that are not made any more.
        """
        if self._loaded is not None:
            return {**copy.deepcopy(self._loaded), "quarantine": quarantine}
        now = self._now()
        position = None
        if self.progress is not None and not self.progress.finished:
            position = {"origin": self._origin, "progress": self.progress.to_state()}
        # Some tell samplers only when the epoch has begun that they mean.
        if position is None or self._next_epoch() != self._origin["epoch"]:
            now["epoch"] = self._next_epoch()
        if self._programs is not None:
            now["random"]["program"] = self._programs
        return copy.deepcopy(make_state(identity, **now, position=position, quarantine=quarantine))

    def load(self, state: object, identity: Identity) -> list[Any]:
        """Has the next epoch take up a state.

        Returns:
            What was told an epoch here, was not in the program that wrote the state, and does not
            show what it had before: it keeps its number.

        Raises:
            StateError: it cannot; nothing is changed then.
        """
        checked = check_state(state, identity)
        reason = self._sources.mismatch(checked["random"])
        if reason is not None:
            raise StateError(f"this state does not fit: {reason}")
        self._loaded = copy.deepcopy(checked)
        # Now, and not when the epoch begins: another loader may share a generator, and draw from
        # it until then.
        self._sources.restore_own(checked["random"])
        position = checked["position"]
        start = checked if position is None else position["origin"]
        self.epoch = start["epoch"]
        self._follows = False
        kept = self._tell(start["told"])
        self._restore_numbers(start["sampler"])
        self._numbers.note(self._samplers)
        return kept

    @property
    def has_loaded(self) -> bool:
        """Whether a state was loaded that no epoch has taken up yet."""
        return self._loaded is not None

    def copied(self) -> dict[str, Any]:
        """What a copy of the loader has of this; `take_over` reads it."""
        return {
            "epoch": self.epoch,
            "told": self.told,
            "_loaded": copy.deepcopy(self._loaded),
            "_numbers": self._numbers.copied(),
            "_follows": self._follows,
            "_due": self._due,
        }

    def take_over(self, copied: dict[str, Any]) -> None:
        """Begins where the original was."""
        self.__dict__.update(copied)

    def choose(self, epoch: int) -> int | None:
        """Has the next epoch be this one.

        Returns:
            The epoch in the middle of which a loaded state is, if it is another: its place in
            that epoch is given up.
        """
        left: int | None = None
        if self._loaded is not None:
            left = self._choose_of_loaded(self._loaded, epoch)
        self.epoch = epoch
        self._follows = True
        under_way = self.progress is not None and not self.progress.finished
        if under_way and self._loaded is None:
            self.told, self._due = epoch, True
            # Of several that were told a number, the last counts.
            self._numbers.note(self._samplers)
        else:
            self._tell(epoch)
        return left

    def _choose_of_loaded(self, loaded: dict[str, Any], epoch: int) -> int | None:
        origin = None if loaded["position"] is None else loaded["position"]["origin"]
        if origin is not None and origin["epoch"] == epoch:
            # It goes on within that epoch.
            loaded.update(epoch=epoch + 1, told=epoch)
            origin["told"] = epoch
            start, left = origin, None
        else:
            loaded.update(position=None, epoch=epoch, told=epoch)
            start, left = loaded, None if origin is None else int(origin["epoch"])
        start["sampler"]["epochs"] = [epoch] * len(start["sampler"]["epochs"])
        return left

    def _tell(self, number: int | None) -> list[Any]:
        """Has samplers and dataset be told this number and no other; see `load`."""
        self.told, self._due = number, False
        parts = (*self._samplers, self._dataset)
        kept: list[Any] = []
        if number is None:
            kept = self._numbers.take_back(parts)
        else:
            self._numbers.tell(parts, number)
        self._numbers.note(self._samplers)
        return kept

    def _now(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "told": self.told,
            "drawn": None if self.drawn is None else list(self.drawn),
            "redraws": self.redraws,
            "streams": self.streams,
            "random": self._sources.capture(),
            "sampler": self._capture_sampler(),
            "dataset": self._capture_dataset(),
        }

    def _capture_dataset(self) -> Any:
        if not self._keeps or not has_state(self._dataset):
            return None
        # Some can tell only while they are iterated: then there is nothing to keep in between.
        with contextlib.suppress(Exception):
            return copy.deepcopy(self._dataset.state_dict())
        return None

    def _capture_sampler(self) -> dict[str, Any]:
        sampler = self._sampler
        numbers = [number_of(part) for part in self._numbered()]
        kept: dict[str, Any] = {"epochs": [self.told] * len(numbers) if self._due else numbers}
        if self._keeps and has_state(sampler):
            kept["state"] = copy.deepcopy(sampler.state_dict())
        return kept

    def _restore_sampler(self, kept: dict[str, Any]) -> None:
        if "state" in kept and has_state(self._sampler):
            self._sampler.load_state_dict(copy.deepcopy(kept["state"]))

    def _restore_numbers(self, kept: dict[str, Any]) -> None:
        numbered = self._numbered()
        if len(numbered) == len(kept["epochs"]):
            for part, number in zip(numbered, kept["epochs"], strict=True):
                tell_epoch(part, number)

    def _numbered(self) -> list[Any]:
        """The samplers that show an epoch, but for one that has it in its own state."""
        stateful = self._sampler if self._keeps and has_state(self._sampler) else None
        return [
            part for part in self._samplers if part is not stateful and number_of(part) is not None
        ]
