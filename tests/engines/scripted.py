"""Workers without processes: a test plays them itself, on the pipes of a real engine."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

from penstock.engines.last_words import LastWords
from penstock.engines.lifeline import Lifeline
from penstock.engines.process import ProcessEngine
from penstock.engines.protocol import Event
from penstock.transport.channel import Channel, ChannelClosed
from penstock.transport.codec import encode
from penstock.transport.frames import Frame, Kind, pack
from penstock.transport.writer import SlotWriter

# So many turns without a report, while nobody is to be waited for, are a hang.
IDLE_TURNS = 20


class ScriptedProcess:
    """What the engine needs of a process: it ends when it is told to."""

    pid = 4711

    def __init__(self) -> None:
        self._ended, self._alive = multiprocessing.Pipe(duplex=False)
        self.sentinel = self._ended.fileno()
        self.exitcode: int | None = None

    def join(self, _timeout: float | None = None) -> None:
        pass

    def kill(self) -> None:
        self._end(-9)

    def terminate(self) -> None:
        self._end(-15)

    def leave(self) -> None:
        self._end(0)

    def _end(self, code: int) -> None:
        if self.exitcode is None:
            self.exitcode = code
            self._alive.close()

    def close(self) -> None:
        self._alive.close()
        self._ended.close()


class ScriptedWorker:
    """Answers each lease with the batch of `samples_of`, or with what the script makes of that.

    Args:
        engine: whose arena it writes to.
        seat: its number.
        script: what becomes of the bytes of each reply, given the lease; None: they are sent.
    """

    def __init__(
        self,
        engine: ProcessEngine,
        seat: int,
        script: Callable[[Frame, dict[str, Any]], bytes] | None,
    ) -> None:
        lease_reader, lease_writer = multiprocessing.Pipe(duplex=False)
        reply_reader, reply_writer = multiprocessing.Pipe(duplex=False)
        self.parents_end = Channel(reply_reader, lease_writer, blocking=False)
        self.process = ScriptedProcess()
        self.seat = seat
        self._channel = Channel(lease_reader, reply_writer, blocking=False)
        self._writer = SlotWriter(engine.arena.descriptor, engine.arena.stride)
        self._script = script
        self._write(pack(Kind.READY))

    def turn(self) -> None:
        """Answers what has come; a worker whose pipes were closed is gone."""
        try:
            for frame in self._channel.receive():
                if frame.kind == Kind.LEASE:
                    self._answer(frame)
        except ChannelClosed:
            self.close()

    def _answer(self, lease: Frame) -> None:
        indices, _, _ = pickle.loads(lease.body)
        self._writer.begin(lease.slot, lease.capacity)
        body = encode((batch_of(indices), len(indices), (), None, None), self._writer)
        fields = {
            **lease._asdict(),
            "kind": Kind.DONE,
            "body": body,
            "used": self._writer.used,
            "capacity": self._writer.capacity,
        }
        self._write(packed(fields) if self._script is None else self._script(lease, fields))

    def _write(self, reply: bytes) -> None:
        try:
            if reply:
                os.write(self._channel.write_fd, reply)
        except BrokenPipeError as error:
            raise ChannelClosed from error

    def close(self) -> None:
        self._channel.close()


def packed(fields: dict[str, Any]) -> bytes:
    """A reply with these fields."""
    rest = dict(fields)
    return pack(rest.pop("kind"), bytes(rest.pop("body")), **rest)


def batch_of(indices: list[int]) -> Any:
    """An even batch lies in a slot, an odd one in its message."""
    size = 40_000 if indices[0] % 2 == 0 else 100
    return [np.full(size, index, np.int32) for index in indices]


class ScriptedEngine(ProcessEngine):
    """A real engine; its first workers play a script, those that replace them are honest."""

    def __init__(self, job: Any, script: Callable[[Frame, dict[str, Any]], bytes]) -> None:
        super().__init__(job)
        self._script: Any = script
        self._workers: dict[int, ScriptedWorker] = {}
        self._starter.prepare = lambda: None  # type: ignore[method-assign]
        self._starter.start = self._start_scripted  # type: ignore[assignment, method-assign]
        self._started = 0

    def _start_scripted(self, number: int) -> Any:
        self._started += 1
        script = self._script if self._started <= self.seats else None
        worker = self._workers[number] = ScriptedWorker(self, number, script)
        return (
            worker.process,
            worker.parents_end,
            LastWords(),
            Lifeline(multiprocessing.get_context()),
        )

    def poll(self, timeout_s: float | None) -> list[Event]:
        for _ in range(IDLE_TURNS):
            self.flush()
            for worker in list(self._workers.values()):
                if worker.parents_end.read_fd >= 0:
                    worker.turn()
            if events := super().poll(0):
                return events
            if timeout_s == 0:
                return []
        raise AssertionError("nothing is reported, and nobody is waited for: next() would hang")

    def close(self) -> None:
        for worker in self._workers.values():
            worker.process.leave()
        super().close()
        for worker in self._workers.values():
            worker.close()
