"""Convolutions in groups, for targets that have none: one convolution for each group.

TensorFlow's `Conv2D` and `Conv3D` are in groups where their filter takes fewer channels than the input
has: the channels are cut into as many parts, and so are the filters. Here each part gets a convolution of
its own. With one channel a group it is one depthwise convolution, of which targets have quick kernels.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable, Collection, Iterator

from freezeflow.graph import attrs
from freezeflow.graph.constants import const
from freezeflow.graph.foldable import Scope
from freezeflow.graph.graph import Node, control_inputs, join, node_of
from freezeflow.graph.model import Model
from freezeflow.graph.node_types import NodeTypes
from freezeflow.graph.rewrites.body import Body
from freezeflow.graph.rewrites.linear import layout_of
from freezeflow.graph.shape_rules.infer import infer
from freezeflow.graph.shapes import Shapes, all_known
from freezeflow.values import DType


def split_groups(model: Model, ops: Collection[str]) -> Model:
    """The model without convolutions in groups, as far as their channels follow from its shapes.

    Args:
        model: A model with one signature.
        ops: Which convolutions: ``Conv2D``, ``Conv3D``.
    """
    nodes = model.graph.nodes
    if not any(node.op in ops for node in nodes.values()):
        return model
    ((_, signature),) = model.signatures.items()
    wanted = frozenset(node_of(spec.tensor) for spec in signature.outputs.values())
    fed = frozenset(node_of(spec.tensor) for spec in signature.inputs.values())
    scope = Scope(nodes, wanted, fed)
    shapes = infer(Body(model.graph, scope, NodeTypes(model.graph)), scope.args)

    def free(name: str) -> str:
        while name in nodes:
            name += "_"
        return name

    made: dict[str, Node] = {}
    for node in nodes.values():
        spelled = tuple(_parts(node, shapes, free)) if node.op in ops else ()
        made |= {each.name: each for each in spelled or (node,)}
    return dataclasses.replace(model, graph=dataclasses.replace(model.graph, nodes=made))


def _parts(node: Node, shapes: Shapes, free: Callable[[str], str]) -> Iterator[Node]:
    """What stands for a convolution in groups; nothing where it is none."""
    x, weights = node.inputs[:2]
    layout, given, filters = layout_of(node), shapes.of(x), shapes.of(weights)
    if layout is None or given is None or filters is None or len(given) != layout.rank:
        return
    channels, taken = given[layout.axis], filters[-2]
    if not isinstance(channels, int) or not isinstance(taken, int) or channels == taken:
        return
    if not taken or channels % taken:
        return
    waits = tuple(f"^{name}" for name in control_inputs(node))
    groups = channels // taken
    kind = node.attrs["T"]
    known = all_known(filters)
    if node.op == "Conv2D" and taken == 1 and known is not None:
        shape, thin = free(f"{node.name}/shape"), free(f"{node.name}/filters")
        sizes = (*known[:2], channels, known[3] // channels)
        yield const(shape, DType.INT32, (4,), struct.pack("<4i", *sizes))
        reshaped = {"T": kind, "Tshape": attrs.of_type(DType.INT32)}
        yield Node(thin, "Reshape", (weights, shape), reshaped, node.device)
        values = {key: value for key, value in node.attrs.items() if key != "use_cudnn_on_gpu"}
        yield node._replace(op="DepthwiseConv2dNative", inputs=(x, thin, *waits), attrs=values)
        return
    cut = {"T": kind, "num_split": attrs.of_int(groups)}
    ends = []
    for part, tensor, axis in (("inputs", x, layout.axis), ("filters", weights, layout.rank - 1)):
        over, parts = free(f"{node.name}/{part}/axis"), free(f"{node.name}/{part}")
        yield const(over, DType.INT32, (), struct.pack("<i", axis))
        yield Node(parts, "Split", (over, tensor), cut, node.device)
        ends.append(parts)
    joined = []
    for number in range(groups):
        name = free(f"{node.name}/group{number}")
        pair = (join(ends[0], number), join(ends[1], number))
        yield node._replace(name=name, inputs=(*pair, *waits))
        joined.append(name)
    axis_name = free(f"{node.name}/axis")
    yield const(axis_name, DType.INT32, (), struct.pack("<i", layout.axis))
    values = {
        "T": kind,
        "N": attrs.of_int(groups),
        "Tidx": attrs.of_type(DType.INT32),
    }
    yield Node(node.name, "ConcatV2", (*joined, axis_name), values, node.device)
