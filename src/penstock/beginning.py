"""How an epoch of a loader begins: what follows from its settings.

    settings ──> seed, plan, job ──> engine ──> EpochRun
        └──────> identity, which a state has to agree with

A loader's settings are the attributes that it shares with torch's, and `OwnSettings`. They are
looked at anew for each epoch: programs and frameworks change them in between.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import IterableDataset, default_collate
from torch.utils.data._utils.collate import default_collate_fn_map

from penstock.checkpoint import Identity, LoaderMemory, Progress, StreamProgress
from penstock.engines.bundles import may_bundle
from penstock.engines.job import Job
from penstock.engines.parts import may_split
from penstock.engines.protocol import Guess
from penstock.epoch import EpochRun, EpochSettings
from penstock.foresight import draws_to_its_end, following_seed, foresee
from penstock.options import ErrorPolicy, SampleErrorMode, Supervision, length_of
from penstock.plan import EpochPlan, GivenBatches, RefillingBatches, StreamTurns
from penstock.schedule import DonorPlan
from penstock.workers import Workers

Loader = TorchDataLoader[Any]


@dataclass(frozen=True)
class OwnSettings:
    """What a loader of Penstock's has been given beyond torch's arguments.

    Attributes:
        seed: what order and random contents follow from; None: from torch's random state.
        policy: what happens to bad samples.
        supervision: what workers may take, and how often one is replaced.
        snapshot_every: of how many batches one has the state of a sampler or stream kept.
        keeps_states: whether anybody could ask for a state.
        quarantine: samples that ended the workers who made them, by index.
        widens: whether more batches may be prefetched than the loader says.
        share_dataset: whether workers have large lists of the dataset together.
    """

    seed: int | None
    policy: ErrorPolicy
    supervision: Supervision
    snapshot_every: int
    keeps_states: bool
    quarantine: dict[object, object]
    widens: bool
    share_dataset: bool


def begin_epoch(
    loader: Loader, own: OwnSettings, memory: LoaderMemory, workers: Workers
) -> EpochRun:
    """Begins an epoch; if that fails, it is still to be begun."""
    began = time.perf_counter()
    # Copies of the dataset in workers that live on have gone on from where a loaded state is, and
    # the streams may be others.
    anew = memory.has_loaded
    try:
        with memory.begin() as progress:
            if _is_stream(loader) and not progress.streams:
                # As many as there were when this, or the loader whose state it has, was made.
                count = max(1, memory.streams or 0)
                progress.streams = [StreamProgress() for _ in range(count)]
            number = memory.told
            seed = _next_seed(loader, own, memory)
        with memory.order() as lent:
            plan, donors, planned = _make_plan(loader, own, memory, progress)
            if lent and isinstance(plan, GivenBatches):
                plan.look_ahead()
        job = _make_job(loader, own, memory, asks=donors is not None)
        engine, release = workers.engine_for(
            loader,
            seed,
            job,
            memory_budget=own.supervision.memory_budget,
            share_dataset=own.share_dataset,
            anew=anew,
        )
    except BaseException:
        memory.undo()
        raise
    widens = own.widens and not (isinstance(plan, GivenBatches) and draws_to_its_end(memory))
    settings = EpochSettings(
        seed=seed,
        window=loader.num_workers * (loader.prefetch_factor or 0) or 1,
        widens=widens,
        in_order=loader.in_order,
        timeout_s=loader.timeout if loader.num_workers else 0.0,
        policy=own.policy,
        max_restarts=own.supervision.max_restarts,
        planned=planned,
        number=number,
        pace=workers.pace if may_split(job) else None,
        bundles=widens and may_bundle(job),
        claimed_samples=loader._IterableDataset_len_called if _is_stream(loader) else None,
    )
    try:
        run = EpochRun(
            engine,
            plan,
            settings,
            workers=job.seats,
            donors=donors,
            release=release,
            began=began,
            progress=progress,
            quarantine=own.quarantine,
            sized=loader._index_sampler,
            foresee=_foresight(loader, own, memory),
        )
    except BaseException:
        release()
        memory.undo()
        raise
    workers.run = run
    return run


def _foresight(
    loader: Loader, own: OwnSettings, memory: LoaderMemory
) -> Callable[[], Guess | None] | None:
    """What says how the next epoch begins, where workers live on that could begin it."""
    if not loader.persistent_workers or not loader.num_workers:
        return None
    # An epoch must not keep its loader.
    held = weakref.ref(loader)
    count = loader.num_workers * (loader.prefetch_factor or 1)

    def ask() -> Guess | None:
        still = held()
        # Samples that must not be made are for the scheduler to leave out.
        if still is None or own.quarantine:
            return None
        # A program may have changed them since the epoch began.
        memory.look_at(samplers_of(still), still.generator)
        return foresee(still, own.seed, memory, count)

    return ask


def make_memory(loader: Loader, own: OwnSettings) -> LoaderMemory:
    """A new loader's memory."""
    return LoaderMemory(
        loader.dataset,
        draws=own.seed is None,
        redraws=not loader.persistent_workers,
        streams=loader.num_workers if _is_stream(loader) else None,
        keeps=own.keeps_states,
    )


def samplers_of(loader: Loader) -> list[Any]:
    """What gives a loader its batches, and their order."""
    if _is_stream(loader):
        return []
    return [part for part in (loader.batch_sampler, loader.sampler) if part is not None]


def identity_of(loader: Loader, own: OwnSettings) -> Identity:
    """What a state has to agree with."""
    grouped = loader.batch_size is None and loader.batch_sampler is not None
    ordering: object = loader.batch_sampler if grouped else loader.sampler
    return Identity(
        kind="iterable" if _is_stream(loader) else "map",
        length=length_of(loader.dataset),
        samples=None if _is_stream(loader) else length_of(ordering),
        batch_size=loader.batch_size,
        drop_last=loader.drop_last,
        sampler=type(ordering).__name__,
        seed=own.seed,
    )


def _is_stream(loader: Loader) -> bool:
    return isinstance(loader.dataset, IterableDataset)


def _seats(loader: Loader, memory: LoaderMemory) -> int:
    """Workers that have something to do."""
    streams = memory.streams
    return loader.num_workers if streams is None else min(loader.num_workers, max(1, streams))


def _next_seed(loader: Loader, own: OwnSettings, memory: LoaderMemory) -> int:
    """The seed of the epoch that begins."""
    following = following_seed(own.seed, memory)
    if following is None:
        # torch draws its base seed from the same generator at the same moment.
        drawn = torch.empty((), dtype=torch.int64).random_(generator=loader.generator).item()
        memory.drawn = int(drawn), 0
        return int(drawn)
    if own.seed is None and memory.drawn is not None:
        drawn, epochs = memory.drawn
        memory.drawn = drawn, epochs + 1
    return following


def _make_plan(
    loader: Loader, own: OwnSettings, memory: LoaderMemory, progress: Progress
) -> tuple[EpochPlan, DonorPlan | None, int | None]:
    """The plan, the plan again if it can fill skipped places, and its number of samples."""
    if _is_stream(loader):
        ended = [number for number, each in enumerate(progress.streams) if each.ended]
        turns = StreamTurns(
            len(progress.streams),
            max(1, _seats(loader, memory)),
            turn=progress.turn,
            ended=ended,
        )
        return turns, None, length_of(loader.dataset)
    # The function may seed each worker in its own way: then which one makes a batch counts.
    seats = loader.num_workers if loader.worker_init_fn is not None and loader.in_order else 0
    planned = length_of(loader.sampler if loader.batch_size is not None else loader.dataset)
    tolerant = own.policy.tolerant or progress.donated
    if tolerant and loader.batch_size is not None and planned is not None:
        refilling = RefillingBatches(
            loader.sampler,
            loader.batch_size,
            drop_last=loader.drop_last,
            first=progress.passed,
            passed=progress.beyond,
            donated=progress.donated,
            seats=seats,
        )
        # It has the whole order at once.
        progress.started = True
        return refilling, refilling, refilling.planned
    done = memory.resume_sampler()
    given = GivenBatches(
        memory.watch(loader.sampler if loader.batch_sampler is None else loader.batch_sampler),
        batched=loader.batch_sampler is not None,
        skip=progress.passed - done,
        first=progress.passed,
        snapshot=memory.sampler_snapshot,
        every=own.snapshot_every,
        seats=seats,
    )
    return given, None, planned


def _make_job(loader: Loader, own: OwnSettings, memory: LoaderMemory, *, asks: bool) -> Job:
    mode: SampleErrorMode = "raise"
    if own.policy.tolerant:
        mode = "ask" if asks or callable(own.policy.on_error) else "drop"
    default = loader.collate_fn is default_collate
    # What a map-style dataset was asked for is not asked for again, so that nothing would bring an
    # older state up to date.
    snapshot_every = own.snapshot_every if _is_stream(loader) else 1
    return Job(
        dataset=loader.dataset,
        seats=_seats(loader, memory),
        stream=_is_stream(loader),
        streams=memory.streams,
        collate=loader.collate_fn,
        default_collate=default,
        batched=loader.batch_sampler is not None,
        batch_size=loader.batch_size or 1,
        drop_last=loader.drop_last,
        worker_init_fn=loader.worker_init_fn,
        sample_errors=mode,
        # A program may have told `default_collate` what to do with None.
        none_is_error=mode != "raise" or (default and type(None) not in default_collate_fn_map),
        own_randomness=loader.worker_init_fn is None or not loader.num_workers,
        sample_timeout_s=own.supervision.sample_timeout,
        snapshot_every=snapshot_every if own.keeps_states else 0,
    )
