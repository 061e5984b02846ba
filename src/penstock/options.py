"""Settings, frozen and checked before any work starts."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterable, Sized
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeGuard

from penstock.errors import OptionError, SampleError

OnError: TypeAlias = Literal["raise", "skip"] | Callable[[SampleError], object]
"""What to do about a sample that cannot be made: see `ErrorPolicy`."""

SampleErrorMode: TypeAlias = Literal["raise", "drop", "ask"]
"""What a worker does about a bad sample: fail the batch, leave it out, or ask the scheduler."""

# An epoch of unknown length has no total to take a fraction of: the samples read
# so far stand in for it, and never fewer than this many.
UNKNOWN_LENGTH_FLOOR_SAMPLES = 1000

# So many deaths of workers in one epoch are a crash loop, whatever their cause.
DEFAULT_MAX_RESTARTS = 1000
# What torch makes of `prefetch_factor=None` where there are workers.
DEFAULT_PREFETCH = 2
# What stands for a number of workers that is to be chosen.
AUTO = "auto"
# Less holds no batch: it was meant as a number of megabytes, most likely.
LEAST_MEMORY_BUDGET_BYTES = 1 << 20


@dataclass(frozen=True)
class ErrorPolicy:
    """What happens to a sample that cannot be made, and how often that may happen.

    Args:
        on_error: `"raise"`, `"skip"`, or a callable that gets a `SampleError` and returns
            `"skip"`, `"raise"`, or a sample to put in its place.
        max_skipped: how many samples of an epoch may be skipped: a count (int), or a
            fraction (float in [0, 1]) of the epoch's samples. None sets no limit.

    Raises:
        OptionError: either value is not one of those.
    """

    on_error: OnError = "raise"
    max_skipped: int | float | None = 0.01

    def __post_init__(self) -> None:
        if not callable(self.on_error) and self.on_error not in ("raise", "skip"):
            raise OptionError(
                f"on_error={self.on_error!r}: give 'raise', 'skip', or a function that takes a "
                "SampleError and returns 'skip', 'raise' or a replacement sample"
            )
        limit = self.max_skipped
        if limit is None:
            return
        if isinstance(limit, bool) or not isinstance(limit, numbers.Real):
            raise OptionError(
                f"max_skipped={limit!r}: give a count (int), a fraction of the epoch "
                "(float from 0 to 1), or None for no limit"
            )
        if limit < 0 or (not isinstance(limit, numbers.Integral) and not limit <= 1):
            raise OptionError(
                f"max_skipped={limit!r}: a count is 0 or more and a fraction from 0.0 to 1.0; "
                "write a whole number of samples as an int"
            )

    @property
    def tolerant(self) -> bool:
        """Whether an epoch can go on after a sample error."""
        return self.on_error != "raise"

    def allowed(self, planned: int | None, read: int) -> float:
        """How many samples may be skipped.

        Args:
            planned: samples in the epoch, or None where that is unknown.
            read: samples read so far; only matters where `planned` is None.
        """
        if self.max_skipped is None:
            return float("inf")
        if isinstance(self.max_skipped, numbers.Integral):
            return float(self.max_skipped)
        total = planned if planned is not None else max(read, UNKNOWN_LENGTH_FLOOR_SAMPLES)
        # The product of a fraction may fall a rounding error short of the count that it means.
        return math.floor(self.max_skipped * total + 1e-9)


@dataclass(frozen=True)
class Supervision:
    """What workers may take, and how often one is replaced.

    Args:
        max_restarts: how many workers are replaced in an epoch.
        sample_timeout: seconds that one sample may take; None: any time.
        memory_budget: bytes that batches may take; None: what the machine has left.

    Raises:
        OptionError: a value cannot be used.
    """

    max_restarts: int = DEFAULT_MAX_RESTARTS
    sample_timeout: float | None = None
    memory_budget: int | None = None

    def __post_init__(self) -> None:
        check_count(
            "max_restarts",
            self.max_restarts,
            least=0,
            remedy="give how many workers may be replaced in an epoch, 0 or more: with 0 the first "
            "death is an error, as in torch",
        )
        limit = self.sample_timeout
        if limit is not None and (not is_number(limit) or limit <= 0):
            raise OptionError(
                f"sample_timeout={limit!r}: give seconds that one sample may take, a finite number "
                "above 0, or None for any time"
            )
        if self.memory_budget is not None:
            check_count(
                "memory_budget",
                self.memory_budget,
                least=LEAST_MEMORY_BUDGET_BYTES,
                remedy="give bytes, such as 8 * 2**30, or None for what the machine has left",
            )

    def check_workers(self, name: str, workers: int) -> None:
        """Refuses what only workers can keep to.

        Args:
            name: the argument that says how many there are, for the message.
            workers: its value.
        """
        if workers:
            return
        none = f"and there are none with {name}=0; leave it out, or use workers"
        if self.sample_timeout is not None:
            raise OptionError(
                f"sample_timeout={self.sample_timeout!r} ends the worker of a sample that takes "
                f"longer, {none}"
            )
        if self.memory_budget is not None:
            raise OptionError(
                f"memory_budget={self.memory_budget!r} bounds the memory that is shared with "
                f"workers, {none}"
            )


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a finite real number, and not a truth value."""
    is_real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return is_real and math.isfinite(value)  # type: ignore[arg-type]


def is_slip(answer: object) -> bool:
    """Whether what an `on_error` function returned can only be a slip.

    None is what a function returns that forgets to, and `"Skip"` is hardly a sample.
    """
    if answer is None:
        return True
    return isinstance(answer, str) and answer.strip().lower() in ("skip", "raise")


def check_count(name: str, value: object, *, least: int, remedy: str) -> int:
    """Returns `value` as an int, or raises `OptionError` naming it.

    Args:
        name: the argument's name, for the message.
        value: what the user gave.
        least: the smallest value that makes sense.
        remedy: what to do instead, as the end of a sentence.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise OptionError(f"{name}={value!r}: a whole number is expected, as an int; {remedy}")
    if value < least:
        raise OptionError(f"{name}={value!r} must be at least {least}; {remedy}")
    return int(value)


def check_switch(name: str, value: object) -> bool:
    """Returns `value`, or raises `OptionError` naming it, if it is not True or False."""
    if not isinstance(value, bool):
        raise OptionError(f"{name}={value!r}: give True or False")
    return value


def check_worker_count(name: str, value: object, *, remedy: str) -> int | Literal["auto"]:
    """Returns a number of workers, or "auto".

    Args:
        name: see `check_count`.
        value: see `check_count`.
        remedy: see `check_count`.

    Raises:
        OptionError: it is neither.
    """
    if isinstance(value, str):
        if value == AUTO:
            return "auto"
        raise OptionError(f'{name}={value!r}: give an int, or "auto" to have it chosen; {remedy}')
    return check_count(name, value, least=0, remedy=remedy)


def check_dataset(dataset: object) -> None:
    """Refuses what has no samples, or only seems to have some.

    Raises:
        OptionError: it cannot be loaded.
    """
    if isinstance(dataset, (str, bytes)):
        raise OptionError(
            f"dataset={dataset!r} is a text, whose samples are its letters; for a folder of images "
            "give penstock.datasets.ImageDataset of it"
        )
    if isinstance(dataset, type):
        raise OptionError(
            f"dataset={dataset.__qualname__} is a class; make an instance: {dataset.__qualname__}()"
        )
    if dataset is None or (
        isinstance(dataset, Iterable)
        and not hasattr(dataset, "__getitem__")
        and not hasattr(dataset, "__getitems__")
    ):
        raise OptionError(
            f"dataset={dataset!r:.80} has no samples to ask for: give an object with __getitem__ "
            "and __len__, or a torch.utils.data.IterableDataset"
        )


def check_arguments(
    *,
    dataset: object,
    batch_size: object,
    shuffle: object,
    sampler: object,
    batch_sampler: object,
    num_workers: object,
    prefetch_factor: object,
    timeout: object,
    seed: object,
    collate_fn: object,
    worker_init_fn: object,
) -> None:
    """Checks a loader's arguments before torch does, to name the value and the remedy.

    The messages begin as torch's do, since programs match on them.

    Raises:
        OptionError: one cannot be used.
    """
    check_dataset(dataset)
    for name, value in (("collate_fn", collate_fn), ("worker_init_fn", worker_init_fn)):
        if value is not None and not callable(value):
            raise OptionError(f"{name}={value!r} cannot be called; give a function, or None")
    for name, value in (("sampler", sampler), ("batch_sampler", batch_sampler)):
        if value is not None and not (hasattr(value, "__iter__") or hasattr(value, "__getitem__")):
            raise OptionError(
                f"{name}={value!r} cannot be iterated; give a Sampler or any iterable of indices"
            )
    workers = check_worker_count(
        "num_workers",
        num_workers,
        remedy="num_workers option should be non-negative; use num_workers=0 to disable "
        "multiprocessing.",
    )
    if prefetch_factor is not None:
        if not workers:
            raise OptionError(
                "prefetch_factor option could only be specified in multiprocessing."
                "let num_workers > 0 to enable multiprocessing, otherwise set prefetch_factor to "
                f"None. (prefetch_factor={prefetch_factor!r}, num_workers=0)"
            )
        check_count(
            "prefetch_factor",
            prefetch_factor,
            least=1,
            remedy="prefetch_factor option should be non-negative, and with 0 a worker would "
            "never begin",
        )
    if not is_number(timeout) or timeout < 0:
        raise OptionError(
            f"timeout option should be non-negative: timeout={timeout!r}; give seconds, or 0 to "
            "wait for ever"
        )
    if timeout and not workers:
        raise OptionError(
            f"timeout={timeout!r} bounds the wait for workers, and there are none with "
            "num_workers=0; leave it out, or use workers"
        )
    if batch_sampler is None and batch_size is not None:
        check_count(
            "batch_size",
            batch_size,
            least=1,
            remedy="batch_size should be a positive integer value, but got "
            f"batch_size={batch_size}; None gives single samples",
        )
    if seed is not None:
        check_count("seed", seed, least=0, remedy="give a seed of 0 or more, or None")
    if shuffle and isinstance(dataset, Sized) and not len(dataset):
        raise OptionError(
            "num_samples should be a positive integer value, but got num_samples=0: the dataset "
            f"{type(dataset).__name__} is empty and cannot be shuffled; look at what it reads, or "
            "set shuffle=False"
        )


def length_of(source: object) -> int | None:
    """How many elements something has, if it knows: samples, indices or batches."""
    if not isinstance(source, Sized):
        return None
    try:
        return len(source)
    except (TypeError, NotImplementedError):
        # Loaders and samplers have a __len__ even where there is no length, and say so when it
        # is called.
        return None
