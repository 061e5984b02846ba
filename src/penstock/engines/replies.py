"""What a worker may answer to what it was asked.

A worker runs code that is not ours, and its messages are believed as far as they can be true.
Anything else would be taken for what it is not: an end of what has none, a probe for a batch,
memory that is not there, or for nothing at all, and the lease would be waited for for ever.
"""

from __future__ import annotations

import sys

from penstock.engines.failure import Failure
from penstock.errors import SerializationError, WireError
from penstock.schedule import Lease
from penstock.transport.codec import decode
from penstock.transport.frames import Frame, Kind

_ANSWERS = {
    Kind.LEASE: frozenset({Kind.DONE, Kind.WITHHELD, Kind.FAILED, Kind.CRAMPED}),
    Kind.PROBE: frozenset({Kind.PROBED, Kind.FAILED}),
    Kind.PART: frozenset({Kind.PART_DONE, Kind.FAILED, Kind.CRAMPED}),
    Kind.GATHER: frozenset({Kind.DONE, Kind.FAILED, Kind.CRAMPED}),
    Kind.BUNDLE: frozenset({Kind.BUNDLE_DONE, Kind.FAILED, Kind.CRAMPED}),
    # What was under way when the order came, or nothing any more.
    Kind.RECALL: frozenset(
        {
            Kind.DONE,
            Kind.PART_DONE,
            Kind.BUNDLE_DONE,
            Kind.WITHHELD,
            Kind.FAILED,
            Kind.CRAMPED,
            Kind.PROBED,
            Kind.DROPPED,
        }
    ),
}


def order_of(lease: Lease) -> Kind:
    """What a worker is asked for with a lease."""
    if lease.probe:
        return Kind.PROBE
    if lease.part is not None:
        return Kind.PART
    if lease.sizes:
        return Kind.BUNDLE
    return Kind.GATHER if lease.pieces else Kind.LEASE


def check_reply(frame: Frame, order: Kind, slot: int, *, is_stream: bool) -> None:
    """Makes sure that a reply can be one to the last order about its lease.

    Args:
        frame: the reply.
        order: one of `order_of`, or `RECALL`.
        slot: the lease's.
        is_stream: whether there are streams, which may end.

    Raises:
        WireError: it cannot.
    """
    ends = is_stream and frame.kind == Kind.ENDED
    if frame.kind not in _ANSWERS[order] and not ends:
        raise WireError(f"it answers {order.name} with a message of kind {frame.kind}")
    if frame.slot != slot:
        raise WireError(f"it answers for slot {frame.slot}, and was lent slot {slot}")
    most = sys.maxsize if frame.kind == Kind.CRAMPED else frame.capacity
    if not 0 <= frame.used <= most:
        raise WireError(f"it says it used {frame.used} of {frame.capacity} bytes of its slot")


def failures_in(frame: Frame) -> list[Failure]:
    """What a worker has described, one failure or several; no class of the program's is in it.

    Raises:
        WireError: the body is something else.
    """
    try:
        told = decode(frame.body, None)
    except SerializationError as error:
        raise WireError(f"it sends what cannot be read: {error}") from error
    failures = told if isinstance(told, (list, tuple)) else [told]
    if not failures or not all(isinstance(failure, Failure) for failure in failures):
        raise WireError(f"it sends {type(told).__name__} where a failure is described")
    return list(failures)
