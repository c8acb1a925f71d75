"""Small graphs and models by hand, for tests.

graph(
    placeholder("x", DType.FLOAT, (None, 2)),
    const("w", [[1.0], [2.0]]),
    node("y", "MatMul", "x", "w", T=DType.FLOAT),
)
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from freezeflow.graph import attrs
from freezeflow.graph.graph import Arg, ControlResult, Function, Graph, Node, Result
from freezeflow.graph.model import Model
from freezeflow.messages import message_class
from freezeflow.values import Digest, DType, Location, Shape, Signature, TensorRef, TensorSpec

_FORMATS = {
    DType.FLOAT: "f",
    DType.DOUBLE: "d",
    DType.INT32: "i",
    DType.INT64: "q",
    DType.BOOL: "?",
    DType.UINT8: "B",
}


def attr(value: Any) -> bytes:
    """An attribute's bytes from a plain value; bytes are taken to be such already."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, DType):
        return attrs.of_type(value)
    if isinstance(value, bool):
        return attrs.of_bool(value)
    if isinstance(value, int):
        return attrs.of_int(value)
    if isinstance(value, float):
        return attrs.encode(message_class("AttrValue")(f=value))
    if isinstance(value, str):
        return attrs.of_bytes(value.encode())
    if value and isinstance(value[0], int) and not isinstance(value[0], DType):
        return attrs.of_ints(value)
    return attrs.of_types(value)


def placeholder_attr(name: str) -> bytes:
    """An attribute that the call of the function gives."""
    return attrs.encode(message_class("AttrValue")(placeholder=name))


def node(name: str, op: str, *inputs: str, device: str = "", **values: Any) -> Node:
    return Node(name, op, inputs, {key: attr(value) for key, value in values.items()}, device)


def placeholder(name: str, dtype: DType = DType.FLOAT, shape: Shape = ()) -> Node:
    return node(name, "Placeholder", dtype=dtype, shape=attrs.of_shape(shape))


def const(name: str, values: Any, dtype: DType = DType.FLOAT) -> Node:
    """A Const that holds nested lists of numbers, or of bytes for strings."""
    shape, flat = _flatten(values)
    value = message_class("AttrValue")()
    value.tensor.dtype = int(dtype)
    value.tensor.tensor_shape.SetInParent()
    for size in shape:
        value.tensor.tensor_shape.dim.add(size=size)
    if dtype is DType.STRING:
        value.tensor.string_val.extend(flat)
    else:
        value.tensor.tensor_content = struct.pack(f"<{len(flat)}{_FORMATS[dtype]}", *flat)
    return node(name, "Const", dtype=dtype, value=attrs.encode(value))


def large_const(name: str, file: Path, data: bytes, shape: tuple[int, ...]) -> Node:
    """A float32 Const whose bytes lie in a file, which is written here."""
    file.write_bytes(data)
    status = file.stat()
    location = Location(str(file), 0, len(data), status.st_mtime_ns, status.st_size, status.st_ino)
    value = message_class("AttrValue")()
    value.tensor.dtype = int(DType.FLOAT)
    value.tensor.tensor_shape.SetInParent()
    for size in shape:
        value.tensor.tensor_shape.dim.add(size=size)
    reference = TensorRef(Digest.of(data), DType.FLOAT, shape, location)
    made = node(name, "Const", dtype=DType.FLOAT, value=attrs.encode(value))
    return made._replace(tensor=reference)


def function(
    name: str,
    args: Mapping[str, DType],
    results: Mapping[str, tuple[str, DType]],
    *nodes: Node,
    control_results: Iterable[str] = (),
    stateful: bool = False,
    **values: Any,
) -> Function:
    """A function; `results` maps a result's name to the tensor that it returns and its dtype."""
    return Function(
        name=name,
        args=tuple(Arg(key, dtype) for key, dtype in args.items()),
        results=tuple(Result(key, tensor, dtype) for key, (tensor, dtype) in results.items()),
        nodes={n.name: n for n in nodes},
        control_results=tuple(ControlResult(n, n) for n in control_results),
        attrs={key: attr(value) for key, value in values.items()},
        is_stateful=stateful,
    )


def call(
    name: str, callee: str, inputs: Sequence[str], tin: Sequence[DType], tout: Sequence[DType]
) -> Node:
    """A PartitionedCall of a function."""
    return node(
        name,
        "PartitionedCall",
        *inputs,
        f=attrs.of_function(callee),
        Tin=attrs.of_types(tin),
        Tout=attrs.of_types(tout),
    )


def graph(*nodes: Node, functions: Iterable[Function] = (), producer: int = 1994) -> Graph:
    return Graph(
        nodes={n.name: n for n in nodes},
        functions={f.name: f for f in functions},
        producer=producer,
    )


def model(
    made: Graph,
    inputs: Mapping[str, TensorSpec] | None = None,
    outputs: Mapping[str, TensorSpec] | None = None,
    **fields: Any,
) -> Model:
    """A model with the one signature ``serving_default``."""
    signature = Signature(dict(inputs or {}), dict(outputs or {}))
    return Model(graph=made, signatures={"serving_default": signature}, **fields)


def spec(tensor: str, dtype: DType = DType.FLOAT, shape: Shape = ()) -> TensorSpec:
    return TensorSpec(tensor, dtype, shape)


def _flatten(values: Any) -> tuple[tuple[int, ...], list[Any]]:
    if not isinstance(values, list):
        return (), [values]
    if not values:
        return (0,), []
    parts = [_flatten(value) for value in values]
    return (len(values), *parts[0][0]), [item for _, flat in parts for item in flat]
