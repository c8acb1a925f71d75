"""What is known of a tensor that carries a variable's handle, and the ops that read through one.

Source of the ops' meaning: upstream ``core/ops/resource_variable_ops.cc`` and
``core/kernels/resource_variable_ops.cc``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from freezeflow.errors import ModelRefused
from freezeflow.graph import attrs
from freezeflow.graph.graph import Node, control_inputs, data_inputs, node_of
from freezeflow.messages import message_class
from freezeflow.values import DType, Shape


class Handle(NamedTuple):
    """A tensor that is a variable's handle (or TF1 reference), and carries its value once frozen.

    Args:
        dtype: The variable's dtype.
        shape: Its shape as far as it is known.
        variables: Identities of the variables that it may be, sorted.
        is_ref: It is a TF1 reference: an op that takes a plain value reads through it.
    """

    dtype: DType
    shape: Shape
    variables: tuple[str, ...]
    is_ref: bool = False


def meet(handles: Iterable[Handle], where: str) -> Handle:
    """One handle that may be any of several.

    Raises:
        ModelRefused: They are of different dtypes.
    """
    first, *others = handles
    shape = first.shape
    variables = set(first.variables)
    for other in others:
        if other.dtype != first.dtype:
            raise ModelRefused(
                f"variables of {first.dtype.tf_name} and {other.dtype.tf_name} meet"
                f" ({', '.join((*first.variables, *other.variables))})",
                where=where,
                hint="Such a graph cannot be frozen; choose the branch with a bound input.",
            )
        shape = _common(shape, other.shape)
        variables |= set(other.variables)
    return first._replace(shape=shape, variables=tuple(sorted(variables)))


def _common(a: Shape, b: Shape) -> Shape:
    if a is None or b is None or len(a) != len(b):
        return None
    return tuple(x if x == y else None for x, y in zip(a, b, strict=True))


class Replacement(NamedTuple):
    """What stands in for a node that read a variable: new nodes, and a tensor for each output."""

    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]


Read = Callable[[Node, "Handle", bool], Replacement]


def _inputs(node: Node, *data: str) -> tuple[str, ...]:
    return (*data, *(f"^{name}" for name in control_inputs(node)))


def scalar_const(name: str, value: int | bool, *, after: str | None) -> Node:
    """An int32 or bool scalar; it waits for the node of `after`, to be in the same loop frame."""
    dtype = DType.BOOL if isinstance(value, bool) else DType.INT32
    message = message_class("AttrValue")()
    message.tensor.dtype = int(dtype)
    message.tensor.tensor_shape.SetInParent()
    (message.tensor.bool_val if dtype is DType.BOOL else message.tensor.int_val).append(value)
    inputs = () if after is None else (f"^{node_of(after)}",)
    values = {"dtype": attrs.of_type(dtype), "value": attrs.encode(message)}
    return Node(name, "Const", inputs, values)


def _read(node: Node, handle: Handle, in_frames: bool) -> Replacement:
    (value,) = data_inputs(node)
    new = Node(node.name, "Identity", _inputs(node, value), {"T": attrs.of_type(handle.dtype)})
    return Replacement((new,), (node.name,))


def _gather(node: Node, handle: Handle, in_frames: bool) -> Replacement:
    value, indices = data_inputs(node)
    batch_dims = attrs.to_int(node.attrs["batch_dims"]) if "batch_dims" in node.attrs else 0
    axis = scalar_const(f"{node.name}/axis", batch_dims, after=indices if in_frames else None)
    values = {
        "Tparams": attrs.of_type(handle.dtype),
        "Tindices": node.attrs["Tindices"],
        "Taxis": attrs.of_type(DType.INT32),
        "batch_dims": attrs.of_int(batch_dims),
    }
    new = Node(node.name, "GatherV2", _inputs(node, value, indices, axis.name), values)
    return Replacement((axis, new), (node.name,))


def _gather_nd(node: Node, handle: Handle, in_frames: bool) -> Replacement:
    values = {"Tparams": attrs.of_type(handle.dtype), "Tindices": node.attrs["Tindices"]}
    return Replacement((Node(node.name, "GatherNd", node.inputs, values),), (node.name,))


def _shape(node: Node, handle: Handle, in_frames: bool) -> Replacement:
    values = {
        "T": attrs.of_type(handle.dtype),
        "out_type": node.attrs.get("out_type", attrs.of_type(DType.INT32)),
    }
    return Replacement((Node(node.name, "Shape", node.inputs, values),), (node.name,))


def _is_initialized(node: Node, handle: Handle, in_frames: bool) -> Replacement:
    (value,) = data_inputs(node)
    new = scalar_const(node.name, True, after=value if in_frames else None)
    return Replacement((new._replace(inputs=(*new.inputs, *_inputs(node))),), (node.name,))


def _read_many(node: Node, handle: Handle, in_frames: bool) -> Replacement:
    nodes = tuple(
        Node(f"{node.name}/{i}", "Identity", _inputs(node, value), {"T": attrs.of_type(dtype)})
        for i, (value, dtype) in enumerate(
            zip(data_inputs(node), attrs.to_types(node.attrs["dtypes"]), strict=True)
        )
    )
    return Replacement(nodes, tuple(new.name for new in nodes))


READS: Mapping[str, Read] = {
    "ReadVariableOp": _read,
    "_ReadVariablesOp": _read_many,
    "ResourceGather": _gather,
    "ResourceGatherNd": _gather_nd,
    "VariableShape": _shape,
    "VarIsInitializedOp": _is_initialized,
    "IsVariableInitialized": _is_initialized,
}
