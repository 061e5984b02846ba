"""What can be found out about a worker's end."""

from __future__ import annotations

import shutil
import time
from typing import Any

from penstock.certificate import DeathCertificate, Level
from penstock.engines.bundles import lease_at
from penstock.engines.crew import Crew, LeasedSeat
from penstock.engines.job import Job
from penstock.engines.naming import name_source
from penstock.engines.protocol import Died
from penstock.plan import stream_of
from penstock.schedule import Death, Lease
from penstock.transport.journal import Entry, Journal
from penstock.transport.memory import RecentKills, memory_level

_SHARED_MEMORY = "/dev/shm"
_SHOWN_INDICES = 200
# How long to wait for the exit code of a worker whose pipe has ended by itself.
EXIT_CODE_S = 5.0


class Coroner:
    """Certifies the deaths of one engine's workers.

    Args:
        job: what they do.
        crew: they.
        journal: what each is at.
        kills: which of them the kernel may have killed for want of memory.
    """

    def __init__(self, job: Job, crew: Crew, journal: Journal, kills: RecentKills) -> None:
        self._job = job
        self._crew = crew
        self._journal = journal
        self._kills = kills

    def bury(self, seat: LeasedSeat, epoch: int, fault: str, overdue: Entry | None) -> Died:
        """Ends a worker that is gone, or has to go, and takes back all that it had.

        Args:
            seat: where it was; what it had sent is heard.
            epoch: serial number of the epoch that runs.
            fault: why it has to go, or had to; empty: it went by itself.
            overdue: the sample that took longer than it may, if that is why.
        """
        pid = seat.pid
        leases = {key: lease for key, (_, lease) in seat.lent.items()}
        self._crew.hang_up(seat)
        code = self._crew.end(seat, patience_s=0.0 if fault else EXIT_CODE_S)
        ended_s = time.monotonic()
        entry = overdue or self._journal.read(seat.number)
        lease = None if entry is None else lease_at(leases, entry.key)
        if lease is None or entry is None or entry.epoch != epoch:
            # At nothing that is still wanted.
            entry, lease = None, None
        elif not self._job.stream and (entry.one_place or 0) not in range(len(lease.indices)):
            # Whoever crashes may have written anything before, to all memory that it has.
            entry = entry._replace(place=None)
        index, source = self._suspect(lease, entry)
        vitals = seat.vitals
        peaks = [seat.peak_rss_bytes, None if vitals is None else vitals.peak_rss_bytes]
        certificate = DeathCertificate(
            seat.number,
            pid,
            code,
            fault,
            None if overdue is None else self._job.sample_timeout_s or 0.0,
            batch=None if lease is None else lease.batch,
            indices="" if lease is None else self._indices(lease),
            index=index,
            source=source,
            ran_s=None if entry is None else max(0.0, ended_s - entry.since_s),
            rss_bytes=None if vitals is None else vitals.rss_bytes,
            peak_rss_bytes=max((peak for peak in peaks if peak is not None), default=None),
            memory=Level(*memory_level()),
            shared_memory=_shared_memory_level(),
            descriptors=None if vitals is None else vitals.descriptors,
            out_of_memory_kills=self._kills.take(),
            stack=seat.words.stack(),
            stderr=seat.words.lines(),
        )
        seat.words.close()
        return Died(seat.number, certificate, _death_at(entry, certificate))

    def _suspect(self, lease: Lease | None, entry: Entry | None) -> tuple[Any, str]:
        """The sample that a worker was making, and what it is; nothing where that is not known."""
        if lease is None or entry is None or self._job.stream:
            return None, ""
        places = lease.probe or range(len(lease.indices))
        place = entry.one_place
        if place is None and len(places) == 1:
            place = places[0]
        if place is None:
            return None, ""
        index = lease.index_at(place)
        return index, name_source(self._job.dataset, index)

    def _indices(self, lease: Lease) -> str:
        if self._job.stream:
            _, number = lease.indices
            return f"batch {number} of the stream of worker {stream_of(lease.indices)}"
        return f"samples {list(lease.indices)!r:.{_SHOWN_INDICES}}"


def _death_at(entry: Entry | None, certificate: DeathCertificate) -> Death:
    """What the scheduler goes by of a death at what a worker had begun, if that was anything."""
    if entry is None:
        return Death(idle=True, by_itself=certificate.by_itself)
    return Death(
        (entry.batch, entry.attempt),
        entry.one_place,
        by_itself=certificate.by_itself and not certificate.of_memory,
        overdue=certificate.overdue,
        of_memory=certificate.of_memory,
    )


def _shared_memory_level() -> Level | None:
    try:
        total, used, _ = shutil.disk_usage(_SHARED_MEMORY)
    except OSError:
        return None
    return Level(used, total)
