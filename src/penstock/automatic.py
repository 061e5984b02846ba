"""What `num_workers="auto"` comes to: how many workers an epoch has, and why.

    processors ──> first epoch ──> what it cost, and how long the loop waited ──> next epoch ──> …

Only between two epochs, so that nothing is made in workers and in the training process at once. And
only where the dataset keeps no file open: opened in this process, it would be shared, with its
position, by all workers that are forked behind that.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from typing import Any

from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import IterableDataset, default_collate

from penstock.checkpoint import LoaderMemory, has_state
from penstock.collate import programs_functions
from penstock.engines.processors import processors_of_rank
from penstock.foresight import draws_to_its_end, is_known
from penstock.observe import Statistics

_log = logging.getLogger("penstock")

# Of fewer batches nothing is concluded.
_LEAST_BATCHES = 8
# Without workers the loop would wait for as long as a batch takes to make. What it takes a worker
# is more than that: 1.3 to 3 times as much where workers and loop share two processors.
_OF_A_WORKERS_TIME = 0.75
# A loop that waits for less of its time than this has as many workers as it needs.
_LITTLE = 0.02
# Workers kept for each one that is busy on average.
_SPARE = 2


@dataclass(frozen=True)
class Choice:
    """How many workers a loader has, and why.

    Attributes:
        workers: worker processes; 0: the training process makes the batches.
        reason: why, in words.
        most: workers that there may be.
        least: workers that there have to be.
        is_final: whether it stays so.
    """

    workers: int
    reason: str
    most: int
    least: int = 0
    is_final: bool = False

    def __str__(self) -> str:
        """`2 workers, since …`."""
        if not self.workers:
            return f"no workers, since {self.reason}"
        return f"{self.workers} worker{'' if self.workers == 1 else 's'}, since {self.reason}"

    def reviewed(self, seen: Statistics, *, persistent: bool) -> Choice:
        """Return the choice for the next epoch.

        Args:
            seen: what the last epoch cost; one that was broken off counts as far as it came.
            persistent: whether workers live on between epochs, so that the next need not wait for
                them to start.
        """
        if seen.deaths and not self.least:
            # What ends workers is not to end the training process.
            return replace(self, least=1).reviewed(seen, persistent=persistent)
        if self.is_final or seen.batches < _LEAST_BATCHES or seen.workers != self.workers:
            return self
        start_s = seen.first_wait_s if persistent else 0.0
        waited_s, looped_s = seen.waited_s - start_s, seen.looped_s - start_s
        here_s = _OF_A_WORKERS_TIME * seen.busy_s
        if waited_s > here_s and not self.least:
            reason = (
                f"the loop waited {_per_batch(waited_s, seen)} for a batch that would take the "
                f"training process about {_per_batch(here_s, seen)}"
            )
            return replace(self, workers=0, reason=reason, is_final=True)
        if waited_s > _LITTLE * looped_s:
            if self.workers == self.most:
                return self
            share = waited_s / looped_s
            reason = f"with {self.workers} the loop waited for {share:.0%} of its time"
            return replace(self, workers=self.most, reason=reason, is_final=True)
        busy = seen.busy_s / looped_s if looped_s > 0 else 0.0
        needed = max(1, math.ceil(_SPARE * busy))
        if needed >= self.workers:
            return self
        reason = f"{busy:.1f} of {self.workers} were busy on average, and the loop did not wait"
        return replace(self, workers=needed, reason=reason)


def first_choice(loader: TorchDataLoader[Any]) -> Choice:
    """Return how many workers a loader begins with."""
    if isinstance(loader.dataset, IterableDataset):
        why = "what an iterable dataset gives depends on their number, which is yours to say"
        choice = Choice(1, why, 1, is_final=True)
    else:
        count, why = processors_of_rank()
        choice = Choice(count, why, count)
    _log.info('num_workers="auto": %s', choice)
    return choice


def next_choice(
    loader: TorchDataLoader[Any],
    choice: Choice,
    seen: Statistics,
    *,
    memory: LoaderMemory,
    opened: bool,
    harmful: bool,
) -> Choice:
    """Return how many workers the next epoch of a loader has.

    Args:
        loader: with its attributes as they are now.
        choice: for the epoch before.
        seen: what that has cost.
        memory: the loader's.
        opened: whether files or sockets were open in workers.
        harmful: whether samples are known that end who makes them.
    """
    if harmful:
        choice = replace(choice, least=1)
    bound = _bound_by(loader, memory)
    if opened and bound is None:
        # Opened here, they would be shared with workers that other loaders of the dataset fork.
        bound = "files that the dataset keeps open"
    if bound is None:
        following = choice.reviewed(seen, persistent=loader.persistent_workers)
    elif choice.workers and not choice.is_final:
        reason = f"{choice.reason}; it stays so for {bound}"
        following = replace(choice, reason=reason, is_final=True)
    else:
        following = choice
    if following != choice:
        _log.info('num_workers="auto": %s', following)
    return following


def _bound_by(loader: Any, memory: LoaderMemory) -> str | None:
    """What only workers can keep to, or might not be the same with others, or none."""
    bounds = {
        "worker_init_fn": loader.worker_init_fn,
        "timeout": loader.timeout,
        "sample_timeout": loader.sample_timeout,
        "memory_budget": loader.memory_budget,
        # What these return may be the dataset's own, for the loop to change.
        "batch_size=None": loader.batch_sampler is None,
        "collate_fn": loader.collate_fn is not default_collate,
        "default_collate_fn_map": programs_functions(),
        # Workers have the order asked for ahead. A loop that breaks off finds a generator that it
        # is drawn from elsewhere, and a sampler may look at the loop.
        "generator": draws_to_its_end(memory),
        "a sampler of your own": not all(map(is_known, memory.samplers)),
        "the dataset's own state, of which each worker has one": has_state(loader.dataset),
    }
    return next((name for name, binds in bounds.items() if binds), None)


def _per_batch(total_s: float, seen: Statistics) -> str:
    return f"{total_s / seen.batches * 1e3:.3g} ms"
