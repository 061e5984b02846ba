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
from penstock.transport.backing import open_backing
from penstock.transport.closing import Closing
from penstock.transport.codec import dump_by_value, find_culprit

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
        self._close_file = Closing(self, self.descriptor)
        head = _HEAD.pack(len(pickled), len(raws))
        sizes = b"".join(_SIZE.pack(raw.nbytes) for raw in raws)
        try:
            with open(self.descriptor, "wb", closefd=False) as file:
                file.write(head + sizes + pickled)
                for raw in raws:
                    file.seek(_aligned(file.tell()))
                    file.write(raw)
                self.size = file.tell()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Closes the file; workers that have mapped it keep it."""
        self._close_file()
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


def _aligned(at: int) -> int:
    return -(-at // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
