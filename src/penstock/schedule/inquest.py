"""What follows from the death of a worker: whose fault it was, and what is done about it.

A worker that was killed for want of memory may have been no more at fault than others: what it was
making is made again while the others rest, and only what is killed then as well has its samples
tried one by one. A sample that is to blame for that is left out once, and not for good.

A worker may be killed by anybody, at whatever it is doing, so a first death by a signal says
nothing about the batch. A worker that crashes has done so at what it was making, and so, most
likely, has one that was killed at the same batch as another before it: then one sample after
another is tried (`hunt`), and the one that kills whoever makes it alone is set aside.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from typing import Any

from penstock.schedule.batch import Batch, State
from penstock.schedule.hunt import DEATHS_BY_OTHERS, Hunt
from penstock.schedule.lease import Death, Fill, Lease

# A batch whose worker died this often while working on it is not tried again, where no sample of it
# was found to blame. Random deaths of workers must not add up to it; a batch that kills every
# worker must.
MAX_DEATHS_PER_BATCH = 8


class Inquest:
    """Finds what workers die of, in one epoch.

    Args:
        given_up: makes the error in the place of a batch that no worker survives; None: it is
            tried for ever.
        killed: describes the error of the sample with an index, which ends whoever makes it; None:
            no sample is searched for, as one of a stream could not be.
        quarantine: the samples that were set aside, by index, with that description. They are not
            made again; those that are found are added.
    """

    def __init__(
        self,
        *,
        given_up: Callable[[Lease], BaseException] | None = None,
        killed: Callable[[object], object] | None = None,
        quarantine: MutableMapping[object, object] | None = None,
    ) -> None:
        self._given_up = given_up
        self._killed = killed
        self._quarantine = {} if quarantine is None else quarantine

    def suspect(self, lost: Iterable[Batch[Any]], death: Death) -> Lease | None:
        """What a worker was working on, as far as can be known.

        Args:
            lost: all that was lent to it, in that order.
            death: how it died.
        """
        if death.idle:
            return None
        for batch in lost:
            lease = batch.lease
            # Replies come in the order of the leases, so it was at the first one that is not
            # merely waiting for an answer of ours.
            known = death.lease is None or death.lease == (lease.batch, lease.attempt)
            if known and batch.state is State.LENT:
                return lease
        return None

    def blame(self, batch: Batch[Any], death: Death) -> BaseException | None:
        """A worker has died while it worked on a batch.

        Returns:
            The error in the place of the batch, if it is not to be tried again.
        """
        batch.fresh = batch.lease.seat
        batch.alone = batch.alone or death.of_memory
        hunt = batch.hunt
        by_itself = death.by_itself or death.overdue
        if hunt is not None:
            hunt.died(death.place, by_itself=by_itself, of_memory=death.of_memory)
            if hunt.found is not None:
                self._set_aside(batch, hunt.found, keep=not death.of_memory)
            return None
        if self._killed is not None and death.overdue and death.place is not None:
            self._set_aside(batch, death.place, keep=True)
            return None
        batch.deaths += 1
        # What took too long once, such as a file server, may not do so again; a stream cannot
        # pass by what does.
        most = DEATHS_BY_OTHERS if death.overdue and self._killed is None else MAX_DEATHS_PER_BATCH
        if self._given_up is not None and batch.deaths >= most:
            return self._given_up(batch.lease)
        if self._killed is not None and (by_itself or batch.deaths >= DEATHS_BY_OTHERS):
            batch.hunt = Hunt(_untried(batch.lease), death.place)
        return None

    def known_bad(self, indices: Sequence[object]) -> dict[int, Fill]:
        """The places of samples that were set aside."""
        quarantine = self._quarantine
        if not quarantine:
            return {}
        bad: dict[int, Fill] = {}
        for place, index in enumerate(indices):
            with contextlib.suppress(TypeError):  # What a sampler gives need not be hashable.
                if index in quarantine:
                    bad[place] = Fill("bad", quarantine[index])
        return bad

    def _set_aside(self, batch: Batch[Any], place: int, *, keep: bool) -> None:
        lease = batch.lease
        index = lease.index_at(place)
        reason = None if self._killed is None else self._killed(index)
        if keep:
            with contextlib.suppress(TypeError):
                self._quarantine[index] = reason
        lease.fills[place] = Fill("bad", reason)
        batch.hunt = None
        batch.deaths = 0


def _untried(lease: Lease) -> list[int]:
    """The places of a lease whose samples are still to be made."""
    settled = {place for place, fill in lease.fills.items() if fill.kind != "index"}
    return [place for place in range(len(lease.indices)) if place not in settled]
