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
        self._address = 0
        self._bit_generator: Any = None

    def seed(self, seed: int) -> None:
        # 32 bits take a sixth of the time that an array of two words takes.
        np.random.seed((seed ^ (seed >> 32)) & 0xFFFFFFFF)

    def mark(self) -> object:
        bit_generator = np.random.mtrand._rand._bit_generator
        if bit_generator is not self._bit_generator:
            self._bit_generator = bit_generator
            known = isinstance(bit_generator, np.random.MT19937)
            self._address = bit_generator.ctypes.state_address if known else 0
        if not self._address or _normal_at is None:
            return repr(np.random.get_state(legacy=False))
        # `struct {uint32 key[624]; int pos;}`, which NumPy hands out for use through ctypes. The
        # position alone would not do: it comes round to the same value.
        words = ctypes.string_at(self._address + 4 * 620, 4 * 5)
        return words, ctypes.string_at(id(np.random.mtrand._rand) + _normal_at, _NORMAL.size)

    def save(self) -> Any:
        return np.random.get_state(legacy=False)

    def restore(self, state: Any) -> None:
        np.random.set_state(state)


class _Torch:
    """torch's default generator of the processor."""

    def seed(self, seed: int) -> None:
        torch.default_generator.manual_seed(seed)

    def mark(self) -> object:
        return torch.default_generator.get_state().numpy().tobytes()

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
        index, *words = (int.from_bytes(saved[at : at + 4], "little") for at in range(0, 20, 4))
        generator.random()
        if (
            saved == repeated
            and index == state[-1]
            and tuple(words) == state[:4]
            and look(generator) != saved
        ):
            shared: Any = random._inst
            address = id(shared) + offset
            # `gauss` makes two numbers and keeps one, which is then had without a draw.
            return lambda: (ctypes.string_at(address, 4 * 5), shared.gauss_next)
    return random.getstate


_python_mark = _choose_python_mark()

_NORMAL = struct.Struct("@id")  # whether one is kept, and the number


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
            self._save()
            self._before = [mark for _, mark, _ in self._saved[len(self._used) :]]
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
        after = [generator.mark() for generator in self._unused]
        again = after != self._before
        if again:
            moved = [mark != before for mark, before in zip(after, self._before, strict=True)]
            self._used += itertools.compress(self._unused, moved)
            self._unused = [
                g for g, has_moved in zip(self._unused, moved, strict=True) if not has_moved
            ]
            self._before = []
        elif self._learning:
            self._note_moves()
            self._learning = False
            used, self._used = self._used, []
            for number, generator in enumerate(used):
                (self._used if number in self._moved else self._unused).append(generator)
        else:
            # The unused ones stand where they stood.
            self._put_back(self._saved[: len(self._used)])
        self.abandon_lease()
        if again:
            self.begin_lease()
        return again

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
        self._moving = True
        if marks == self._marks and len(marks) == len(self._saved):
            return
        self._marks = marks
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
