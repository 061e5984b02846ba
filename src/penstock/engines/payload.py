"""The dataset on its way to the workers: serialised once, however many there are.

Under fork it is inherited as it is. Otherwise it is pickled by value with cloudpickle, so that
lambdas and classes of a `__main__` work, into one nameless file that all workers map. The memory of
arrays and tensors stays in that file: workers share its pages until they write to them. Files that
are shared already (large lists, a `SharedSequence`) travel beside it.
"""

from __future__ import annotations

import io
import mmap
import os
import pickle
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from penstock.errors import SerializationError
from penstock.transport.backing import open_backing
from penstock.transport.closing import Closing
from penstock.transport.codec import dump_by_value, find_culprit
from penstock.transport.packing import Packed
from penstock.transport.shared_file import SharedFile, arriving, carrying
from penstock.transport.shared_list import SharedList

if TYPE_CHECKING:
    from penstock.engines.shared_lists import SharedLists

_ALIGNMENT_BYTES = 64
_HEAD = struct.Struct("<QQQ")  # bytes of the pickle, buffers, lists in shared files
_SIZE = struct.Struct("<Q")


class Payload:
    """A serialised object in a nameless file.

    Args:
        value: the object.
        lists: those in it that are shared.

    Raises:
        SerializationError: it cannot be serialised; the message names the attribute at fault.

    Attributes:
        descriptor: the file's.
        files: those that have to travel beside it.
    """

    def __init__(self, value: object, lists: SharedLists | None = None) -> None:
        buffers: list[pickle.PickleBuffer] = []
        names = _Names(lists) if lists is not None and lists.found else None
        try:
            with carrying() as self.files:
                pickled = dump_by_value(value, buffers, names)
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
        head = _HEAD.pack(len(pickled), len(raws), 0 if names is None else len(names))
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
        self.files = []


class _Names(dict[int, tuple[int, SharedFile, Packed]]):
    """What travels in the place of shared lists: the same for a list that is met again."""

    def __init__(self, lists: SharedLists) -> None:
        super().__init__()
        self._lists = lists

    def __call__(self, items: list[Any]) -> object:
        found = self._lists.find(items)
        if found is None:
            return None
        return self.setdefault(id(items), (len(self), found.file, found.packed))


class _Unpickler(pickle.Unpickler):
    """Has shared lists for their names."""

    def __init__(self, pickled: memoryview, buffers: list[memoryview]) -> None:
        super().__init__(io.BytesIO(pickled), buffers=buffers)
        self._lists: dict[int, SharedList] = {}

    def persistent_load(self, name: Any) -> SharedList:
        number, file, packed = name
        if number not in self._lists:
            self._lists[number] = SharedList.over(file, packed)
        return self._lists[number]


def load_payload(descriptor: int, files: Sequence[int] = ()) -> Any:
    """Rebuilds the object of a `Payload` in a worker.

    Args:
        descriptor: the file's; closed afterwards.
        files: the descriptors of those that have travelled beside it, which become the object's.
    """
    shared = [SharedFile(file) for file in files]
    memory = mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY)
    os.close(descriptor)
    view = memoryview(memory)
    pickled_size, count, lists = _HEAD.unpack_from(view)
    start = _HEAD.size + count * _SIZE.size
    at = start + pickled_size
    buffers: list[memoryview] = []
    for number in range(count):
        (size,) = _SIZE.unpack_from(view, _HEAD.size + number * _SIZE.size)
        at = _aligned(at)
        buffers.append(view[at : at + size])
        at += size
    pickled = view[start : start + pickled_size]
    with arriving(shared):
        if lists:
            return _Unpickler(pickled, buffers).load()
        return pickle.loads(pickled, buffers=buffers)


def _aligned(at: int) -> int:
    return -(-at // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
