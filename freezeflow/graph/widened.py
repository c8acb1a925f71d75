"""Models that compute in bfloat16, for targets that do not have it: float32 in its place, everywhere.

A bfloat16 number is a float32 number whose last 16 bits are left out, so that constants keep their values
and no number becomes too large. What changes is that results are not rounded to 8 bits on their way; as
exact as bfloat16 is, they are the same.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable, Mapping

from freezeflow.graph import attrs
from freezeflow.graph.graph import Function, Node
from freezeflow.graph.model import Model
from freezeflow.graph.write import read_range
from freezeflow.values import DType, Signature, TensorRef, TensorSpec

Put = Callable[[memoryview, DType, tuple[int, ...]], TensorRef]

# Whose results tell how many bytes an element has.
_OF_BYTES = frozenset({"Bitcast", "DecodeRaw", "DecodePaddedRaw"})

_NARROW = attrs.of_type(DType.BFLOAT16)


def widened(model: Model, put: Put) -> Model:
    """The model with float32 in place of bfloat16; inputs and outputs, too. Names of nodes stay.

    A model that looks at the bytes of bfloat16 numbers stays as it is.

    Args:
        model: A frozen model.
        put: Keeps the bytes of a large constant.
    """
    bodies = [model.graph.nodes, *(each.nodes for each in model.graph.functions.values())]
    nodes = [node for body in bodies for node in body.values()]
    if any(node.op in _OF_BYTES and _NARROW in node.attrs.values() for node in nodes):
        return model
    if not any(_has(value) for node in nodes for value in node.attrs.values()):
        return model
    graph = dataclasses.replace(
        model.graph,
        nodes=_body(model.graph.nodes, put),
        functions={name: _function(each, put) for name, each in model.graph.functions.items()},
    )
    signatures = {
        name: Signature(_ends(each.inputs), _ends(each.outputs))
        for name, each in model.signatures.items()
    }
    return dataclasses.replace(model, graph=graph, signatures=signatures)


def _dtype(dtype: DType) -> DType:
    return DType.FLOAT if dtype is DType.BFLOAT16 else dtype


def _ends(ends: Mapping[str, TensorSpec]) -> dict[str, TensorSpec]:
    return {key: dataclasses.replace(spec, dtype=_dtype(spec.dtype)) for key, spec in ends.items()}


def _function(function: Function, put: Put) -> Function:
    return dataclasses.replace(
        function,
        args=tuple(arg._replace(dtype=_dtype(arg.dtype)) for arg in function.args),
        results=tuple(each._replace(dtype=_dtype(each.dtype)) for each in function.results),
        nodes=_body(function.nodes, put),
        attrs={key: _wide(value) for key, value in function.attrs.items()},
    )


def _body(nodes: Mapping[str, Node], put: Put) -> dict[str, Node]:
    return {name: _node(node, put) for name, node in nodes.items()}


def _node(node: Node, put: Put) -> Node:
    if node.op == "Const":
        return _const(node, put)
    values = {key: _wide(value) for key, value in node.attrs.items()}
    if values == node.attrs:
        return node
    if node.op == "Cast" and values["SrcT"] == values["DstT"]:
        return node._replace(op="Identity", attrs={"T": values["DstT"]})
    return node._replace(attrs=values)


def _has(value: bytes) -> bool:
    return value == _NARROW or _wide(value) != value


def _wide(value: bytes) -> bytes:
    """An attribute with float32 where it says bfloat16; whatever it binds for a function, too."""
    if value == _NARROW:
        return attrs.of_type(DType.FLOAT)
    kind = attrs.kind(value)
    if kind == "list" and DType.BFLOAT16 in (found := attrs.to_types(value)):
        return attrs.of_types(map(_dtype, found))
    if kind == "func":
        name, bindings = attrs.to_function(value)
        made = {key: _wide(bound) for key, bound in bindings.items()}
        return attrs.of_function(name, made) if made != bindings else value
    return value


def _const(node: Node, put: Put) -> Node:
    if node.attrs["dtype"] != _NARROW:
        return node
    value = type(held := attrs.message(node.attrs["value"])).FromString(held.SerializeToString())
    value.tensor.dtype = int(DType.FLOAT)
    tensor = node.tensor
    if tensor is not None:
        data = memoryview(_elements(read_range(tensor.location)))
        tensor = put(data, DType.FLOAT, tensor.shape)
    elif value.tensor.tensor_content:
        value.tensor.tensor_content = _elements(value.tensor.tensor_content)
    else:
        bits = list(value.tensor.half_val)
        value.tensor.ClearField("half_val")
        wide = _elements(struct.pack(f"<{len(bits)}H", *bits))
        value.tensor.float_val.extend(struct.unpack(f"<{len(bits)}f", wide))
    values = {"dtype": attrs.of_type(DType.FLOAT), "value": attrs.encode(value)}
    return node._replace(attrs={**node.attrs, **values}, tensor=tensor)


def _elements(data: bytes) -> bytes:
    """The bytes of bfloat16 numbers as those of float32 numbers."""
    import numpy as np

    return (np.frombuffer(data, "<u2").astype("<u4") << 16).astype("<u4").tobytes()
