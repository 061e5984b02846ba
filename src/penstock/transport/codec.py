"""A value of any structure ⇄ a few bytes of meta data and its large buffers.

The structure is pickled with protocol 5, which passes array memory by without copying it.
Each buffer then goes where it is cheapest::

    in the slot already (collated there)        → its offset is sent
    small, as is everything else of the batch   → behind the meta data, through the pipe
    anything else                               → copied into the slot

Only bytes from a loader's own workers are ever unpickled here.
"""

from __future__ import annotations

import copyreg
import io
import pickle
import struct
from collections import ChainMap
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any, ClassVar, NoReturn

import cloudpickle
import numpy as np
import torch

from penstock.errors import SerializationError, WireError
from penstock.transport.backing import Bytes
from penstock.transport.pictures import pillow, reduce_image
from penstock.transport.writer import SlotWriter

# A message up to this size travels in the pipe itself; so does a buffer, if all of them
# together stay below it.
INLINE_BYTES = 1 << 16

_COUNTS = struct.Struct("<IIq")  # buffers, bytes of meta data, their offset in the slot or -1
_BUFFER = struct.Struct("<qQ")  # offset in the slot or -1, size

# A tensor up to this size is pickled with its contents: passing its memory by costs more.
SMALL_TENSOR_BYTES = 1 << 12
_DTYPES = (
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.float32,
    torch.float64,
    torch.bool,
    torch.complex64,
    torch.complex128,
)
_DTYPE_NUMBERS = {dtype: number for number, dtype in enumerate(_DTYPES)}

# NumPy has no name for these, so they travel as integers of their size.
_DTYPE_CARRIERS = {
    torch.bfloat16: torch.int16,
    torch.float8_e4m3fn: torch.uint8,
    torch.float8_e4m3fnuz: torch.uint8,
    torch.float8_e5m2: torch.uint8,
    torch.float8_e5m2fnuz: torch.uint8,
    torch.complex32: torch.int32,
}
# Younger than the oldest torch that is supported.
for _name in ("float8_e8m0fnu", "float4_e2m1fn_x2"):
    if hasattr(torch, _name):
        _DTYPE_CARRIERS[getattr(torch, _name)] = torch.uint8


def encode(value: object, writer: SlotWriter | None, inline_bytes: int = INLINE_BYTES) -> bytes:
    """Turns a value into the body of a message; its large buffers go into the slot.

    Args:
        value: anything that can be pickled, or that cloudpickle can.
        writer: the slot, begun for this batch; None to put everything into the message.
        inline_bytes: with a slot, what the message holds itself at most, beside its head.

    Raises:
        SerializationError: it cannot be serialised.
        MemoryBudgetError: the slot cannot hold it.
    """
    buffers: list[pickle.PickleBuffer] = []
    meta = _pickle(value, buffers)
    if not buffers and len(meta) <= inline_bytes:
        return _COUNTS.pack(0, len(meta), -1) + meta
    # A 1-D view of bytes for each; contiguous, since pickle passes only such buffers on.
    raws = [buffer.raw() for buffer in buffers]
    small = sum(raw.nbytes for raw in raws) + len(meta) <= inline_bytes
    meta_at = -1
    if writer is not None and len(meta) > inline_bytes:
        meta_at = _into_slot(memoryview(meta), writer)
    table: list[bytes] = []
    tail: list[bytes | memoryview] = []
    for raw in raws:
        at = -1
        if writer is not None and raw.nbytes:
            found = writer.offset_of(_address(raw), raw.nbytes) if writer.used else None
            if found is not None:
                at = found
            elif not small:
                at = _into_slot(raw, writer)
        table.append(_BUFFER.pack(at, raw.nbytes))
        if at < 0:
            tail.append(raw)
    head = _COUNTS.pack(len(raws), len(meta), meta_at)
    return b"".join([head, *table, b"" if meta_at >= 0 else meta, *tail])


def decode(body: memoryview, slot: Bytes | None, *, copies: bool = False) -> Any:
    """Turns the body of a message back into the value.

    Args:
        body: what `encode` returned.
        slot: the slot's memory, if the message refers to it. Arrays and tensors of the value
            are views of it; the others have memory of their own. All are writable.
        copies: whether those too have memory of their own.

    Raises:
        WireError: the body is not consistent.
        SerializationError: the value cannot be rebuilt in this process.
    """
    buffers: list[Any] = []
    try:
        count, meta_size, meta_at = _COUNTS.unpack_from(body)
        at = _COUNTS.size + count * _BUFFER.size
        if meta_at >= 0:
            meta: Any = _from_slot(slot, meta_at, meta_size)
        else:
            meta = body[at : at + meta_size]
            at += meta_size
        for number in range(count):
            offset, size = _BUFFER.unpack_from(body, _COUNTS.size + number * _BUFFER.size)
            if offset >= 0:
                found = _from_slot(slot, offset, size)
                buffers.append(bytearray(found) if copies else found)
                continue
            if at + size > len(body):
                raise WireError(f"a buffer of {size} bytes ends behind its message")
            # Memory of its own: aligned, and the message is not kept alive for it.
            buffers.append(bytearray(body[at : at + size]))
            at += size
    except struct.error as error:
        raise WireError(f"a message of {len(body)} bytes ends too soon") from error
    try:
        return pickle.loads(meta, buffers=buffers)
    except Exception as error:
        raise SerializationError(
            f"a worker's batch cannot be rebuilt in the training process: "
            f"{type(error).__name__}: {error}. A class in it may unpickle only where it was "
            "made; return tensors, arrays or plain values, or give it __reduce__"
        ) from error


def _from_slot(slot: Bytes | None, offset: int, size: int) -> Bytes:
    if slot is None or offset + size > slot.size:
        raise WireError(f"a buffer at {offset} of {size} bytes lies outside its slot")
    return slot[offset : offset + size]


def _into_slot(raw: memoryview, writer: SlotWriter) -> int:
    room = writer.allocate(raw.nbytes)
    at = writer.used - raw.nbytes
    # Through NumPy, which lets go of the lock of the interpreter for a large copy.
    room[:] = np.frombuffer(raw, np.uint8)
    return at


def _address(raw: memoryview) -> int:
    return int(np.frombuffer(raw, np.uint8).__array_interface__["data"][0])


# Pickling.

_Reduction = tuple[Any, ...]


def _pickle(value: object, buffers: list[pickle.PickleBuffer]) -> bytes:
    stream = io.BytesIO()
    pickler = pickle.Pickler(stream, 5, buffer_callback=buffers.append)
    pickler.dispatch_table = _dispatch_table()
    try:
        pickler.dump(value)
        return stream.getvalue()
    except (pickle.PicklingError, AttributeError, TypeError):
        # A local class, a lambda, or a class of a `__main__` that this process does not run.
        pass
    buffers.clear()
    try:
        return dump_by_value(value, buffers)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        # Behind a batch come our own notes on it.
        batch = value[0] if isinstance(value, tuple) and value else value
        raise SerializationError(
            "a worker made something that cannot be sent to the training process: "
            f"{find_culprit(batch, 'batch')}: {error}. Return tensors, arrays or plain values "
            "from the dataset and collate_fn"
        ) from error


_merged: dict[type, Any] = {}
_merged_from: tuple[int, object] = (-1, None)


def _dispatch_table() -> dict[type, Any]:
    """The reducers of the program and ours; made anew only when the program adds one."""
    global _merged, _merged_from
    images = pillow()
    if (len(copyreg.dispatch_table), images) != _merged_from:
        _merged = {**copyreg.dispatch_table, **_REDUCERS}
        if images is not None:
            _merged[images.Image] = reduce_image
        _merged_from = (len(copyreg.dispatch_table), images)
    return _merged


def dump_by_value(
    value: object,
    buffers: list[pickle.PickleBuffer],
    names: Callable[[list[Any]], object] | None = None,
) -> bytes:
    """Pickles with cloudpickle: what cannot be imported elsewhere goes along by value.

    Args:
        value: anything.
        buffers: the memory of arrays and tensors is added to it, uncopied.
        names: called with each list; what it returns, unless None, travels in the list's place,
            and is what `persistent_load` of the unpickler gets.
    """
    stream = io.BytesIO()
    if names is None:
        _ByValuePickler(stream, 5, buffer_callback=buffers.append).dump(value)
    else:
        _NamingPickler(stream, buffers, names).dump(value)
    return stream.getvalue()


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


def _reduce_tensor(tensor: torch.Tensor) -> _Reduction:
    try:
        # Memory with gaps is copied by `_reduce_unusual`: `numpy` would fix the size of all of it.
        if not tensor.is_contiguous():
            return _reduce_unusual(tensor)
        # Refused where it has a gradient, is sparse, elsewhere, or else not plainly memory.
        array = tensor.numpy()
    except (RuntimeError, TypeError):
        return _reduce_unusual(tensor)
    if array.nbytes <= SMALL_TENSOR_BYTES and array.flags.c_contiguous:
        number = _DTYPE_NUMBERS.get(tensor.dtype)
        if number is not None:
            return _small_tensor, (bytearray(array.data), number, array.shape)
    return _reduce_unusual(tensor)


def _reduce_unusual(tensor: torch.Tensor) -> _Reduction:
    """A tensor that is large, or is not plainly memory."""
    if (
        tensor.layout is not torch.strided
        or tensor.is_nested
        or tensor.device.type != "cpu"
        or tensor.is_quantized
    ):
        return tensor.__reduce_ex__(5)  # type: ignore[no-any-return, no-untyped-call]
    if tensor.requires_grad and not tensor.is_leaf:
        # The same refusal, for the same reason, as torch.multiprocessing's.
        raise RuntimeError(
            "Cowardly refusing to serialize non-leaf tensor which requires_grad: its graph would "
            "be lost on the way to the training process. Call detach() on it in the dataset"
        )
    plain = tensor.detach() if tensor.requires_grad else tensor
    if plain.is_conj() or plain.is_neg():
        plain = plain.resolve_conj().resolve_neg()
    dtype = plain.dtype
    carrier = _DTYPE_CARRIERS.get(dtype)
    if carrier is not None:
        plain = plain.view(carrier)
    order = None
    if not plain.is_contiguous():
        plain, order = _dense_order(plain)
    carried = None if carrier is None else dtype
    if order is None and not tensor.requires_grad and carried is None:
        return _tensor, (plain.numpy(),)
    return _unusual_tensor, (plain.numpy(), carried, order, tensor.requires_grad)


def _dense_order(tensor: torch.Tensor) -> tuple[torch.Tensor, list[int] | None]:
    """The tensor with its dimensions in the order of memory, and that order.

    So that a channels-last tensor stays one. Where memory has gaps or overlaps, a copy.
    """
    order = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
    ordered = tensor.permute(order)
    if ordered.is_contiguous():
        return ordered, [order.index(dimension) for dimension in range(tensor.dim())]
    return tensor.contiguous(), None


def _reduce_array(array: np.ndarray[Any, Any]) -> Any:
    if not array.flags.writeable:
        # It would arrive read-only too, as nothing else of a batch does.
        array = array.copy("K")
    return array.__reduce_ex__(5)


def _small_tensor(data: bytearray, number: int, shape: tuple[int, ...]) -> torch.Tensor:
    if not data:
        return torch.empty(shape, dtype=_DTYPES[number])
    tensor = torch.frombuffer(data, dtype=_DTYPES[number])
    return tensor if len(shape) == 1 else tensor.view(shape)


def _tensor(array: np.ndarray[Any, Any]) -> torch.Tensor:
    return torch.from_numpy(array)


def _unusual_tensor(
    array: np.ndarray[Any, Any],
    dtype: torch.dtype | None,
    order: Sequence[int] | None,
    requires_grad: bool,
) -> torch.Tensor:
    tensor = torch.from_numpy(array)
    if dtype is not None:
        tensor = tensor.view(dtype)
    if order is not None:
        tensor = tensor.permute(*order)
    return tensor.requires_grad_(requires_grad)


def _reduce_parameter(parameter: torch.nn.Parameter) -> _Reduction:
    return _parameter, (parameter.detach(), parameter.requires_grad)


def _refuse_connection(connection: object) -> NoReturn:
    # Plain pickle would send the number of its descriptor, which means another file elsewhere.
    raise TypeError("a connection of multiprocessing can only travel as a process is started")


def _parameter(data: torch.Tensor, requires_grad: bool) -> torch.nn.Parameter:
    return torch.nn.Parameter(data, requires_grad)


_REDUCERS: dict[type, Callable[[Any], Any]] = {
    Connection: _refuse_connection,
    np.ndarray: _reduce_array,
    torch.Tensor: _reduce_tensor,
    torch.nn.Parameter: _reduce_parameter,
}


def _refuse_file(file: io.TextIOWrapper) -> _Reduction:
    # cloudpickle would read the whole file and send a copy of its text.
    raise pickle.PicklingError(f"cannot pickle the open file {file.name!r}")


class _ByValuePickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Sends functions and classes that cannot be imported along with the value."""

    dispatch_table: ClassVar = ChainMap(
        {**_REDUCERS, io.TextIOWrapper: _refuse_file}, cloudpickle.Pickler.dispatch_table
    )


class _NamingPickler(_ByValuePickler):
    """Sends names in the place of some lists."""

    def __init__(
        self,
        stream: io.BytesIO,
        buffers: list[pickle.PickleBuffer],
        names: Callable[[list[Any]], object],
    ) -> None:
        super().__init__(stream, 5, buffer_callback=buffers.append)
        self._names = names

    def persistent_id(self, thing: object) -> object:
        # The one way to be asked about a list: other reducers are not.
        return self._names(thing) if type(thing) is list else None
