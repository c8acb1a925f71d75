"""TF1's tensor arrays as lists: what `freezeflow.graph.unroll` and `freezeflow.graph.stacked` know.

A TensorArrayV3 is a resource that is changed, and orders who changes and who reads it by a number without
meaning, its flow. That goes the same ways as a list would that is handed on: so the list takes the flow's
place, in loops and branches of TF1, too, and the resource is needed no more. An element that was never
set, which TensorFlow refuses to read, is zero.

Source of the ops' semantics: upstream ``core/kernels/tensor_array_ops.cc`` and ``list_kernels.h``.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from freezeflow.graph import attrs
from freezeflow.graph.canonical import canonical
from freezeflow.graph.constants import const
from freezeflow.graph.foldable import Scope
from freezeflow.graph.graph import Node, control_inputs, data_inputs, join, node_of
from freezeflow.graph.model import Model
from freezeflow.graph.node_types import NodeTypes
from freezeflow.graph.rewrites.body import Body
from freezeflow.graph.shape_rules.infer import infer
from freezeflow.graph.shapes import Dim, Shapes
from freezeflow.graph.walk import consumers, prune
from freezeflow.values import DType, Shape

# Gives a name that is free.
Free = Callable[[str], str]

_ARRAY = "TensorArrayV3"

# Hand on what they take: to which of their outputs.
_PASSING: Mapping[str, tuple[int, ...]] = {
    **dict.fromkeys(("Enter", "Exit", "Identity", "Merge", "NextIteration"), (0,)),
    "Switch": (0, 1),
}

# Where an op takes the flow; those that change the array give it, too.
_FLOWS: Mapping[str, int] = {
    "TensorArrayGatherV3": 2,
    "TensorArrayReadV3": 2,
    "TensorArrayScatterV3": 3,
    "TensorArraySizeV3": 1,
    "TensorArrayWriteV3": 3,
}
_CHANGING = frozenset({"TensorArrayScatterV3", "TensorArrayWriteV3"})


def lists_for_arrays(model: Model) -> Model:
    """The model with lists in place of tensor arrays, as far as only what is known here works on them.

    Args:
        model: A frozen model with one signature, calls inlined.

    Returns:
        The model in canonical form, other nodes under their names; the very same where there is none.
    """
    nodes = model.graph.nodes
    arrays = [node for node in nodes.values() if node.op == _ARRAY]
    followed = [each for each in (_followed(node, nodes) for node in arrays) if each is not None]
    if not followed:
        return model
    ((_, signature),) = model.signatures.items()
    wanted = frozenset(spec.tensor for spec in signature.outputs.values())
    body = Body(model.graph, Scope(nodes, wanted), NodeTypes(model.graph))
    whole = _Whole(body, infer(body))
    made, taken = dict(nodes), set(nodes)

    def free(name: str) -> str:
        while name in taken:
            name += "_"
        taken.add(name)
        return name

    for array in followed:
        for node in _written(array, whole, free):
            made[node.name] = node
    moved = {join(array.node.name, 1): array.node.name for array in followed}
    changed = {
        name: node._replace(inputs=tuple(moved.get(tensor, tensor) for tensor in node.inputs))
        for name, node in made.items()
    }
    ends = [*wanted, *(spec.tensor for spec in signature.inputs.values())]
    graph = prune(dataclasses.replace(model.graph, nodes=changed), ends)
    return canonical(dataclasses.replace(model, graph=graph))


class _Array(NamedTuple):
    """A tensor array and all that works on it.

    Args:
        node: What makes it.
        ops: What sets and reads its elements.
        passing: What hands on its flow.
    """

    node: Node
    ops: tuple[Node, ...]
    passing: tuple[Node, ...]


def _followed(node: Node, nodes: Mapping[str, Node]) -> _Array | None:
    """An array with what works on it; None where anything else does."""
    if "dynamic_size" in node.attrs and attrs.message(node.attrs["dynamic_size"]).b:
        return None
    users = consumers(nodes)
    handles, by_handle = _reached(node.name, nodes, users)
    flows, by_flow = _reached(join(node.name, 1), nodes, users)
    ops: list[Node] = []
    passing: list[Node] = []
    for user in {each.name: each for each in (*by_handle, *by_flow)}.values():
        given = list(data_inputs(user))
        if user.op in _FLOWS:
            if given[0] not in handles or given[_FLOWS[user.op]] not in flows:
                return None
            ops.append(user)
        elif user.op not in _PASSING:
            return None
        elif any(tensor in flows for tensor in given):
            # Of a Switch the predicate is none.
            if not set(given if user.op == "Merge" else given[:1]) <= flows:
                return None
            passing.append(user)
    return _Array(node, tuple(ops), tuple(passing))


def _reached(
    start: str, nodes: Mapping[str, Node], users: Mapping[str, Sequence[str]]
) -> tuple[set[str], list[Node]]:
    """The tensors by which an array's handle, or its flow, is handed on, and the nodes that take them."""
    tensors, takers, stack = {start}, [], [start]
    while stack:
        tensor = stack.pop()
        for user in (nodes[name] for name in users.get(node_of(tensor), ())):
            given = list(data_inputs(user))
            if tensor not in given:
                continue
            takers.append(user)
            outputs = _PASSING.get(user.op, ())
            if user.op in _CHANGING and given[_FLOWS[user.op]] == tensor:
                outputs = (0,)
            fresh = {join(user.name, index) for index in outputs} - tensors
            tensors |= fresh
            stack += fresh
    return tensors, takers


def _written(array: _Array, whole: _Whole, free: Free) -> Iterator[Node]:
    """The nodes that take the place of an array's."""
    node = array.node
    told = attrs.to_shape(node.attrs["element_shape"]) if "element_shape" in node.attrs else None
    yield (size := _element(free(f"{node.name}/element_shape"), told, after=node.inputs[0]))
    values = {"element_dtype": node.attrs["dtype"], "shape_type": attrs.of_type(DType.INT32)}
    inputs = (size.name, node.inputs[0], *_waits(node))
    yield Node(node.name, "TensorListReserve", inputs, values, node.device)
    for each in array.passing:
        yield each._replace(attrs={**each.attrs, "T": attrs.of_type(DType.VARIANT)})
    for each in array.ops:
        op, held, given = _listed(array, each, whole)
        if op in _TELLING:
            own = (
                attrs.to_shape(each.attrs["element_shape"])
                if "element_shape" in each.attrs
                else None
            )
            yield (
                size := _element(
                    free(f"{each.name}/element_shape"), told if own is None else own, after=held
                )
            )
            given.append(size.name)
        kept = {key: values[key] for key in _KINDS.get(op, ("element_dtype",))}
        yield Node(each.name, op, (held, *given, *_waits(each)), kept, each.device)


def _listed(array: _Array, node: Node, whole: _Whole) -> tuple[str, str, list[str]]:
    """What an op on an array is on a list: the op, the list or what it is made of, and the other inputs."""
    held = node.inputs[_FLOWS[node.op]]
    held = array.node.name if held == join(array.node.name, 1) else held
    given = list(data_inputs(node))[1 : _FLOWS[node.op]]
    if node.op == "TensorArrayScatterV3":
        if whole.is_set(array, node):
            return "TensorListFromTensor", given[1], []
        return "TensorListScatterIntoExistingList", held, given[::-1]
    if node.op == "TensorArrayGatherV3" and whole.is_read(array, node):
        return "TensorListStack", held, []
    return _LISTED[node.op], held, given


def _element(name: str, told: Shape, *, after: str) -> Node:
    """The elements' shape as a constant; it waits for a tensor, to be in the same frame."""
    sizes = [-1] if told is None else [-1 if size is None else size for size in told]
    shape = () if told is None else (len(sizes),)
    made = const(name, DType.INT32, shape, struct.pack(f"<{len(sizes)}i", *sizes))
    return made._replace(inputs=(f"^{node_of(after)}",))


def _waits(node: Node) -> tuple[str, ...]:
    return tuple(f"^{name}" for name in control_inputs(node))


class _Whole:
    """Which scatters and gathers are about all elements of an array, in their order.

    Args:
        body: The main graph.
        shapes: Its shapes.
    """

    def __init__(self, body: Body, shapes: Shapes) -> None:
        self._body = body
        self._shapes = shapes

    def is_set(self, array: _Array, scatter: Node) -> bool:
        """Whether a scatter sets everything, and nothing else asks for the array's length or sets more."""
        _, indices, value, flow = data_inputs(scatter)
        others = [each for each in array.ops if each is not scatter]
        if flow != join(array.node.name, 1) or any(
            each.op in _CHANGING or each.op == "TensorArraySizeV3" for each in others
        ):
            return False
        limit = self._limit(indices)
        return limit is not None and self._is_length(limit, value)

    def is_read(self, array: _Array, gather: Node) -> bool:
        """Whether a gather reads everything."""
        sizes = {each.name for each in array.ops if each.op == "TensorArraySizeV3"}
        limit, length = self._limit(gather.inputs[1]), array.node.inputs[0]
        if limit is None or limit in sizes or limit == length:
            return limit is not None
        value = self._value(limit)
        return value is not None and value == self._value(length)

    def _limit(self, indices: str) -> str | None:
        """The tensor up to which a tensor is 0, 1, 2 and so on."""
        node = self._body.source(indices)
        if node is None or node.op != "Range":
            return None
        start, limit, step = data_inputs(node)
        return limit if self._value(start) == 0 and self._value(step) == 1 else None

    def _is_length(self, number: str, tensor: str) -> bool:
        """Whether a number is a tensor's first size: by value, or since it is computed so."""
        shape = self._shapes.of(tensor)
        if shape:
            return self._value(number) == shape[0]
        node = self._body.source(number)
        if node is None or node.op != "StridedSlice":
            return False
        whole = self._body.source(node.inputs[0])
        places = [self._body.integers(each) for each in node.inputs[1:4]]
        masks = {key: attrs.to_int(value) for key, value in node.attrs.items() if "mask" in key}
        return (
            whole is not None
            and whole.op == "Shape"
            and whole.inputs[0] == tensor
            and places[0] == (0,)
            and places[2] == (1,)
            and not any(masks[key] for key in masks if key != "shrink_axis_mask")
            and masks.get("shrink_axis_mask") == 1
        )

    def _value(self, tensor: str) -> Dim | None:
        value = self._body.integers(tensor) or self._shapes.value(tensor)
        return value[0] if value and len(value) == 1 else None


# Take the shape of the elements last.
_TELLING = frozenset(
    {"TensorListFromTensor", "TensorListGather", "TensorListGetItem", "TensorListStack"}
)

# Attributes, where there are others than the type of the elements.
_KINDS: Mapping[str, tuple[str, ...]] = {
    "TensorListFromTensor": ("element_dtype", "shape_type"),
    "TensorListLength": (),
}

_LISTED: Mapping[str, str] = {
    "TensorArrayGatherV3": "TensorListGather",
    "TensorArrayReadV3": "TensorListGetItem",
    "TensorArraySizeV3": "TensorListLength",
    "TensorArrayWriteV3": "TensorListSetItem",
}
