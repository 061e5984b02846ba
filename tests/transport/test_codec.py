from __future__ import annotations

import collections
import dataclasses
import math
import multiprocessing
import pickle
import struct
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from penstock.errors import SerializationError, WireError
from penstock.transport.arena import Arena
from penstock.transport.codec import INLINE_BYTES, decode, encode
from penstock.transport.writer import SlotWriter

LARGE = 3 * INLINE_BYTES


class Point(collections.namedtuple("Point", "x y")):
    __slots__ = ()


@dataclasses.dataclass
class Record:
    name: str
    value: object


class Tagged(torch.Tensor):
    pass


def through_message(value):
    """Both ways of a value that has no slot."""
    return decode(memoryview(encode(value, None)), None)


def through_slot(value, *, portable=False):
    """Both ways of a value through a slot; also tells what of the slot it took."""
    arena = Arena(most_lent=4, portable=portable)
    try:
        number, capacity, _ = arena.acquire(0)
        writer = SlotWriter(arena.descriptor, arena.stride)
        writer.begin(number, capacity)
        body = encode(value, writer)
        arena.note_capacity(number, writer.capacity)
        root = arena.lend(number, writer.used) if writer.used else None
        return decode(memoryview(body), root), writer.used, len(body)
    finally:
        arena.close()


def assert_same(found, expected):
    """Equal in type, content, dtype, and layout as far as that matters; and writable."""
    assert type(found) is type(expected)
    if isinstance(expected, torch.Tensor):
        assert_same_tensor(found, expected)
    elif isinstance(expected, np.ndarray):
        assert found.shape == expected.shape
        if found.dtype != expected.dtype:
            # NumPy itself puts times, and what has gaps, into the machine's order of bytes.
            expected = expected.astype(expected.dtype.newbyteorder("="))
        assert found.dtype == expected.dtype
        if isinstance(expected, np.ma.MaskedArray):
            assert (found.mask == expected.mask).all()
            assert (found.data == expected.data).all()
        elif expected.dtype.hasobject:
            assert found.tolist() == expected.tolist()
        else:
            # The bytes: a NaN differs from itself, and -0.0 does not differ from 0.0.
            assert found.tobytes() == expected.tobytes()
        assert found.flags.writeable
        assert found.flags.aligned or not expected.flags.aligned
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    elif dataclasses.is_dataclass(expected):
        assert_same(vars(found), vars(expected))
    elif isinstance(expected, float) and math.isnan(expected):
        assert math.isnan(found)
    else:
        assert found == expected


def assert_same_tensor(found, expected):
    assert (found.dtype, found.shape, found.layout) == (
        expected.dtype,
        expected.shape,
        expected.layout,
    )
    assert found.requires_grad == expected.requires_grad
    if expected.layout is not torch.strided:
        found, expected = found.to_dense(), expected.to_dense()
    assert raw_bytes(found) == raw_bytes(expected)
    # Overlapping memory would raise here, and read-only memory end the process.
    found.detach().copy_(found.detach().clone())


def raw_bytes(tensor):
    if not tensor.numel():
        return b""
    dense = tensor.detach().resolve_conj().resolve_neg()
    return dense.clone(memory_format=torch.contiguous_format).view(-1).view(torch.uint8).tolist()


ALL_DTYPES = sorted(
    {
        dtype
        for name in dir(torch)
        if isinstance(dtype := getattr(torch, name), torch.dtype)
        # Without arithmetic, constructor, or documentation; quantised ones are tested apart.
        and not str(dtype).startswith(("torch.q", "torch.bits", "torch.int1", "torch.uint1"))
        and (
            dtype.itemsize > 1 or dtype in (torch.bool, torch.int8, torch.uint8) or "float" in name
        )
    }
    | {torch.int16, torch.uint16},
    key=str,
)


def some_tensor(dtype, *shape):
    count = math.prod(shape) * dtype.itemsize
    flat = torch.arange(count, dtype=torch.int64).mul(37).remainder(128).to(torch.uint8)
    if dtype is torch.bool:
        flat = flat.remainder(2)
    return flat.view(dtype).view(shape) if count else torch.empty(shape, dtype=dtype)


# Structures.

dtypes = st.one_of(
    hnp.scalar_dtypes(),
    hnp.unicode_string_dtypes(),
    hnp.byte_string_dtypes(),
    hnp.datetime64_dtypes(endianness=">"),
    hnp.floating_dtypes(endianness=">"),
    hnp.integer_dtypes(endianness=">"),
    hnp.array_dtypes(hnp.scalar_dtypes(), max_size=3),
)
arrays = dtypes.flatmap(
    lambda dtype: hnp.arrays(
        dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
    )
)


@st.composite
def rearranged_arrays(draw):
    array = draw(arrays)
    change = draw(st.sampled_from(["", "T", "F", "step", "reverse", "readonly", "broadcast"]))
    if change == "T":
        return array.T
    if change == "F":
        return np.asfortranarray(array)
    if change == "step" and array.ndim:
        return array[..., ::2]
    if change == "reverse" and array.ndim:
        return array[::-1]
    if change == "readonly":
        array.flags.writeable = False
    if change == "broadcast":
        return np.broadcast_to(array, (2, *array.shape))
    return array


@st.composite
def tensors(draw):
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3))
    tensor = some_tensor(draw(st.sampled_from(ALL_DTYPES)), *shape)
    if tensor.dim() and draw(st.booleans()):
        tensor = tensor.permute(*draw(st.permutations(range(tensor.dim()))))
    if tensor.dim() and draw(st.booleans()):
        tensor = tensor[..., ::2]
    if draw(st.booleans()):
        tensor = tensor.expand(2, *tensor.shape)
    if tensor.is_complex() and tensor.dtype is not torch.complex32 and draw(st.booleans()):
        tensor = tensor.conj()
    if tensor.dtype.is_floating_point and draw(st.booleans()):
        tensor = tensor.detach().requires_grad_()
    return tensor


leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.complex_numbers(allow_nan=False),
    st.text(max_size=5),
    st.binary(max_size=5),
    rearranged_arrays(),
    tensors(),
)
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.dictionaries(st.text(max_size=3), inner, max_size=4),
        st.builds(Point, inner, inner),
        st.builds(Record, st.text(max_size=3), inner),
    ),
    max_leaves=8,
)


@pytest.fixture(autouse=True)
def _experimental_dtypes_may_say_so():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "ComplexHalf support is experimental")
        yield


@settings(max_examples=200)
@given(values)
def test_any_structure_arrives_as_it_was(value):
    assert_same(through_message(value), value)


@settings(max_examples=100)
@given(values)
def test_any_structure_arrives_as_it_was_next_to_a_large_array(value):
    large = np.arange(LARGE, dtype=np.uint8)
    (found, found_large), used, _ = through_slot((value, large))
    assert used >= LARGE
    assert_same(found, value)
    assert_same(found_large, large)


@pytest.mark.parametrize("portable", [False, True])
@pytest.mark.parametrize("dtype", ALL_DTYPES, ids=str)
def test_a_tensor_of_any_dtype_arrives_through_a_slot(dtype, portable):
    tensor = some_tensor(dtype, LARGE // dtype.itemsize // 4, 4)
    found, used, size = through_slot(tensor, portable=portable)
    assert used == LARGE
    assert size < 1000
    assert_same(found, tensor)


LARGE_THINGS = {
    "channels last": lambda: some_tensor(torch.float32, 2, 64, 32, 32).to(
        memory_format=torch.channels_last
    ),
    "transposed": lambda: some_tensor(torch.float32, 300, 200).T,
    "expanded": lambda: some_tensor(torch.float32, 1, 256).expand(256, 256),
    "a window": lambda: some_tensor(torch.float32, 300, 300)[3:290:2, 7:],
    "conjugated": lambda: some_tensor(torch.complex64, 200, 200).conj(),
    "negated": lambda: torch.randn(200, 200, dtype=torch.complex64).conj().imag,
    "negated and dense": lambda: torch._neg_view(torch.randn(200, 200)),
    "a leaf with gradient": lambda: torch.randn(200, 200, requires_grad=True),
    "a parameter": lambda: torch.nn.Parameter(torch.randn(200, 200)),
    "a frozen parameter": lambda: torch.nn.Parameter(torch.randn(200, 200), requires_grad=False),
    "sparse COO": lambda: torch.eye(300).to_sparse(),
    "sparse CSR": lambda: torch.ones(200, 200).to_sparse_csr(),
    "a subclass": lambda: torch.randn(200, 200).as_subclass(Tagged),
    "an F-ordered array": lambda: np.asfortranarray(np.arange(90000.0).reshape(300, 300)),
    "a strided array": lambda: np.arange(90000.0).reshape(300, 300)[::2, ::3],
    "times": lambda: np.arange(90000).astype("M8[s]").reshape(300, 300),
    "big-endian": lambda: np.arange(90000, dtype=">f4"),
    "records": lambda: np.zeros(30000, [("a", "<i4"), ("b", "<f8", (2,)), ("c", "S3")]),
    "objects": lambda: np.array([1, "two", None, (3,)] * 9000, dtype=object),
    "read-only": lambda: np.frombuffer(bytes(range(256)) * 1000, np.uint8),
    "a Fortran-ordered read-only array": lambda: np.broadcast_to(np.arange(3.0), (30000, 3)).T,
    "half": lambda: np.arange(60000).astype(np.float16),
    "a masked array": lambda: np.ma.array(np.arange(90000), mask=np.arange(90000) % 2),
}


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning", "ignore:Sparse invariant:UserWarning")
@pytest.mark.parametrize("make", LARGE_THINGS.values(), ids=LARGE_THINGS)
@pytest.mark.parametrize("way", [through_message, lambda value: through_slot(value)[0]])
def test_a_large_thing_arrives_as_it_was(make, way):
    value = make()
    assert_same(way(value), value)


def test_a_tensor_keeps_the_order_of_its_dimensions_in_memory():
    tensor = LARGE_THINGS["channels last"]()
    found = through_slot(tensor)[0]
    assert found.stride() == tensor.stride()
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_a_quantised_tensor_arrives():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tensor = torch.quantize_per_tensor(torch.arange(200.0), 0.5, 3, torch.quint8)
        found = through_message([tensor])[0]
        assert torch.equal(found.int_repr(), tensor.int_repr())
        assert (found.q_scale(), found.q_zero_point()) == (0.5, 3)


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA", "P", "I;16"])
def test_a_picture_arrives(mode):
    picture = Image.new(mode, (300, 200))
    picture.putpixel((3, 4), picture.getpixel((0, 0)))
    found, _, _ = through_slot(picture)
    assert (found.mode, found.size) == (picture.mode, picture.size)
    assert found.tobytes() == picture.tobytes()


def test_lambdas_and_local_classes_arrive():
    class Local:
        def __init__(self, number):
            self.number = number

    function, instance, array = through_message((lambda x: x + 1, Local(7), np.arange(4)))
    assert function(4) == 5
    assert instance.number == 7
    assert array.tolist() == [0, 1, 2, 3]


def test_a_local_class_goes_along_with_large_arrays_and_each_array_only_once():
    class Local:
        array = np.arange(LARGE, dtype=np.uint8)

    instance = Local()
    instance.own = torch.ones(LARGE, dtype=torch.uint8)  # type: ignore[attr-defined]
    found, used, _ = through_slot(instance)
    assert found.own.sum() == LARGE
    assert 2 * LARGE <= used < 2 * LARGE + 1000


def test_the_same_array_twice_arrives_as_the_same_array():
    array, tensor = np.arange(LARGE), torch.ones(LARGE)
    (first, second, third, fourth), used, _ = through_slot([array, array, tensor, tensor])
    assert first is second
    assert third is fourth
    assert used <= array.nbytes + 4 * LARGE + 1000


# Where things travel.


def test_a_small_value_takes_nothing_of_the_slot():
    _, used, size = through_slot([torch.ones(100), np.ones(100), "text"])
    assert used == 0
    assert size < 2000


def test_large_meta_data_goes_through_the_slot():
    text = "§" * (5 << 20)
    found, used, size = through_slot([text, np.arange(5)])
    assert found[0] == text
    assert found[1].tolist() == [0, 1, 2, 3, 4]
    assert used > 5 << 20
    assert size < 200


def test_what_lies_in_the_slot_already_is_not_copied():
    arena = Arena(most_lent=1)
    writer = SlotWriter(arena.descriptor, arena.stride)
    writer.begin(*arena.acquire(0))
    room = writer.allocate(LARGE)
    batch = torch.from_numpy(room).view(-1, 3).fill_(5)
    body = encode({"image": batch, "part": batch[10:9000]}, writer)
    assert writer.used == LARGE
    arena.note_capacity(0, writer.capacity)
    root = arena.lend(0, writer.used)
    found = decode(memoryview(body), root)
    assert torch.equal(found["image"], torch.full((LARGE // 3, 3), 5, dtype=torch.uint8))
    assert np.shares_memory(found["part"].numpy(), root)
    arena.close()


def test_buffers_in_a_message_are_aligned_and_do_not_keep_it():
    body = bytearray(b"x" + encode([np.arange(3.0), b"odd", np.arange(7.0)], None))
    first, _, second = decode(memoryview(body)[1:], None)
    body[:] = bytes(len(body))
    assert first.flags.aligned
    assert second.tolist() == list(range(7))


def test_empty_arrays_among_large_ones_arrive():
    value = [np.empty((0, 3)), np.ones(LARGE), torch.empty(0, 5), np.empty(0, "M8[s]")]
    assert_same(through_slot(value)[0], value)


# What cannot travel.


class Unpicklable:
    def __reduce__(self):
        raise TypeError("cannot pickle this")


class Unrebuildable:
    def __reduce__(self):
        return (float, ("no number",))


def test_what_cannot_be_serialised_says_what_to_return_instead():
    with pytest.raises(SerializationError, match=r"cannot pickle this.*Return tensors"):
        encode([torch.ones(3), Unpicklable()], None)


def test_a_connection_of_multiprocessing_is_refused():
    ends = multiprocessing.Pipe()
    with pytest.raises(SerializationError, match="a connection of multiprocessing"):
        encode(ends, None)
    for end in ends:
        end.close()


def test_a_tensor_with_a_graph_is_refused_as_torch_refuses_it():
    with pytest.raises(RuntimeError, match=r"refusing to serialize non-leaf.*detach"):
        encode(torch.ones(3, requires_grad=True) * 2, None)


def test_what_cannot_be_rebuilt_says_so():
    body = encode([torch.ones(3), Unrebuildable()], None)
    with pytest.raises(SerializationError, match=r"ValueError.*may unpickle only where") as caught:
        decode(memoryview(body), None)
    assert isinstance(caught.value.__cause__, ValueError)


# What is not what a worker writes. The pickle itself is left alone: unpickling arbitrary bytes
# may do anything at all, which is why only bytes of a loader's own workers are unpickled.

SAMPLE = {"large": np.arange(LARGE, dtype=np.uint8), "text": "x" * 50}
MIXED = [np.arange(300.0), torch.arange(200), "y" * 40]


def encoded(value, *, slotted):
    if not slotted:
        return encode(value, None), None
    arena = Arena(most_lent=1)
    writer = SlotWriter(arena.descriptor, arena.stride)
    writer.begin(*arena.acquire(0))
    body = encode(value, writer)
    arena.note_capacity(0, writer.capacity)
    root = arena.lend(0, writer.used)
    arena.close()
    return body, root


def table_size(body):
    return 16 + 16 * struct.unpack_from("<I", body)[0]


def check_damaged(body, root):
    try:
        found = decode(memoryview(bytes(body)), root)
    except (WireError, SerializationError):
        return
    touch(found)


def touch(value):
    """Reads all memory of a value, which outside of the slot would end the process."""
    if isinstance(value, np.ndarray):
        value.tobytes()
    elif isinstance(value, torch.Tensor):
        value.clone()
    elif isinstance(value, dict):
        for part in value.values():
            touch(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            touch(part)


@pytest.mark.parametrize(("value", "slotted"), [(SAMPLE, True), (MIXED, False)])
def test_a_damaged_table_never_reaches_out_of_the_slot_or_the_message(value, slotted):
    body, root = encoded(value, slotted=slotted)

    @settings(max_examples=300)
    @given(st.integers(4, table_size(body) - 1), st.integers(0, 7))
    def flip(at, bit):
        damaged = bytearray(body)
        damaged[at] ^= 1 << bit
        check_damaged(damaged, root)

    flip()


@settings(max_examples=300)
@given(st.integers(0, 40), st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**64 - 1))
def test_a_buffer_outside_of_the_slot_is_refused(count, offset, size):
    meta = pickle.dumps(list(range(3)))
    root = np.zeros(1000, np.uint8)
    body = struct.pack("<IIq", count, len(meta), -1)
    body += struct.pack("<qQ", offset, size) * count + meta
    inside = 0 <= offset <= 1000 and offset + size <= 1000
    # A negative offset stands for a buffer behind the meta data, and there is none.
    if not count or inside or (offset < 0 and not size):
        assert decode(memoryview(body), root) == [0, 1, 2]
        return
    with pytest.raises(WireError):
        decode(memoryview(body), root)


@settings(max_examples=200)
@given(st.binary(max_size=15))
def test_less_than_a_head_is_refused(body):
    with pytest.raises(WireError):
        decode(memoryview(body), None)


@pytest.mark.parametrize(("value", "slotted"), [(SAMPLE, True), (MIXED, False), ("plain", False)])
def test_a_body_that_is_cut_anywhere_is_refused(value, slotted):
    body, root = encoded(value, slotted=slotted)
    whole = memoryview(body)
    for length in range(len(body)):
        with pytest.raises((WireError, SerializationError)):
            decode(whole[:length], root)
    decode(whole, root)


def test_a_message_that_refers_to_a_slot_is_refused_without_one():
    body, root = encoded(SAMPLE, slotted=True)
    with pytest.raises(WireError, match="outside its slot"):
        decode(memoryview(body), None)
    assert root is not None
    with pytest.raises(WireError, match="outside its slot"):
        decode(memoryview(body), root[:-1])


@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (0, 3), (3, 0)], ids=str)
@pytest.mark.parametrize("dtype", ALL_DTYPES, ids=str)
def test_a_small_tensor_of_any_dtype_arrives_in_a_message(dtype, shape):
    tensor = some_tensor(dtype, *shape)
    assert_same(through_message([tensor])[0], tensor)


@pytest.mark.parametrize("number", [0, 5, -1, 1 << 40])
def test_a_tensor_of_a_single_whole_number_arrives(number):
    # An array of no dimensions is also an index, and an index may be taken for a length.
    found = through_message(torch.tensor(number))
    assert found.item() == number
    assert found.shape == ()
