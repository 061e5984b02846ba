"""Starts the workers of one engine."""

from __future__ import annotations

from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any, TypeAlias

from penstock.engines.boot import Descriptor, JobOnItsWay, MainModule, run_worker
from penstock.engines.crew import Crew
from penstock.engines.job import Job
from penstock.engines.last_words import LastWords
from penstock.engines.launch import (
    choose_context,
    server_died,
    start_errors,
    start_method,
    start_process,
    warm_up,
)
from penstock.engines.lifeline import Lifeline
from penstock.engines.parent_ends import forks_held, keep_from_children
from penstock.engines.payload import Payload
from penstock.engines.shared_lists import SharedLists
from penstock.errors import SerializationError, WorkerStartError
from penstock.transport.channel import Channel

# Started, with what the parent keeps of it.
Worker: TypeAlias = tuple[BaseProcess, Channel, LastWords, Lifeline]


class Starter:
    """Starts the workers of one engine.

    Args:
        job: what they do.
        asked: the start method that was asked for, or None to choose one.
        seed: torch's base seed.
        crew: what they become a part of.
        lists: lists in the dataset that they share.
    """

    def __init__(
        self,
        job: Job,
        asked: BaseContext | None,
        seed: int,
        crew: Crew,
        lists: SharedLists | None = None,
    ) -> None:
        self._job = job
        self._lists = lists if lists is not None and lists.found else None
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
            self._crew.payload = Payload(self._job, self._lists)

    def start(self, number: int) -> Worker:
        """Starts the worker of a seat, and does not wait for it.

        Raises:
            SerializationError: the dataset cannot travel to it.
            WorkerStartError: the system would not start it.
        """
        try:
            return self._start(number)
        except WorkerStartError as error:
            if not isinstance(error.__cause__, (EOFError, ConnectionError)) or not server_died():
                raise
            # multiprocessing starts another server. A worker that the dead one may have left has
            # pipes of its own, which have ended.
            return self._start(number)

    def _start(self, number: int) -> Worker:
        context = self._context
        if context is None:
            raise RuntimeError("prepare() comes first")
        name = f"penstock-worker-{number}"
        with start_errors(f"worker process {name}"), forks_held():
            lease_reader, lease_writer = context.Pipe(duplex=False)
            reply_reader, reply_writer = context.Pipe(duplex=False)
            lifeline = Lifeline(context)
            channel = Channel(reply_reader, lease_writer, blocking=False)
            keep_from_children(channel)
            keep_from_children(lifeline)
        words = LastWords.open()
        descriptor: Any = self._crew.arena.descriptor
        stderr: Any = words.descriptor
        job: Any = self._job
        if not self.inherits:
            descriptor = Descriptor(descriptor)
            stderr = Descriptor(stderr) if stderr >= 0 else stderr
            payload = self._crew.payload
            if payload is not None:
                files = [file.descriptor for file in payload.files]
                job = JobOnItsWay(payload.descriptor, files)
        elif self._lists is not None:
            job = self._lists
        # Classes of the main module travel by name, unless they do so with the payload.
        needs_main = job is self._job and not self.inherits
        stride = self._crew.arena.stride
        try:
            process = start_process(
                context,
                run_worker,
                (
                    lifeline.reader,
                    MainModule() if needs_main else None,
                    number,
                    self._seed,
                    lease_reader,
                    reply_writer,
                    stderr,
                    descriptor,
                    stride,
                    job,
                    self._job.seats,
                ),
                name=name,
            )
        except BaseException as error:
            channel.close()
            words.close()
            lifeline.let_go()
            if self._refusal is not None and isinstance(error, SerializationError):
                raise self._refusal from self._refusal.__cause__
            raise
        finally:
            lease_reader.close()
            reply_writer.close()
            lifeline.reader.close()
        # Only now: a worker has to have its own.
        keep_from_children(words)
        return process, channel, words, lifeline
