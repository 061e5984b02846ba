"""Several batches in one message: what may be, and how it is put together and taken apart."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence

from penstock.checkpoint import has_state
from penstock.engines.job import Job
from penstock.errors import WireError
from penstock.schedule import Lease

_SIZE = struct.Struct("<I")
_Key = tuple[int, int, int]


def may_bundle(job: Job) -> bool:
    """Whether one worker may be lent several batches at once.

    That must not show: a batch is made again where another of its bundle fails. A stream would have
    gone on meanwhile, as would random numbers in one sequence; and a dataset with a state is asked
    for it behind each batch.
    """
    return not job.stream and job.batched and job.own_randomness and not has_state(job.dataset)


def join(bodies: Sequence[bytes]) -> bytes:
    """One body of several; `split` takes it apart."""
    table = [_SIZE.pack(size) for size in (len(bodies), *map(len, bodies))]
    return b"".join([*table, *bodies])


def count_of(joined: memoryview, most: int) -> int:
    """How many bodies were joined.

    Raises:
        WireError: none, or more than `most`.
    """
    count = _SIZE.unpack_from(joined)[0] if len(joined) >= _SIZE.size else 0
    if not 1 <= count <= most:
        raise WireError(f"it sends {count} batches, and was asked for {most}")
    return int(count)


def split(joined: memoryview, count: int) -> Iterator[memoryview]:
    """The bodies that were joined.

    Raises:
        WireError: they are not what the message holds.
    """
    at = (1 + count) * _SIZE.size
    if len(joined) < at:
        raise WireError(f"{len(joined)} bytes hold no {count} batches")
    sizes = [size for (size,) in _SIZE.iter_unpack(joined[_SIZE.size : at])]
    if at + sum(sizes) != len(joined):
        raise WireError(f"{count} batches of {sizes} bytes are not {len(joined)} in one message")
    for size in sizes:
        yield joined[at : at + size]
        at += size


def lease_at(leases: Mapping[_Key, Lease], key: _Key) -> Lease | None:
    """The lease of one batch, which may have been lent with others.

    Args:
        leases: what was lent to a worker, by (epoch, batch, attempt).
        key: the batch's.
    """
    found = leases.get(key)
    if found is not None and not found.sizes:
        return found
    epoch, batch, attempt = key
    for (of_epoch, first, of_attempt), lease in leases.items():
        if (of_epoch, of_attempt) == (epoch, attempt) and first <= batch < first + lease.count:
            return next(each for each in lease.singles() if each.batch == batch)
    return None
