"""Penstock gets data to a PyTorch model: concurrently, exactly once, and in the same order always.

How it is layered, each line resting on those below it:

    cli                         the command line
    takeover                    torch's loader run by penstock, for programs that stay as they are
    loader, pool, combine       the front doors: DataLoader, iterate, concurrent
    integrations                what other libraries need to know of a loader
    beginning                   an epoch's seed, plan and job, from a loader's settings
    workers, persistent         the engine of a loader's epochs · one iterator for all of them
    pinning                     batches copied to page-locked memory
    epoch                       one epoch: the scheduler decides, an engine does it
    engines                     where samples are made: in this process, in workers
    transport  collate  datasets  checkpoint    bytes between processes · samples to batch · what
                                can be read · how far an epoch has come
    plan  schedule  observe     which sample goes where · who does what, when · counts and times
    options                     checked settings
    errors                      the tree of exceptions
    certificate                 what is known of a worker that died

Importing this package imports nothing else; each name below is fetched when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock import datasets
    from penstock.certificate import DeathCertificate
    from penstock.combine import concurrent
    from penstock.engines.launch import warm_up
    from penstock.errors import (
        BatchTimeoutError,
        MemoryBudgetError,
        OptionError,
        PenstockError,
        SampleError,
        SampleKilledWorker,
        SampleTimeout,
        StateError,
        TooManySkippedError,
        WorkerDiedError,
    )
    from penstock.loader import DataLoader
    from penstock.observe import Statistics
    from penstock.pool import Sample, iterate
    from penstock.takeover import install, uninstall
    from penstock.transport.shared_sequence import SharedSequence

__version__ = "0.1.0"

_HOMES = {
    "BatchTimeoutError": "penstock.errors",
    "DataLoader": "penstock.loader",
    "DeathCertificate": "penstock.certificate",
    "MemoryBudgetError": "penstock.errors",
    "OptionError": "penstock.errors",
    "PenstockError": "penstock.errors",
    "Sample": "penstock.pool",
    "SampleError": "penstock.errors",
    "SampleKilledWorker": "penstock.errors",
    "SampleTimeout": "penstock.errors",
    "SharedSequence": "penstock.transport.shared_sequence",
    "StateError": "penstock.errors",
    "Statistics": "penstock.observe",
    "TooManySkippedError": "penstock.errors",
    "WorkerDiedError": "penstock.errors",
    "concurrent": "penstock.combine",
    "datasets": "penstock.datasets",
    "install": "penstock.takeover",
    "iterate": "penstock.pool",
    "uninstall": "penstock.takeover",
    "warm_up": "penstock.engines.launch",
}

__all__ = [
    "BatchTimeoutError",
    "DataLoader",
    "DeathCertificate",
    "MemoryBudgetError",
    "OptionError",
    "PenstockError",
    "Sample",
    "SampleError",
    "SampleKilledWorker",
    "SampleTimeout",
    "SharedSequence",
    "StateError",
    "Statistics",
    "TooManySkippedError",
    "WorkerDiedError",
    "concurrent",
    "datasets",
    "install",
    "iterate",
    "uninstall",
    "warm_up",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'penstock' has no attribute {name!r}")
    module = importlib.import_module(home)
    value = module if home == f"penstock.{name}" and name == "datasets" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
