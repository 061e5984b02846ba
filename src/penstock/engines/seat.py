"""A worker's place: the process in it and the two pipes to that process.

    start ──> leases, replies ──> hang_up ──> end
                    └── it died ──> last_words ──> hang_up ──> end ──> start: another one

The engine decides when; nothing here waits for a worker but `end`.
"""

from __future__ import annotations

from collections.abc import Iterator
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any

from penstock.engines.boot import Descriptor, run_worker
from penstock.engines.job import Job
from penstock.engines.launch import (
    choose_context,
    keep_from_children,
    start_method,
    start_process,
    warm_up,
)
from penstock.engines.payload import Payload
from penstock.errors import SerializationError
from penstock.transport.arena import Arena
from penstock.transport.channel import Channel
from penstock.transport.frames import Frame

# How long a worker may take to leave once its pipe has ended: what it computes at the time
# is not wanted any more. Then SIGTERM, and after as long again SIGKILL.
LEAVE_S = 0.5


class Starter:
    """Starts the workers of one engine.

    Args:
        job: what they do.
        asked: the start method that was asked for, or None to choose one.
        seed: torch's base seed.
        arena: where they put their batches.
    """

    def __init__(self, job: Job, asked: BaseContext | None, seed: int, arena: Arena) -> None:
        self._job = job
        self._asked = asked
        self._seed = seed
        self._arena = arena
        self._context: BaseContext | None = None
        self._payload: Payload | None = None
        self._refusal: SerializationError | None = None
        self.inherits = True

    def prepare(self) -> None:
        """Chooses the start method and serialises the job, as far as that needs it."""
        self._context = choose_context(self._asked, self._serialise)
        self.inherits = start_method(self._context) == "fork"
        if self.inherits:
            # Imported before the fork, not once in each worker after it.
            from penstock.engines import worker  # noqa: F401

            return
        warm_up(self._context)
        try:
            self._serialise()
        except SerializationError as refusal:
            # What cannot travel by value may still do so as an argument of the process:
            # locks and shared values of multiprocessing.
            self._refusal = refusal

    def _serialise(self) -> None:
        if self._payload is None:
            self._payload = Payload(self._job)

    def start(self, number: int) -> tuple[BaseProcess, Channel]:
        """Starts the worker of a seat, and does not wait for it.

        Raises:
            SerializationError: the dataset cannot travel to it.
            WorkerStartError: the system would not start it.
        """
        context = self._context
        if context is None:
            raise RuntimeError("prepare() comes first")
        lease_reader, lease_writer = context.Pipe(duplex=False)
        reply_reader, reply_writer = context.Pipe(duplex=False)
        channel = Channel(reply_reader, lease_writer, blocking=False)
        keep_from_children(channel)
        descriptor: Any = self._arena.descriptor
        job: Any = self._job
        if not self.inherits:
            descriptor = Descriptor(descriptor)
            if self._payload is not None:
                job = Descriptor(self._payload.descriptor)
        stride = self._arena.stride
        try:
            process = start_process(
                context,
                run_worker,
                (number, self._seed, lease_reader, reply_writer, descriptor, stride, job),
                name=f"penstock-worker-{number}",
                needs_main=job is self._job and not self.inherits,
            )
        except BaseException as error:
            channel.close()
            if self._refusal is not None and isinstance(error, SerializationError):
                raise self._refusal from None
            raise
        finally:
            lease_reader.close()
            reply_writer.close()
        return process, channel

    def close(self) -> None:
        """Gives back what the job takes on its way."""
        if self._payload is not None:
            self._payload.close()


class Seat:
    """The place of one worker; the worker in it changes when one dies.

    Args:
        number: which seat.

    Attributes:
        process: the worker, until `end`.
        channel: the parent's ends of its pipes, until `hang_up`.
        ready: whether the worker has its dataset.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: BaseProcess | None = None
        self.channel: Channel | None = None
        self.ready = False

    def start(self, starter: Starter) -> None:
        """Puts a new worker in it."""
        self.process, self.channel = starter.start(self.number)

    @property
    def handles(self) -> list[int]:
        """Descriptors of which one can be read when the worker has replied, or is gone."""
        if self.process is None or self.channel is None:
            return []
        return [self.channel.read_fd, self.process.sentinel]

    @property
    def pid(self) -> int:
        """The worker's process id; 0 without one."""
        return 0 if self.process is None else self.process.pid or 0

    def last_words(self) -> Iterator[Frame]:
        """What a worker that is gone had sent before; all of it counts.

        Raises:
            ChannelClosed: behind the last of it, as always unless another process has the pipe.
        """
        while self.channel is not None and (frames := self.channel.receive()):
            yield from frames

    def hang_up(self) -> None:
        """Closes the pipes to the worker, which makes it leave."""
        if self.channel is not None:
            self.channel.close()
        self.channel = None

    def end(self, *, patience_s: float) -> int | None:
        """Ends the worker for sure: from then on nobody writes to what it was lent.

        Args:
            patience_s: how long it may take to leave by itself.

        Returns:
            Its exit code, or None if there was no worker.
        """
        process, self.process = self.process, None
        self.ready = False
        if process is None:
            return None
        process.join(patience_s)
        if process.exitcode is None:
            process.terminate()
            process.join(LEAVE_S)
        if process.exitcode is None:
            process.kill()
            process.join()
        code = process.exitcode
        process.close()
        return code
