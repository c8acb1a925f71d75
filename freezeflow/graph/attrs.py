"""Attribute values of nodes, kept as the bytes of their ``AttrValue`` message.

Bytes compare, hash and copy at no cost, keep unknown fields, and are canonical once written with
sorted maps. These functions make and read the kinds that freezeflow works with.
Source of the format: upstream ``core/framework/attr_value.proto``.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

from freezeflow.messages import message_class
from freezeflow.values import DType, Shape

_DTYPES = frozenset(int(dtype) for dtype in DType)


def message(data: bytes) -> Any:
    """The ``AttrValue`` message; treat it as read-only, small ones are shared."""
    return _small_message(data) if len(data) < 256 else _parse(data)


def _parse(data: bytes) -> Any:
    return message_class("AttrValue").FromString(data)


_small_message = functools.lru_cache(maxsize=8192)(_parse)


def encode(value: Any) -> bytes:
    """The canonical bytes of an ``AttrValue`` message."""
    data: bytes = value.SerializeToString(deterministic=True)
    return data


def canonical(data: bytes) -> bytes:
    """The canonical bytes of an ``AttrValue`` message in any form; raises DecodeError for none."""
    return encode(_parse(data))


def kind(data: bytes) -> str | None:
    """Which field is set: list, s, i, f, b, type, shape, tensor, placeholder, func; None if none."""
    found: str | None = message(data).WhichOneof("value")
    return found


# ---------------------------------------------------------------- types


@functools.cache
def of_type(dtype: DType) -> bytes:
    return encode(message_class("AttrValue")(type=int(dtype)))


def to_type(data: bytes) -> DType:
    """The dtype of a ``type`` attribute, reference types included as base types."""
    number = data[1] if len(data) == 2 and data[0] == 0x30 else message(data).type
    return DType(number - 100 if number > 100 else number)


def of_types(dtypes: Iterable[DType]) -> bytes:
    value = message_class("AttrValue")()
    value.list.SetInParent()
    value.list.type.extend(int(dtype) for dtype in dtypes)
    return encode(value)


@functools.lru_cache(maxsize=8192)
def to_types(data: bytes) -> tuple[DType, ...]:
    return tuple(DType(n - 100 if n > 100 else n) for n in message(data).list.type)


def unknown_dtype(data: bytes) -> int | None:
    """The first dtype number that is not known, nested bindings included; quick without dtypes."""
    # Tags: 0x30 is AttrValue.type, 0x0a is AttrValue.list, 0x52 is AttrValue.func.
    return _unknown_dtype(data) if data and data[0] in (0x30, 0x0A, 0x52) else None


@functools.lru_cache(maxsize=8192)
def _unknown_dtype(data: bytes) -> int | None:
    value = message(data)
    for number in (value.type, *value.list.type):
        if (number - 100 if number > 100 else number) not in _DTYPES:
            return int(number)
    for func in (value.func, *value.list.func):
        for bound in func.attr.values():
            found = unknown_dtype(encode(bound))
            if found is not None:
                return found
    return None


# ---------------------------------------------------------------- scalars


@functools.lru_cache(maxsize=8192)
def of_int(number: int) -> bytes:
    return encode(message_class("AttrValue")(i=number))


def to_int(data: bytes) -> int:
    number: int = message(data).i
    return number


@functools.cache
def of_bool(flag: bool) -> bytes:
    return encode(message_class("AttrValue")(b=flag))


def of_bytes(text: bytes) -> bytes:
    return encode(message_class("AttrValue")(s=text))


def to_bytes(data: bytes) -> bytes:
    text: bytes = message(data).s
    return text


def of_ints(numbers: Iterable[int]) -> bytes:
    value = message_class("AttrValue")()
    value.list.SetInParent()
    value.list.i.extend(numbers)
    return encode(value)


# ---------------------------------------------------------------- shapes


def fill_shape(target: Any, shape: Shape) -> None:
    """Writes a shape into a ``TensorShapeProto`` message."""
    if shape is None:
        target.unknown_rank = True
    else:
        target.SetInParent()
        for size in shape:
            target.dim.add(size=-1 if size is None else size)


def read_shape(source: Any) -> Shape:
    """The shape that a ``TensorShapeProto`` message holds."""
    if source.unknown_rank:
        return None
    return tuple(None if dim.size < 0 else dim.size for dim in source.dim)


def of_shape(shape: Shape) -> bytes:
    value = message_class("AttrValue")()
    fill_shape(value.shape, shape)
    return encode(value)


def to_shape(data: bytes) -> Shape:
    return read_shape(message(data).shape)


def of_shapes(shapes: Iterable[Shape]) -> bytes:
    value = message_class("AttrValue")()
    value.list.SetInParent()
    for shape in shapes:
        fill_shape(value.list.shape.add(), shape)
    return encode(value)


def to_shapes(data: bytes) -> tuple[Shape, ...]:
    return tuple(read_shape(shape) for shape in message(data).list.shape)


# ---------------------------------------------------------------- functions


def of_function(name: str, bindings: Mapping[str, bytes] | None = None) -> bytes:
    """A ``func`` attribute: the function's name and values for its attribute placeholders."""
    value = message_class("AttrValue")()
    _fill_function(value.func, name, bindings)
    return encode(value)


def of_functions(calls: Iterable[tuple[str, Mapping[str, bytes]]]) -> bytes:
    value = message_class("AttrValue")()
    value.list.SetInParent()
    for name, bindings in calls:
        _fill_function(value.list.func.add(), name, bindings)
    return encode(value)


def to_function(data: bytes) -> tuple[str, dict[str, bytes]]:
    """Name and attribute bindings of a ``func`` attribute."""
    return _read_function(message(data).func)


def to_functions(data: bytes) -> tuple[tuple[str, dict[str, bytes]], ...]:
    """Name and attribute bindings of each function in a list attribute."""
    return tuple(_read_function(func) for func in message(data).list.func)


def _fill_function(target: Any, name: str, bindings: Mapping[str, bytes] | None) -> None:
    target.name = name
    for key, data in (bindings or {}).items():
        target.attr[key].MergeFromString(data)


def _read_function(source: Any) -> tuple[str, dict[str, bytes]]:
    return source.name, {key: encode(value) for key, value in source.attr.items()}


# First byte of an attribute that can name a function: tag of AttrValue.func, of AttrValue.list.
MAY_HOLD_FUNCTIONS = frozenset({b"\x52", b"\x0a"})


def function_names(data: bytes) -> tuple[str, ...]:
    """Every function that an attribute names, nested bindings included; quick where there is none."""
    if data[:1] not in MAY_HOLD_FUNCTIONS:
        return ()
    return _function_names(data)


# A set of attributes that many nodes share, by identity, with the functions that it names.
_known_sets: dict[int, tuple[Mapping[str, bytes], tuple[str, ...]]] = {}
_MOST_KNOWN_SETS = 32768


def functions_in(values: Mapping[str, bytes]) -> tuple[str, ...]:
    """Every function that attributes name, by sorted key; they must not be changed afterwards."""
    known = _known_sets.get(id(values))
    if known is not None and known[0] is values:
        return known[1]
    holding = [key for key, data in values.items() if data[:1] in MAY_HOLD_FUNCTIONS]
    if not holding:
        names: tuple[str, ...] = ()
    else:
        names = tuple(name for key in sorted(holding) for name in function_names(values[key]))
    if len(_known_sets) >= _MOST_KNOWN_SETS:
        _known_sets.clear()
    _known_sets[id(values)] = (values, names)
    return names


@functools.lru_cache(maxsize=8192)
def _function_names(data: bytes) -> tuple[str, ...]:
    value = message(data)
    funcs = [value.func] if value.WhichOneof("value") == "func" else value.list.func
    names: list[str] = []
    for func in funcs:
        names.append(func.name)
        for key in sorted(func.attr):
            names += function_names(encode(func.attr[key]))
    return tuple(names)
