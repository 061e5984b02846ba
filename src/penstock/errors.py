"""Every exception that Penstock raises on purpose.

    PenstockError
    ├── OptionError (ValueError)          an argument that cannot be used as given
    ├── StateError (ValueError)           a saved state does not fit the loader
    ├── MissingExtraError (ImportError)   an optional dependency is not installed
    ├── SerializationError (TypeError)    something cannot travel to, or from, a worker
    ├── DatasetError (RuntimeError)       the dataset or sampler breaks its own promise
    │   └── IndexOutOfRangeError (IndexError)   a sampler names a sample that is not there
    ├── SampleError                       one sample could not be made: as in `loader.skipped`
    ├── TooManySkippedError (RuntimeError)      more samples were skipped than allowed
    ├── WorkerError (RuntimeError)        a worker process could not do its work
    │   ├── WorkerDiedError               it ended: killed, crashed, or left
    │   │   ├── SampleKilledWorker        it did so of one sample, whenever that was made
    │   │   └── SampleTimeout             one sample took longer than `sample_timeout`
    │   └── WorkerStartError              it could not be started
    ├── BatchTimeoutError (RuntimeError)  no batch arrived within `timeout`
    ├── MemoryBudgetError (MemoryError)   a batch does not fit in the memory that is left
    ├── WireError (RuntimeError)          bytes from a worker are not what a worker writes
    └── ClosedError (RuntimeError)        the iterator was closed by its owner

Those that are raised by themselves also derive from the built-in exception that a program written
for `torch.utils.data.DataLoader` would catch in the same place.
"""

from __future__ import annotations

from collections.abc import Sequence

from penstock.certificate import DeathCertificate


class PenstockError(Exception):
    """The root: catch this to catch whatever Penstock itself reports."""


class OptionError(PenstockError, ValueError):
    """An argument cannot be used as given; the message names its value and the remedy."""


class StateError(PenstockError, ValueError):
    """A saved state cannot be loaded; the message names what differs, with both values."""


class MissingExtraError(PenstockError, ImportError):
    """An optional dependency is needed and not installed; the message names the extra."""


class SerializationError(PenstockError, TypeError):
    """An object cannot be serialised for a worker; the message names the attribute at fault."""


class DatasetError(PenstockError, RuntimeError):
    """A dataset or sampler does not keep its own promise, such as its length."""


class IndexOutOfRangeError(DatasetError, IndexError):
    """A sampler asked for a sample that the dataset does not have."""


class SampleError(PenstockError):
    """One sample could not be made.

    Both the record kept in `loader.skipped` and, with `on_error="raise"`, the
    `__cause__` of the exception that `next()` raises.

    Attributes:
        index: what the sampler asked for; for a stream, the position of the sample in the
            part of it that its worker reads.
        source: where the sample comes from: its path where that is known, else
            the dataset's name and the index.
        cause: the exception, with its original type where that type can be
            rebuilt in this process.
        traceback: the worker's traceback as text.
        worker: the number of the worker, or None for the training process itself.
    """

    def __init__(
        self,
        index: object,
        source: str,
        cause: BaseException,
        traceback: str = "",
        worker: int | None = None,
    ) -> None:
        super().__init__(index, source, cause, traceback, worker)
        self.index = index
        self.source = source
        self.cause = cause
        self.traceback = traceback
        self.worker = worker

    def __str__(self) -> str:
        try:
            cause = self.cause
            reason = cause.message if isinstance(cause, WorkerDiedError) else str(cause)
        except Exception:
            reason = "its text cannot be made"
        return f"sample {self.index!r} ({self.source}): {type(self.cause).__name__}: {reason}"

    def __repr__(self) -> str:
        return f"<SampleError: {self}>"


class TooManySkippedError(PenstockError, RuntimeError):
    """More samples were skipped than `max_skipped` allows.

    Attributes:
        skipped: the errors of all samples skipped so far.
    """

    def __init__(self, message: str, skipped: list[SampleError] | None = None) -> None:
        super().__init__(message, skipped)
        self.skipped = skipped or []

    def __str__(self) -> str:
        return str(self.args[0])


class WorkerError(PenstockError, RuntimeError):
    """A worker process could not do its work."""


class WorkerDiedError(WorkerError):
    """A worker process ended, and that could not be made good.

    The message says how it ended, what it held, the most likely cause and a remedy, and, below
    that, all that is known of it.

    Attributes:
        message: the first part alone.
        certificate: what is known of the worker that died last.
        history: what is known of all that died in the epoch, where their number is the reason.
    """

    def __init__(
        self,
        message: str,
        certificate: DeathCertificate | None = None,
        history: Sequence[DeathCertificate] = (),
    ) -> None:
        super().__init__(message, certificate, tuple(history))
        self.message = message
        self.certificate = certificate
        self.history = tuple(history)

    def __str__(self) -> str:
        if self.certificate is None:
            return self.message
        return "\n".join([self.message, *self.certificate.details])


class SampleKilledWorker(WorkerDiedError):  # noqa: N818 - it says what happened
    """One sample ends every worker that makes it; the message names it, and how the last died."""


class SampleTimeout(WorkerDiedError):  # noqa: N818 - as concurrent.futures names such
    """One sample took longer than `sample_timeout`, and its worker was ended.

    The certificate has the stack that it was at.
    """


class WorkerStartError(WorkerError):
    """A worker process could not be started or could not prepare its dataset."""


class BatchTimeoutError(PenstockError, RuntimeError):
    """No batch arrived within `timeout` seconds."""


class MemoryBudgetError(PenstockError, MemoryError):
    """A batch needs more memory than is left; the message says both numbers."""


class WireError(PenstockError, RuntimeError):
    """A worker's reply is not what a worker writes."""


class ClosedError(PenstockError, RuntimeError):
    """The iterator was closed, by you or at the end of its block, and was then used."""
