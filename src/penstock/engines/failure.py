"""An exception on its way from a worker to the training loop.

An exception that pickles may still not unpickle (its `__init__` takes other arguments), or hold
something that cannot travel. So what travels is a description; the exception itself
only where a trial here has shown that it arrives.
"""

from __future__ import annotations

import copy
import logging
import pickle
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

from penstock.errors import SampleError

_log = logging.getLogger("penstock")

# What lies between a lease and the user's code.
_OUR_MODULES = frozenset(
    {
        "penstock.engines.collation",
        "penstock.engines.fetch",
        "penstock.engines.hosting",
        "penstock.engines.streaming",
        "penstock.engines.worker",
        "penstock.pool",
    }
)
# What fits a pipe comfortably; the innermost frames are at the end, and are kept.
_MOST_TRACEBACK_CHARS = 20_000


@dataclass(frozen=True)
class Failure:
    """An exception, described.

    Attributes:
        pickled: the exception itself, or nothing if it cannot travel.
        type_name: its type, as written in a traceback.
        message: its text.
        traceback: the traceback as text, from the user's code on; nothing where no code raised it.
        index: the sample that raised it, if it was one.
        source: what that sample is, or nothing.
        seat: the worker, or None in the training process.
        place: the sample's place in the batch.
        live: the exception itself, where it did not have to travel.
    """

    pickled: bytes
    type_name: str
    message: str
    traceback: str
    index: object = None
    source: str = ""
    seat: int | None = None
    place: int = 0
    live: BaseException | None = None


def describe(
    error: BaseException,
    *,
    index: object = None,
    source: str = "",
    seat: int | None = None,
    place: int = 0,
) -> Failure:
    """Describes an exception that was just caught; for the rest see `Failure`."""
    lines = traceback.format_exception(type(error), error, _from_users_code(error.__traceback__))
    text = "".join(lines)[-_MOST_TRACEBACK_CHARS:]
    kind = type(error)
    name = (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )
    # Without a worker there is no way to travel, and the exception is the program's own.
    pickled, live = (b"", error) if seat is None else (_pickle(error), None)
    return Failure(pickled, name, _text(error), text, index, source, seat, place, live)


def _from_users_code(trace: TracebackType | None) -> TracebackType | None:
    """The traceback without the frame that caught it, and those of ours that follow that."""
    trace = trace.tb_next if trace is not None else None
    while trace is not None and trace.tb_frame.f_globals.get("__name__") in _OUR_MODULES:
        trace = trace.tb_next
    return trace


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return f"<{type(error).__name__} whose text cannot be made>"


def _pickle(error: BaseException) -> bytes:
    try:
        pickled = pickle.dumps(error)
        if type(pickle.loads(pickled)) is type(error):
            return pickled
    except Exception:
        return b""
    return b""


def describe_made(error: BaseException, *, index: object, source: str, seat: int) -> Failure:
    """Describes the error of a sample that nobody raised; for the rest see `Failure`."""
    return replace(describe(error, index=index, source=source, seat=seat), traceback="")


def revive(failure: Failure) -> BaseException:
    """The exception as it was, or the nearest to it that this process can make."""
    if failure.live is not None:
        return failure.live
    if failure.pickled:
        try:
            error = pickle.loads(failure.pickled)
        except Exception:
            error = None
        if isinstance(error, BaseException):
            return error
    return RuntimeError(f"{failure.type_name}: {failure.message}")


def sample_error(failure: Failure) -> SampleError:
    """The record of a bad sample."""
    return SampleError(
        failure.index, failure.source, revive(failure), failure.traceback, failure.seat
    )


def placed(failures: Iterable[Failure]) -> list[tuple[int, SampleError]]:
    """The records of a batch's bad samples, with their places in it."""
    return [(failure.place, sample_error(failure)) for failure in failures]


def exception_for(record: SampleError, type_name: str = "") -> BaseException:
    """What `next()` raises for a bad sample: the user's exception type, and the whole story.

    Args:
        record: the sample.
        type_name: the type's name, where the cause only stands for an exception that could
            not travel.
    """
    cause = record.cause
    if not record.traceback:
        # Nobody raised it, and it tells the story itself. The record keeps another one: in a cycle
        # with the record it would keep alive all that it is raised through.
        made = copy.copy(cause)
        made.__cause__ = record
        return made
    own_name = type(cause).__name__
    error = _retold(
        cause,
        f"{_caught(type_name or own_name, record.worker)}"
        f"{own_name} at sample {record.index!r} ({record.source}): {_text(cause)}\n"
        f"Original traceback:\n{record.traceback}",
    )
    error.__cause__ = record
    return error


def to_raise(failure: Failure) -> BaseException:
    """What `next()` raises for a failure, of a sample or of a whole batch."""
    if failure.source or not failure.traceback:
        return exception_for(sample_error(failure), failure.type_name)
    return _retold(
        revive(failure),
        f"{_caught(failure.type_name, failure.seat)}"
        f"{failure.type_name}: {failure.message}\nOriginal traceback:\n{failure.traceback}",
    )


def end_or_raise(failure: Failure) -> BaseException:
    """As `to_raise`, for a loader's `next()`: a `StopIteration` ends the epoch, as in torch."""
    error = revive(failure)
    if not isinstance(error, StopIteration):
        return to_raise(failure)
    # A loop that ends too soon looks like one that is over.
    _log.warning(
        "sample %r (%s) raised StopIteration, which ends the epoch there, as in torch",
        failure.index,
        failure.source,
    )
    return StopIteration(*error.args)


def _caught(type_name: str, seat: int | None) -> str:
    """The line that torch's loader opens with, which programs match on."""
    if seat is None:
        return ""
    return f"Caught {type_name.rpartition('.')[2]} in DataLoader worker process {seat}.\n"


class _Readable(str):
    """A `KeyError` shows the `repr` of its message, and newlines with it; not of this one."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _retold(cause: BaseException, text: str) -> BaseException:
    """An exception of the type of `cause` that says `text`, with the attributes of `cause`."""
    kind = type(cause)
    if isinstance(cause, StopIteration):
        # Raised in an iterator it would end that in silence (so PEP 479, for generators).
        return RuntimeError(text)
    message: Any = _Readable(text) if isinstance(cause, KeyError) else text
    try:
        error = kind(message)
    except Exception:
        return _annotated(cause, text)
    error.__dict__.update(cause.__dict__)
    if isinstance(error, OSError) and isinstance(cause, OSError):
        # Programs look at the number; with the other attributes the text would be another.
        error.errno = cause.errno
    # Asked last: the text may be made of the attributes.
    return error if text in _text(error) else _annotated(cause, text)


def _annotated(cause: BaseException, text: str) -> BaseException:
    """An exception whose constructor takes something else than a text: itself, with a note."""
    if not hasattr(cause, "add_note"):  # Python 3.10
        return RuntimeError(text)
    cause.add_note(text)
    return cause
