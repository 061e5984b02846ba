"""The dataset on its way to the workers: serialised once, however many there are.

Under fork it is inherited as it is. Otherwise it is pickled by value with cloudpickle, so that
lambdas and classes of a `__main__` work, into one nameless file that all workers map. The memory of
arrays and tensors stays in that file: workers share its pages until they write to them.
"""

from __future__ import annotations

import mmap
import os
import pickle
import struct
from typing import Any

from penstock.errors import SerializationError
from penstock.transport.arena import open_backing
from penstock.transport.codec import dump_by_value

_ALIGNMENT_BYTES = 64
_HEAD = struct.Struct("<QQ")  # bytes of the pickle, buffers
_SIZE = struct.Struct("<Q")


class Payload:
    """A serialised object in a nameless file.

    Args:
        value: the object.

    Raises:
        SerializationError: it cannot be serialised; the message names the attribute at fault.
    """

    def __init__(self, value: object) -> None:
        buffers: list[pickle.PickleBuffer] = []
        try:
            pickled = dump_by_value(value, buffers)
        except Exception as error:
            # The first step of the path is ours, and means nothing to the user.
            culprit = find_culprit(value).removeprefix(f"{type(value).__name__}.")
            raise SerializationError(
                f"{culprit} cannot be sent to worker processes: {error}. Make it in __getitem__ or "
                "in worker_init_fn, leave it out in __getstate__, or start workers with "
                "multiprocessing_context='fork', which inherit it"
            ) from error
        raws = [buffer.raw() for buffer in buffers]
        self.descriptor, _ = open_backing()
        head = _HEAD.pack(len(pickled), len(raws))
        sizes = b"".join(_SIZE.pack(raw.nbytes) for raw in raws)
        with os.fdopen(os.dup(self.descriptor), "wb") as file:
            file.write(head + sizes + pickled)
            for raw in raws:
                file.seek(_aligned(file.tell()))
                file.write(raw)
            self.size = file.tell()

    def close(self) -> None:
        """Closes the file; workers that have mapped it keep it."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def load_payload(descriptor: int) -> Any:
    """Rebuilds the object of a `Payload` in a worker.

    Args:
        descriptor: the file's; closed afterwards.
    """
    memory = mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY)
    os.close(descriptor)
    view = memoryview(memory)
    pickled_size, count = _HEAD.unpack_from(view)
    start = _HEAD.size + count * _SIZE.size
    at = start + pickled_size
    buffers: list[memoryview] = []
    for number in range(count):
        (size,) = _SIZE.unpack_from(view, _HEAD.size + number * _SIZE.size)
        at = _aligned(at)
        buffers.append(view[at : at + size])
        at += size
    return pickle.loads(view[start : start + pickled_size], buffers=buffers)


def find_culprit(value: object, name: str = "", depth: int = 6) -> str:
    """Which attribute of an object cannot be serialised, as a dotted path.

    Args:
        value: an object that cannot.
        name: what the path begins with.
        depth: how far to look.
    """
    here = name or type(value).__name__
    parts: list[tuple[str, object]] = []
    if isinstance(value, dict):
        parts = [(f"{here}[{key!r}]", part) for key, part in list(value.items())[:1000]]
    elif isinstance(value, (list, tuple)):
        parts = [(f"{here}[{at}]", part) for at, part in enumerate(value[:1000])]
    elif hasattr(value, "__dict__"):
        parts = [(f"{here}.{key}", part) for key, part in vars(value).items()]
    for path, part in parts:
        try:
            dump_by_value(part, [])
        except Exception:
            return path if depth == 0 else find_culprit(part, path, depth - 1)
    return f"{here}, of type {type(value).__name__}"


def _aligned(at: int) -> int:
    return -(-at // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
