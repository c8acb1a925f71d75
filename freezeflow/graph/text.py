"""Models as text: one node a line, the same for the same model, for golden files and ``show``.

    signature serving_default
      input x = x : float32[?,2]
      output y = y : float32[?,1]
    graph
      x = Placeholder() {dtype=float32, shape=[?,2]} : float32
      w = Const() <float32[2,1] 1.0 2.0>
      y = MatMul(x, w) {T=float32, transpose_a=false, transpose_b=false} : float32
    function double(a : float32) -> (r = sum : float32)
      sum = AddV2(a, a) {T=float32} : float32

Shapes stand in brackets, lists in parentheses; ``@f{T=int32}`` is a function with its bindings,
``$T`` an attribute that the call gives, ``^n`` a control input. A small tensor shows its elements,
a larger one the first digits of the digest of its bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from freezeflow.graph import attrs, tensor_values
from freezeflow.graph.graph import Function, Node
from freezeflow.graph.model import Model
from freezeflow.graph.node_types import NodeTypes
from freezeflow.values import Digest, DType, Shape, TensorRef, TensorSpec

# Tensors of more elements, and strings of more bytes, are shown by their digest.
_SHOWN_ELEMENTS = 16
_SHOWN_BYTES = 200
_DIGEST_DIGITS = 16

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.\\/>:^<-]+")


def model_text(model: Model) -> str:
    """The whole model; where its tensors lie and where it came from do not show."""
    return "".join(line + "\n" for line in model_lines(model))


def model_lines(model: Model) -> Iterator[str]:
    """The lines of `model_text`, one at a time."""
    for name, signature in sorted(model.signatures.items()):
        yield f"signature {_name(name)}"
        for side, ends in (("input", signature.inputs), ("output", signature.outputs)):
            for key, spec in sorted(ends.items()):
                yield f"  {side} {_name(key)} = {_spec(spec)}"
    if model.init:
        yield f"init {', '.join(map(_name, model.init))}"
    for asset in model.assets:
        yield f"asset {_name(asset.name)} -> {_name(asset.tensor)} {_reference(asset.content)}"
    for handle, value in sorted(model.variables.items()):
        yield f"variable {_name(handle)} = {_constant(value)}"
    yield from _graph_lines(model)


def _graph_lines(model: Model) -> Iterator[str]:
    types = NodeTypes(model.graph)
    yield "graph"
    for node in model.graph.nodes.values():
        yield "  " + node_line(node, types)
    for function in model.graph.functions.values():
        yield from _function_lines(function, types)


def node_line(node: Node, types: NodeTypes) -> str:
    """One node: name, op, inputs, attributes by key, the dtypes of its outputs."""
    parts = [f"{_name(node.name)} = {_name(node.op)}({', '.join(map(_name, node.inputs))})"]
    hidden: tuple[str, ...] = ()
    outputs = types.ends(node).outputs
    if node.op == "Const" and "value" in node.attrs:
        parts.append(_constant(node))
        hidden, outputs = ("dtype", "value"), None
    shown = {key: data for key, data in node.attrs.items() if key not in hidden}
    if shown:
        parts.append(_attributes(shown))
    if node.device:
        parts.append(f"on {_name(node.device)}")
    if outputs:
        parts.append(": " + ", ".join(_dtype(dtype) for dtype in outputs))
    return " ".join(parts)


def _function_lines(function: Function, types: NodeTypes) -> Iterator[str]:
    args = ", ".join(
        f"{_name(arg.name)} : {_typed(arg.dtype, arg.type_attr)}"
        + (f" {_attributes(arg.attrs)}" if arg.attrs else "")
        for arg in function.args
    )
    results = ", ".join(
        f"{_name(r.name)} = {_name(r.tensor)} : {_typed(r.dtype, r.type_attr)}"
        for r in function.results
    )
    stateful = "stateful " if function.is_stateful else ""
    tail = f" {_attributes(function.attrs)}" if function.attrs else ""
    yield f"{stateful}function {_name(function.name)}({args}) -> ({results}){tail}"
    for node in function.nodes.values():
        yield "  " + node_line(node, types)
    for control in function.control_results:
        yield f"  run {_name(control.name)} = ^{_name(control.node)}"


# ---------------------------------------------------------------- values


def _name(text: str) -> str:
    return text if _PLAIN_NAME.fullmatch(text) else tensor_values.quoted(text.encode())


def _spec(spec: TensorSpec) -> str:
    return f"{_name(spec.tensor)} : {_dtype(spec.dtype)}{_shape(spec.shape)}"


def _dtype(dtype: DType) -> str:
    return "?" if dtype is DType.INVALID else dtype.tf_name


def _typed(dtype: DType, type_attr: str) -> str:
    return f"${type_attr}" if type_attr else _dtype(dtype)


def _shape(shape: Shape) -> str:
    if shape is None:
        return "[...]"
    return "[" + ",".join("?" if size is None else str(size) for size in shape) + "]"


def _reference(tensor: TensorRef) -> str:
    return f"<{tensor.dtype.tf_name}{_shape(tensor.shape)} {_short(tensor.digest)}>"


def _short(digest: Digest) -> str:
    return str(digest)[: len("blake3:") + _DIGEST_DIGITS]


def _constant(node: Node) -> str:
    if node.tensor is not None:
        return _reference(node.tensor)
    return _tensor(attrs.message(node.attrs["value"]).tensor)


def _tensor(tensor: Any) -> str:
    dtype = DType(tensor.dtype)
    shape = attrs.read_shape(tensor.tensor_shape)
    head = f"{dtype.tf_name}{_shape(shape)}"
    try:
        shown = _content(tensor, dtype)
    except ValueError as problem:
        return f"<{head} ({problem})>"
    return f"<{head} {shown}>" if shown else f"<{head}>"


def _content(tensor: Any, dtype: DType) -> str:
    """The elements, or a digest where they are many."""
    if len(tensor.tensor_content) > _SHOWN_ELEMENTS * (dtype.item_bytes or 1):
        return _short(Digest.of(tensor.tensor_content))
    values = tensor_values.elements(tensor)
    size = sum(map(len, values)) if dtype is DType.STRING else 0
    if len(values) <= _SHOWN_ELEMENTS and size <= _SHOWN_BYTES:
        return " ".join(tensor_values.show(value, dtype) for value in values)
    return _short(Digest.of(repr(values).encode()))


def _attributes(values: Mapping[str, bytes]) -> str:
    return "{" + ", ".join(f"{key}={attribute_text(values[key])}" for key in sorted(values)) + "}"


def attribute_text(data: bytes) -> str:
    """An attribute's value."""
    value = attrs.message(data)
    kind = value.WhichOneof("value")
    if kind == "list":
        return "(" + ", ".join(_list_items(value.list)) + ")"
    if kind == "placeholder":
        return f"${value.placeholder}"
    return "none" if kind is None else _item(kind, getattr(value, kind))


def _list_items(values: Any) -> Iterator[str]:
    for field, items in values.ListFields():
        for item in items:
            yield _item(field.name, item)


def _item(kind: str, item: Any) -> str:
    """One value of the field `kind` of an ``AttrValue`` or of its list."""
    if kind == "s":
        return tensor_values.quoted(item) if len(item) <= _SHOWN_BYTES else _many_bytes(item)
    if kind == "type":
        return _dtype(DType(item)) if item < 100 else f"{_dtype(DType(item - 100))}_ref"
    if kind == "shape":
        return _shape(attrs.read_shape(item))
    if kind == "tensor":
        return _tensor(item)
    if kind == "func":
        bindings = {key: attrs.encode(value) for key, value in item.attr.items()}
        return f"@{_name(item.name)}" + (_attributes(bindings) if bindings else "")
    return tensor_values.show(item, DType.FLOAT if kind == "f" else DType.INT64)


def _many_bytes(data: bytes) -> str:
    return f"<{len(data)} bytes {_short(Digest.of(data))}>"
