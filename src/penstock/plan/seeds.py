"""One 64-bit seed for each (seed, epoch, sample)."""

from __future__ import annotations

import hashlib
import operator

_MASK = (1 << 64) - 1


def _scramble(value: int) -> int:
    """The output step of SplitMix64: every input bit reaches every output bit.

    Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014.
    """
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def mix_seeds(*parts: int) -> int:
    """Mixes integers into one seed in [0, 2**64); the order of the parts matters."""
    state = 0
    for part in parts:
        state = _scramble((state + 0x9E3779B97F4A7C15 + (part & _MASK)) & _MASK)
    return state


def sample_seed(epoch_seed: int, index: object) -> int:
    """The seed for one sample of an epoch.

    Args:
        epoch_seed: what `mix_seeds(seed, epoch)` gave.
        index: what the sampler asked the dataset for: an int, or any other key
            whose `repr` tells it from the others.
    """
    try:
        number = operator.index(index)  # type: ignore[arg-type]
    except TypeError:
        # `hash()` of a string differs from one process to the next; a digest does not.
        digest = hashlib.blake2b(repr(index).encode(), digest_size=8).digest()
        return mix_seeds(epoch_seed, 1, int.from_bytes(digest, "little"))
    return mix_seeds(epoch_seed, 0, number)
