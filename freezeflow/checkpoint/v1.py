"""V1 checkpoints: tables whose values are messages that hold the tensors themselves.

There is one table, or one for each shard; the entry with the empty key describes the tensors of its
table, every other one holds a slice of a tensor (usually a single one that is all of it).
Source of the format: upstream ``core/util/tensor_slice_writer.h``, ``tensor_slice_reader.cc`` and
``saved_tensor_slice.proto``.
"""

from __future__ import annotations

import array
import contextlib
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from freezeflow.checkpoint.assembly import MemorySource, Part, assemble, assemble_strings
from freezeflow.checkpoint.coding import FULL, Malformed, slice_key
from freezeflow.checkpoint.contents import (
    INLINE_BYTES,
    Entry,
    PutTensor,
    Request,
    Value,
    checked_dtype,
    checked_shape,
    damaged,
    no_such_key,
    refuse_unreadable,
    tensor_bytes,
    wanted_box,
)
from freezeflow.checkpoint.slices import Box, box_shape, covering, resolve, volume
from freezeflow.checkpoint.table import Table
from freezeflow.messages import message_class
from freezeflow.values import DType

# Where a TensorProto keeps the elements of a dtype, and the array type code of one element; no
# other dtype can be in a V1 checkpoint.
_FIELDS: Mapping[DType, tuple[str, str]] = {
    DType.FLOAT: ("float_val", "f"),
    DType.DOUBLE: ("double_val", "d"),
    DType.COMPLEX64: ("scomplex_val", "f"),
    DType.COMPLEX128: ("dcomplex_val", "d"),
    DType.INT64: ("int64_val", "q"),
    DType.UINT64: ("uint64_val", "Q"),
    DType.INT32: ("int_val", "i"),
    DType.QINT32: ("int_val", "i"),
    DType.UINT32: ("uint32_val", "I"),
    DType.INT16: ("int_val", "h"),
    DType.UINT16: ("int_val", "H"),
    DType.QUINT16: ("int_val", "H"),
    DType.INT8: ("int_val", "b"),
    DType.QINT8: ("int_val", "b"),
    DType.UINT8: ("int_val", "B"),
    DType.QUINT8: ("int_val", "B"),
    DType.BOOL: ("bool_val", "B"),
    DType.HALF: ("half_val", "H"),
}


class _Slice(NamedTuple):
    """Where a slice is stored: the number of the table, and the key in it."""

    table: int
    key: bytes


class _Tensor(NamedTuple):
    """What the tables say about a tensor."""

    dtype: DType
    shape: tuple[int, ...]
    slices: dict[Box, _Slice]


class TableCheckpoint:
    """An open V1 checkpoint; see `freezeflow.checkpoint.contents.Checkpoint`.

    Args:
        files: Its tables.

    Raises:
        ModelRefused: A table is damaged, or tables contradict each other.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = tuple(files)
        self._tensors: dict[str, _Tensor] = {}
        for number, path in enumerate(self._files):
            self._add_table(number, path)

    @property
    def files(self) -> tuple[Path, ...]:
        return self._files

    def keys(self) -> tuple[str, ...]:
        return tuple(sorted(self._tensors))

    def entries(self) -> tuple[Entry, ...]:
        return tuple(map(self.describe, self.keys()))

    def describe(self, key: str) -> Entry:
        tensor = self._tensor(key)
        boxes = tuple(sorted(tensor.slices))
        slices = () if len(boxes) == 1 and box_shape(boxes[0]) == tensor.shape else boxes
        return Entry(
            key, tensor.dtype, tensor.shape, tensor_bytes(tensor.dtype, tensor.shape), slices
        )

    def fetch(self, requests: Sequence[Request], put_tensor: PutTensor) -> list[Value]:
        values: dict[Request, Value] = {}
        with contextlib.ExitStack() as stack:
            tables = [stack.enter_context(contextlib.closing(Table(path))) for path in self._files]
            for request in sorted(set(requests)):
                values[request] = self._value(tables, request, put_tensor)
        return [values[request] for request in requests]

    # ------------------------------------------------------------ what there is

    def _add_table(self, number: int, path: Path) -> None:
        with contextlib.closing(Table(path)) as table:
            data = table.get(b"")
        if data is None:
            raise damaged("the table says nothing about its tensors", path)
        for message in _parse(data, path).meta.tensor:
            dtype = checked_dtype(message.type, message.name, path)
            shape = checked_shape(message.shape, message.name, path)
            tensor = self._tensors.setdefault(message.name, _Tensor(dtype, shape, {}))
            if (tensor.dtype, tensor.shape) != (dtype, shape):
                raise damaged(f"{message.name!r} has two shapes or dtypes", path)
            for proto in message.slice:
                box, key = _slice_of(message.name, shape, proto, path)
                if box in tensor.slices:
                    raise damaged(f"a slice of {message.name!r} is stored twice", path)
                tensor.slices[box] = _Slice(number, key)

    def _tensor(self, key: str) -> _Tensor:
        if key not in self._tensors:
            raise no_such_key(key, self._tensors, self._files[0])
        return self._tensors[key]

    # ------------------------------------------------------------ values

    def _value(self, tables: Sequence[Table], request: Request, put_tensor: PutTensor) -> Value:
        key, where = request.key, self._files[0]
        dtype, stored_shape, slices = self._tensor(key)
        refuse_unreadable(dtype, key, where)
        box = wanted_box(request, stored_shape, where)
        shape = box_shape(box)
        if volume(box) == 0:
            return Value(dtype, shape, () if dtype is DType.STRING else b"")
        try:
            parts = covering(box, slices)
        except Malformed as problem:
            raise damaged(f"{key!r}: {problem}", where) from None
        if dtype is DType.STRING:
            strings = [(part, self._strings(tables, key, part)) for part in parts]
            return Value(dtype, shape, assemble_strings(box, strings))
        data = self._numbers(tables, key, box, parts)
        if len(data) <= INLINE_BYTES:
            return Value(dtype, shape, bytes(data))
        return Value(dtype, shape, put_tensor(memoryview(data), dtype, shape))

    def _numbers(
        self, tables: Sequence[Table], key: str, box: Box, parts: Sequence[Box]
    ) -> bytes | bytearray:
        # All are read and checked first: only then is it known that they are as large as they say.
        found = [self._elements(tables, key, part) for part in parts]
        if parts[0] == box:
            return found[0]
        sources = [Part(part, MemorySource(data)) for part, data in zip(parts, found, strict=True)]
        return assemble(box, sources, self._tensors[key].dtype.item_bytes)

    def _elements(self, tables: Sequence[Table], key: str, part: Box) -> bytes:
        """The bytes of a stored slice of numbers."""
        dtype, where = self._tensors[key].dtype, self._path(key, part)
        if dtype not in _FIELDS:
            raise damaged(f"{key!r} is {dtype.tf_name}, which V1 cannot hold", where)
        try:
            data = _field_bytes(self._proto(tables, key, part), *_FIELDS[dtype])
        except OverflowError:
            raise damaged(f"{key!r} holds a number that is no {dtype.tf_name}", where) from None
        expected = volume(part) * dtype.item_bytes
        if len(data) != expected:
            raise damaged(f"{key!r} holds {len(data)} bytes of {expected}", where)
        return data

    def _strings(self, tables: Sequence[Table], key: str, part: Box) -> Sequence[bytes]:
        elements: Sequence[bytes] = self._proto(tables, key, part).string_val
        if len(elements) != volume(part):
            raise damaged(
                f"{key!r} holds {len(elements)} of {volume(part)} strings", self._path(key, part)
            )
        return elements

    def _proto(self, tables: Sequence[Table], key: str, part: Box) -> Any:
        """The ``TensorProto`` of a stored slice."""
        place = self._tensors[key].slices[part]
        data = tables[place.table].get(place.key)
        if data is None:
            raise damaged(f"a slice of {key!r} is missing", self._path(key, part))
        return _parse(data, self._path(key, part)).data.data

    def _path(self, key: str, part: Box) -> Path:
        return self._files[self._tensors[key].slices[part].table]


def _parse(data: bytes, path: Path) -> Any:
    try:
        return message_class("SavedTensorSlices").FromString(data)
    except DecodeError:
        raise damaged("an entry of the table cannot be read", path) from None


def _slice_of(name: str, shape: tuple[int, ...], proto: Any, path: Path) -> tuple[Box, bytes]:
    """The box of a stored slice and its key in the table."""
    extents = [(e.start, e.length if e.HasField("length") else None) for e in proto.extent]
    try:
        box = resolve(shape, extents)
    except Malformed as problem:
        raise damaged(f"{name!r}: {problem}", path) from None
    stored = [(start, FULL if length is None else length) for start, length in extents]
    return box, slice_key(name.encode(), stored)


def _field_bytes(proto: Any, field: str, code: str) -> bytes:
    """The elements of one field of a ``TensorProto``, which is changed.

    Raises:
        OverflowError: An element is outside of what the type code can hold.
    """
    if code not in "fd":
        return array.array(code, getattr(proto, field)).tobytes()
    # Python's floats do not keep the bits of every NaN. On the wire, the elements lie side by side.
    length = len(getattr(proto, field)) * struct.calcsize(code)
    for other, _ in proto.ListFields():
        if other.name != field:
            proto.ClearField(other.name)
    proto.DiscardUnknownFields()
    data: bytes = proto.SerializeToString()
    return data[len(data) - length :]
