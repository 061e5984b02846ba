"""Starts the workers of one engine."""

from __future__ import annotations

from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any

from penstock.engines.boot import Descriptor, run_worker
from penstock.engines.crew import Crew
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
from penstock.transport.channel import Channel


class Starter:
    """Starts the workers of one engine.

    Args:
        job: what they do.
        asked: the start method that was asked for, or None to choose one.
        seed: torch's base seed.
        crew: what they become a part of.
    """

    def __init__(self, job: Job, asked: BaseContext | None, seed: int, crew: Crew) -> None:
        self._job = job
        self._asked = asked
        self._seed = seed
        self._crew = crew
        self._context: BaseContext | None = None
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
        if self._crew.payload is None:
            self._crew.payload = Payload(self._job)

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
        descriptor: Any = self._crew.arena.descriptor
        job: Any = self._job
        if not self.inherits:
            descriptor = Descriptor(descriptor)
            if self._crew.payload is not None:
                job = Descriptor(self._crew.payload.descriptor)
        stride = self._crew.arena.stride
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
