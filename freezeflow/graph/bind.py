"""Inputs fixed to a value: ``bind: {is_training: false}``."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Mapping

from freezeflow.errors import ModelRefused, UsageError
from freezeflow.graph import attrs
from freezeflow.graph.branches import choose_branches, scalar_of
from freezeflow.graph.constants import const
from freezeflow.graph.freeze import written_handles
from freezeflow.graph.graph import Node, node_of, split
from freezeflow.graph.inline import inline_model
from freezeflow.graph.model import Model, Scalar
from freezeflow.graph.rename import PLACEHOLDERS
from freezeflow.suggestions import did_you_mean
from freezeflow.values import DType, Signature

_STRUCT = {
    DType.FLOAT: "f",
    DType.DOUBLE: "d",
    DType.HALF: "e",
    DType.INT8: "b",
    DType.UINT8: "B",
    DType.INT16: "h",
    DType.UINT16: "H",
    DType.INT32: "i",
    DType.UINT32: "I",
    DType.INT64: "q",
    DType.UINT64: "Q",
}


def bind_inputs(model: Model, values: Mapping[str, Scalar]) -> Model:
    """Fixes inputs, and leaves out the branches that they rule out.

    Args:
        model: A loaded model.
        values: Signature key or tensor name of a placeholder, to a scalar.

    Returns:
        The model with plain calls inlined, without the bound inputs in its signatures; `Model.bound`
        tells them.

    Raises:
        UsageError: There is no such input, or the value does not suit its dtype.
    """
    nodes = dict(model.graph.nodes)
    for name, value in values.items():
        placeholder = _placeholder(model, name)
        nodes[placeholder] = _constant(nodes[placeholder], value, name)
    bound = {node_of(name) for name in nodes if nodes[name] != model.graph.nodes[name]}
    signatures = {
        name: Signature(
            {k: spec for k, spec in s.inputs.items() if node_of(spec.tensor) not in bound},
            s.outputs,
        )
        for name, s in model.signatures.items()
    }
    graph = dataclasses.replace(model.graph, nodes=nodes)
    fixed = {**model.bound, **values}
    return settle_branches(
        dataclasses.replace(model, graph=graph, signatures=signatures, bound=fixed)
    )


def settle_branches(model: Model) -> Model:
    """The model with plain calls inlined, and only one side left of what never changes.

    That is a constant, or a variable that neither calls nor initializers write: a flag that was saved as
    false, one that says that everything is initialized. Whether it is written is asked of the branches
    that are left, because a call that finds all such variables as they are leaves them so.

    Raises:
        ModelRefused: A function calls itself, or an op does with a variable what is not known.
    """
    model = _settled(inline_model(model), {})
    flags = _flags(model)
    while flags:
        chosen = _settled(model, flags)
        if chosen is model:
            break
        written = written_handles(chosen)
        if written.isdisjoint(flags):
            return chosen
        flags = {name: value for name, value in flags.items() if name not in written}
    return model


def _settled(model: Model, known: Mapping[str, bool | int]) -> Model:
    """Inlines and chooses in turn, because a chosen branch is a call that may hold more of them."""
    while True:
        signatures = model.signatures.values()
        outputs = [spec.tensor for s in signatures for spec in s.outputs.values()]
        chosen = choose_branches(model.graph, [*outputs, *model.init], known)
        if chosen is model.graph:
            return model
        model = inline_model(dataclasses.replace(model, graph=chosen))


def _flags(model: Model) -> dict[str, bool | int]:
    """Handle nodes whose variable holds one bool or integer."""
    found = {name: scalar_of(value) for name, value in model.variables.items()}
    return {name: value for name, value in found.items() if value is not None}


def _placeholder(model: Model, name: str) -> str:
    for signature in model.signatures.values():
        if name in signature.inputs:
            return _fed(model, signature.inputs[name].tensor, name)
    return _fed(model, name, name)


def _fed(model: Model, tensor: str, name: str) -> str:
    node, index = split(tensor.removesuffix(":0"))
    if index == 0 and node in model.graph.nodes and model.graph.nodes[node].op in PLACEHOLDERS:
        return node
    there = [n.name for n in model.graph.nodes.values() if n.op in PLACEHOLDERS]
    keys = [key for s in model.signatures.values() for key in s.inputs]
    known = sorted({*there, *keys})
    hint = did_you_mean(name, known) or "No input can be bound."
    raise UsageError(f"there is no input {name!r} to bind", hint=hint)


def _constant(node: Node, value: Scalar, name: str) -> Node:
    dtype = attrs.to_type(node.attrs["dtype"])
    shape = attrs.to_shape(node.attrs["shape"]) if "shape" in node.attrs else None
    if shape:
        raise ModelRefused(
            f"input {name!r} has the shape {list(shape)}; only a scalar can be bound",
            where=node.name,
            hint="Feed it, or change the model.",
        )
    if dtype is DType.STRING:
        return const(node.name, dtype, (), [str(value).encode()])
    if dtype is DType.BOOL and isinstance(value, bool):
        return const(node.name, dtype, (), bytes([value]))
    if dtype in _STRUCT and isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            return const(node.name, dtype, (), struct.pack(f"<{_STRUCT[dtype]}", value))
        except (struct.error, OverflowError):
            pass  # a fraction for an integer, or out of range: said below
    raise UsageError(
        f"input {name!r} is {dtype.tf_name}; {value!r} is no such value",
        hint="Give true or false for a bool, a number for a number.",
    )
