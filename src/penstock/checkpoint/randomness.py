"""The generators that the order of an epoch is drawn from: their states, kept and put back.

An order is not saved, it is drawn again: from the states that its generators had when the epoch
began. Generators that were given to a loader or its samplers are put back for good. The program's
own (torch's default one, and where a sampler of the user's may draw from them, Python's and
NumPy's) are put back only while the loader draws: what the program draws itself is its business.
"""

from __future__ import annotations

import base64
import contextlib
import random
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import (
    BatchSampler,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from penstock.plan import SeededShuffle

# What these draw from is known: a generator of their own, or torch's default one; or nothing.
_DRAW_FROM_TORCH = frozenset({RandomSampler, SubsetRandomSampler, WeightedRandomSampler})
_DRAW_NOTHING = frozenset({SequentialSampler, DistributedSampler, SeededShuffle})

State = dict[str, Any]


class RandomSources:
    """The generators that a loader and its samplers draw from.

    Args:
        samplers: the loader's sampler and batch sampler; those that they hold are found.
        generator: the loader's; None where it draws from torch's default generator.
        draws: whether the loader draws a seed for each epoch itself.
    """

    def __init__(
        self, samplers: Iterable[object], generator: torch.Generator | None, *, draws: bool
    ) -> None:
        own: dict[int, torch.Generator] = {}
        self._globals: list[str] = []
        if generator is not None:
            own[id(generator)] = generator
        needs_torch = draws and generator is None
        needs_all = False
        for sampler in _with_inner(samplers):
            found = [v for v in _attributes(sampler) if isinstance(v, torch.Generator)]
            own.update((id(value), value) for value in found)
            kind = type(sampler)
            if kind in _DRAW_FROM_TORCH:
                needs_torch |= not found
            elif kind not in _DRAW_NOTHING and kind is not BatchSampler:
                needs_all = True
        self._own = list(own.values())
        if needs_torch or needs_all:
            self._globals.append("torch")
        if needs_all:
            self._globals += ["python", "numpy"]

    def capture(self) -> State:
        """The states of all of them now, as plain data."""
        return {
            "own": [_encode(generator.get_state()) for generator in self._own],
            "program": self.capture_programs(),
        }

    def capture_programs(self) -> State:
        """The states of those that the program draws from as well."""
        return {name: _GLOBALS[name][0]() for name in self._globals}

    def mismatch(self, state: State) -> str | None:
        """Why a captured state cannot be of these generators; None if it may."""
        if len(state["own"]) == len(self._own):
            return None
        return (
            f"it holds the states of {len(state['own'])} generators, and this loader and its "
            f"samplers draw from {len(self._own)}; give generator=, or leave it out, as it was then"
        )

    def restore_own(self, state: State) -> None:
        """Puts those that belong to the loader or a sampler back as they were."""
        for generator, saved in zip(self._own, state["own"], strict=True):
            generator.set_state(_decode(saved))

    @contextlib.contextmanager
    def programs_as(self, states: State) -> Iterator[None]:
        """Lends the program's generators these states; `states` keeps up with what is drawn."""
        kept = {name: _GLOBALS[name][0]() for name in states}
        for name, state in states.items():
            _GLOBALS[name][1](state)
        try:
            yield
        finally:
            for name in states:
                states[name] = _GLOBALS[name][0]()
                _GLOBALS[name][1](kept[name])


def _with_inner(samplers: Iterable[object]) -> Iterator[object]:
    """Samplers, and the samplers that they wrap."""
    waiting, seen = [sampler for sampler in samplers if sampler is not None], set[int]()
    while waiting:
        sampler = waiting.pop(0)
        if id(sampler) in seen:
            continue
        seen.add(id(sampler))
        yield sampler
        waiting += [
            inner
            for inner in _attributes(sampler)
            # Not the dataset, nor a tensor of weights, which samplers hold as well.
            if hasattr(type(inner), "__iter__")
            and hasattr(inner, "__dict__")
            and not hasattr(type(inner), "__getitem__")
        ]


def _attributes(thing: object) -> list[object]:
    return list(getattr(thing, "__dict__", {}).values())


def _encode(state: torch.Tensor) -> str:
    return base64.b64encode(state.numpy().tobytes()).decode()


def _decode(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)


def _save_python() -> list[Any]:
    version, words, gauss = random.getstate()
    packed = np.array(words, np.uint32).tobytes()
    return [version, base64.b64encode(packed).decode(), gauss]


def _restore_python(saved: list[Any]) -> None:
    version, packed, gauss = saved
    words = np.frombuffer(base64.b64decode(packed), np.uint32)
    random.setstate((version, tuple(words.tolist()), gauss))


def _save_numpy() -> list[Any]:
    name, keys, *rest = np.random.get_state(legacy=True)
    return [str(name), base64.b64encode(np.asarray(keys).tobytes()).decode(), *map(_plain, rest)]


def _restore_numpy(saved: list[Any]) -> None:
    name, packed, *rest = saved
    np.random.set_state((name, np.frombuffer(base64.b64decode(packed), np.uint32), *rest))


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


_GLOBALS: dict[str, tuple[Any, Any]] = {
    "torch": (
        lambda: _encode(torch.default_generator.get_state()),
        lambda saved: torch.default_generator.set_state(_decode(saved)),
    ),
    "python": (_save_python, _restore_python),
    "numpy": (_save_numpy, _restore_numpy),
}
