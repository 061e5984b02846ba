"""The same random numbers for a sample wherever, and however often, it is made.

Python's, NumPy's and torch's global generators are seeded for each sample, and that would cost
more than many a sample does (about 7 µs, and 0.1 µs is what a list gives one in). Most datasets
draw no random numbers, though, or from one generator only. So a generator is seeded only if the
dataset has been seen to use it. Whether it did shows in the generator's state: a lease after
which a generator moved that was thought unused is done once more, now with that generator seeded.
"""

from __future__ import annotations

import ctypes
import itertools
import random
import struct
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data._utils import worker as torch_worker

from penstock.plan import sample_seed

# Five 32-bit words of a generator's memory.
_Words = ctypes.c_char * 20


class _Generator(Protocol):
    def seed(self, seed: int) -> None:
        """Starts the sequence of a 64-bit seed."""

    def mark(self) -> object:
        """Something that is equal before and after only if no number was drawn."""

    def save(self) -> Any:
        """The whole state, for `restore`."""

    def restore(self, state: Any) -> None:
        """Puts a saved state back."""


class _Python:
    """The functions of `random`."""

    def seed(self, seed: int) -> None:
        random.seed(seed)

    def mark(self) -> object:
        return _python_mark()

    def save(self) -> Any:
        return random.getstate()

    def restore(self, state: Any) -> None:
        random.setstate(state)


class _NumPy:
    """The functions of `numpy.random`."""

    def __init__(self) -> None:
        self._state: Any = None
        self._bit_generator: Any = None
        self._normal: Any = None
        self._words: Any = None

    def seed(self, seed: int) -> None:
        # 32 bits take a sixth of the time that an array of two words takes.
        np.random.seed((seed ^ (seed >> 32)) & 0xFFFFFFFF)

    def mark(self) -> object:
        state = np.random.mtrand._rand
        if state is not self._state or state._bit_generator is not self._bit_generator:
            self._look_at(state)
        if self._words is None:
            return repr(np.random.get_state(legacy=False))
        return self._words.raw, self._normal.raw

    def _look_at(self, state: Any) -> None:
        """Finds where the numbers are that show whether one was drawn."""
        self._state, self._bit_generator = state, state._bit_generator
        self._words = None
        if isinstance(self._bit_generator, np.random.MT19937) and _normal_at is not None:
            # `struct {uint32 key[624]; int pos;}`, which NumPy hands out for use through ctypes.
            # The position alone would not do: it comes round to the same value.
            address = self._bit_generator.ctypes.state_address
            self._words = _Words.from_address(address + 4 * 620)
            self._normal = _Normal.from_address(id(state) + _normal_at)

    def save(self) -> Any:
        return np.random.get_state(legacy=False)

    def restore(self, state: Any) -> None:
        np.random.set_state(state)


class _Torch:
    """torch's default generator of the processor."""

    def seed(self, seed: int) -> None:
        torch.default_generator.manual_seed(seed)

    def mark(self) -> object:
        state = torch.default_generator.get_state()
        # In two thirds of the time that `numpy().tobytes()` takes.
        return ctypes.string_at(state.data_ptr(), state.nbytes)

    def save(self) -> Any:
        return torch.default_generator.get_state()

    def restore(self, state: Any) -> None:
        torch.default_generator.set_state(state)


def _choose_python_mark() -> Callable[[], object]:
    """A quick look at the state of `random`, where the interpreter's layout allows one.

    `random.getstate()` builds a tuple of 625 ints, 7 µs. CPython keeps `int index; uint32
    state[624]` behind the object's head; whether that is so here is tried out, not assumed.
    """
    generator = random.Random(1)
    offset = object.__basicsize__

    def look(generator: random.Random) -> bytes:
        return _Words.from_address(id(generator) + offset).raw

    if random.Random.__module__ == "random" and type(generator).__basicsize__ >= 4 * 625 + offset:
        saved = look(generator)
        repeated = look(generator)
        state = generator.getstate()[1]
        index, *first = (int.from_bytes(saved[at : at + 4], "little") for at in range(0, 20, 4))
        generator.random()
        if (
            saved == repeated
            and index == state[-1]
            and tuple(first) == state[:4]
            and look(generator) != saved
        ):
            shared: Any = random._inst
            words = _Words.from_address(id(shared) + offset)
            # `gauss` makes two numbers and keeps one, which is then had without a draw.
            return lambda: (words.raw, shared.gauss_next)
    return random.getstate


_python_mark = _choose_python_mark()

_NORMAL = struct.Struct("@id")  # whether one is kept, and the number
_Normal = ctypes.c_char * _NORMAL.size


def _find_numpy_normal() -> int | None:
    """Where a `RandomState` keeps the second of two normal numbers, if that shows in a trial.

    It is made together with the first, and had later without a draw. The public way to look at
    it, `get_state`, takes 47 µs.
    """
    trial = np.random.RandomState(1)
    trial.standard_normal()
    kept = _NORMAL.pack(1, trial.get_state(legacy=False)["gauss"])

    def memory() -> bytes:
        return ctypes.string_at(id(trial), type(trial).__basicsize__)

    at = memory().find(kept)
    trial.standard_normal()
    return at if at >= 0 and memory().find(kept) < 0 else None


_normal_at = _find_numpy_normal()


def seed_process(seed: int, worker: int) -> None:
    """Seeds the global generators for a worker, each worker differently, as torch documents it.

    Args:
        seed: what torch calls the base seed.
        worker: its number.
    """
    random.seed(seed + worker)
    torch.manual_seed(seed + worker)
    # In the way torch does it, though it is not documented: with `worker_init_fn`, runs that were
    # made with torch's loader are reproduced.
    np.random.seed(torch_worker._generate_state(seed, worker))  # type: ignore[no-untyped-call]


class ProcessRandomness:
    """The states of the process's generators, for those who take turns in it."""

    def __init__(self) -> None:
        self._generators: list[_Generator] = [_Python(), _NumPy(), _Torch()]

    def save(self) -> list[Any]:
        """The states, for `restore`."""
        return [generator.save() for generator in self._generators]

    def restore(self, states: list[Any]) -> None:
        """Puts saved states back."""
        for generator, state in zip(self._generators, states, strict=True):
            generator.restore(state)


class SampleRandomness:
    """Seeds the generators that a dataset uses, and finds out which those are.

    One for each worker, for its life. For a lease::

        randomness.begin_lease()
        again = True
        while again:
            for each sample: randomness.begin_sample(index); make it
            again = randomness.end_lease()

    Args:
        restoring: whether the generators are put back after each lease as they were:
            in the training process, whose own random numbers must not change.
    """

    def __init__(self, *, restoring: bool) -> None:
        self._restoring = restoring
        # All are taken for used, until a first lease has shown which are.
        self._used: list[_Generator] = [_Python(), _NumPy(), _Torch()]
        self._unused: list[_Generator] = []
        self._learning = True
        self._moved: set[int] = set()
        self._fresh: list[object] = []
        self._before: list[object] = []
        self._saved: list[tuple[_Generator, object, Any]] = []
        self._marks: list[object] = []
        # What gives those marks anew; nothing, where other generators are used now.
        self._looks: list[Callable[[], object]] = []
        self._moving = False
        self._epoch_seed = 0

    def begin_epoch(self, seed: int) -> None:
        """From now on samples are of the epoch with this seed."""
        self._epoch_seed = seed

    @property
    def seeding(self) -> bool:
        """Whether `begin_sample` has anything to do."""
        return bool(self._used)

    def begin_lease(self) -> None:
        """A lease begins."""
        if self._restoring:
            if not self._looks or [look() for look in self._looks] != self._marks:
                self._save()
            self._moving = True
            self._before = self._marks[len(self._used) :]
        elif len(self._before) != len(self._unused):
            # In a worker nobody draws between leases: the marks of the last one still hold.
            self._before = [generator.mark() for generator in self._unused]
        self._fresh = []

    def begin_sample(self, index: object) -> None:
        """The sample of this index is made next."""
        if self._learning:
            self._note_moves()
        seed = sample_seed(self._epoch_seed, index)
        for generator in self._used:
            generator.seed(seed)
        if self._learning:
            self._fresh = [generator.mark() for generator in self._used]

    def end_lease(self) -> bool:
        """A lease ends; returns whether it has to be done again, its random numbers being wrong."""
        if not self._used and self._looks and [look() for look in self._looks] == self._before:
            # Nearly every dataset draws no random numbers.
            self._moving = False
            return False
        after = [generator.mark() for generator in self._unused]
        again = after != self._before
        if again:
            moved = [mark != before for mark, before in zip(after, self._before, strict=True)]
            self._use([*self._used, *itertools.compress(self._unused, moved)])
            self._before = []
        elif self._learning:
            self._note_moves()
            self._learning = False
            self._use([self._used[number] for number in sorted(self._moved)])
        else:
            # The unused ones stand where they stood.
            self._put_back(self._saved[: len(self._used)])
        self.abandon_lease()
        if again:
            self.begin_lease()
        return again

    def _use(self, generators: list[_Generator]) -> None:
        """From now on the dataset is known to draw from these, and from no others."""
        known = [*self._used, *self._unused]
        self._used = generators
        self._unused = [generator for generator in known if generator not in generators]
        # What was looked at was in another order.
        self._looks = []

    def abandon_lease(self) -> None:
        """A lease has come to nothing: puts back what it moved."""
        if self._moving:
            self._put_back(self._saved)

    def _put_back(self, saved: list[tuple[_Generator, object, Any]]) -> None:
        for generator, mark, state in saved:
            if generator.mark() != mark:
                generator.restore(state)
        self._moving = False

    def _save(self) -> None:
        # All of them, since one thought unused may turn out otherwise. A whole state costs up to
        # 47 µs, so the last one is kept as long as the program itself draws nothing.
        generators = (*self._used, *self._unused)
        marks = [generator.mark() for generator in generators]
        self._marks = marks
        self._looks = [generator.mark for generator in generators]
        known = {generator: (mark, state) for generator, mark, state in self._saved}
        self._saved = []
        for generator, mark in zip(generators, marks, strict=True):
            old_mark, state = known.get(generator, (None, None))
            if mark != old_mark:
                state = generator.save()
            self._saved.append((generator, mark, state))

    def _note_moves(self) -> None:
        for number, fresh in enumerate(self._fresh):
            if self._used[number].mark() != fresh:
                self._moved.add(number)
