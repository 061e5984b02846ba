"""Which sample goes where: pure functions and pure data, without I/O.

A plan is what the scheduler asks for work (`penstock.schedule.Plan`): it hands out numbered
batches of sample indices, in order, and for every seed the same ones.

    base.py      what the run of an epoch asks of a plan besides
    seeds.py     one 64-bit seed for each (seed, epoch, sample)
    order.py     a seeded order of the epoch's samples
    batches.py   the order cut into batches, and who takes a skipped sample's place
    streams.py   whose turn it is, where every worker reads a stream of its own
    turns.py     whose turn it is among several loaders
"""

from penstock.plan.base import EpochPlan
from penstock.plan.batches import Chunks, GivenBatches, RefillingBatches
from penstock.plan.order import SeededShuffle
from penstock.plan.seeds import mix_seeds, sample_seed
from penstock.plan.streams import StreamTurns, stream_of

__all__ = [
    "Chunks",
    "EpochPlan",
    "GivenBatches",
    "RefillingBatches",
    "SeededShuffle",
    "StreamTurns",
    "mix_seeds",
    "sample_seed",
    "stream_of",
]
