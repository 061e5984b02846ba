"""Errors in words for someone who gave a command and sees no code."""

from __future__ import annotations

from penstock.cli.request import Request
from penstock.errors import PenstockError, SampleError, TooManySkippedError
from penstock.observe.words import counted, printable

# Where the text of an exception that came from a worker begins to be for programmers.
_TRACEBACK_MARK = "\nOriginal traceback:"


def explain(error: BaseException, request: Request) -> str:
    """What went wrong and what to do about it, in a line or a few."""
    if isinstance(error, TooManySkippedError):
        return (
            f"{counted(len(error.skipped), 'picture')} could not be read, more than "
            f"--max-skipped {request.max_skipped} allows; mend the data or allow more"
        )
    record = error.__cause__
    if isinstance(record, SampleError):
        return (
            f"{printable(record.source)}: {reason(record)}\n"
            "  (--on-error skip goes on without such pictures and names them at the end)"
        )
    text = str(error).partition(_TRACEBACK_MARK)[0]
    if isinstance(error, PenstockError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def reason(record: SampleError) -> str:
    """Why a sample was skipped: the type and the text of the cause, without the path in it."""
    cause = record.cause
    text = str(cause)
    if isinstance(cause, OSError) and cause.errno is not None and cause.filename is not None:
        text = cause.strerror or text
    text = text.removeprefix(f"{record.source}: ")
    return printable(f"{type(cause).__name__}: {text}" if text else type(cause).__name__)
