"""Graphs that compute in float16 or bfloat16 instead of float32.

Ops that lose little by it are given the smaller dtype: matrix products, convolutions, what is done to
each element without exponentials, and what only moves elements. Reductions, softmax, exponentials and
everything that is not listed go on in float32, with casts at the border. Inputs and outputs of
signatures and of functions keep their dtype.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

from freezeflow.graph import attrs
from freezeflow.graph.graph import Graph, Node, data_inputs, join, node_of
from freezeflow.graph.narrow import unique
from freezeflow.graph.node_types import NodeTypes
from freezeflow.graph.ops import OpDef
from freezeflow.graph.walk import topological_order
from freezeflow.values import DType

_T_OPS = """
    Abs Add AddV2 AvgPool BatchMatMul BatchMatMulV2 BiasAdd ConcatV2 Conv2D Conv2DBackpropInput
    DepthwiseConv2dNative Elu ExpandDims FusedBatchNormV3 LeakyRelu MatMul MaxPool Maximum Minimum Mul Neg
    Pack Pad RealDiv Relu Relu6 Reshape Sigmoid Slice Split Square Squeeze StridedSlice Sub Tanh Tile
    Transpose
"""
# Op to the attribute that holds the dtype that is changed.
HALF_OPS: Mapping[str, str] = {**dict.fromkeys(_T_OPS.split(), "T"), "GatherV2": "Tparams"}


def compute_in(graph: Graph, dtype: DType, ends: Collection[str]) -> tuple[Graph, int]:
    """Lets what may be computed in a smaller dtype be computed in it.

    Args:
        graph: The graph.
        dtype: HALF or BFLOAT16.
        ends: Nodes of the main graph that are known by name outside of it.

    Returns:
        The graph, and how many nodes compute in the smaller dtype.
    """
    types = NodeTypes(graph)
    main = _Rewriter(graph.nodes, ends, dtype, types)
    nodes = main.nodes()
    count = main.changed
    functions = {}
    for name, function in graph.functions.items():
        inside = _Rewriter(function.nodes, (), dtype, types)
        body = inside.nodes()
        results = tuple(r._replace(tensor=inside.wide(r.tensor)) for r in function.results)
        functions[name] = dataclasses.replace(function, nodes=body, results=results)
        count += inside.changed
    return dataclasses.replace(graph, nodes=nodes, functions=functions), count


class _Rewriter:
    """Rewrites one body, inputs first."""

    def __init__(
        self, nodes: Mapping[str, Node], ends: Collection[str], dtype: DType, types: NodeTypes
    ) -> None:
        self._nodes = nodes
        self._ends = ends
        self._dtype = dtype
        self._types = types
        self._out: dict[str, Node] = {}
        self._narrow: dict[str, str] = {}
        self._wide: dict[str, str] = {}
        self._changed: set[str] = set()
        self.changed = 0

    def nodes(self) -> dict[str, Node]:
        for name in topological_order(self._nodes):
            node = self._nodes[name]
            if self._may_change(node):
                self._change(node)
            else:
                inputs = tuple(t if t.startswith("^") else self.wide(t) for t in node.inputs)
                self._out[name] = node._replace(inputs=inputs)
        return self._out

    def _may_change(self, node: Node) -> bool:
        attr = HALF_OPS.get(node.op)
        return attr is not None and attrs.to_type(node.attrs[attr]) is DType.FLOAT

    def _change(self, node: Node) -> None:
        attr = HALF_OPS[node.op]
        definition = self._types.definition(node.op)
        assert definition is not None
        flags = _flags(definition, node, attr)
        data = [
            self._narrowed(tensor) if flag else self.wide(tensor)
            for tensor, flag in zip(data_inputs(node), flags, strict=True)
        ]
        waits = [tensor for tensor in node.inputs if tensor.startswith("^")]
        name = node.name
        if name in self._ends:
            name = unique({**self._nodes, **self._out}, f"{name}/{self._dtype.tf_name}")
        values = {**node.attrs, attr: attrs.of_type(self._dtype)}
        self._out[name] = node._replace(name=name, inputs=(*data, *waits), attrs=values)
        outputs = self._types.ends(self._out[name]).outputs or ()
        for index, dtype in enumerate(outputs):
            old, new = join(node.name, index), join(name, index)
            if dtype is self._dtype:
                self._narrow[old] = new
                if name != node.name and not index:
                    self._out[node.name] = self._cast(node.name, new, to=DType.FLOAT)
                elif name == node.name:
                    self._changed.add(old)
        self.changed += 1

    def wide(self, tensor: str) -> str:
        """A tensor as float32."""
        if tensor not in self._changed:
            return tensor
        if tensor not in self._wide:
            name = self._unique(f"{tensor.replace(':', '_')}/float32")
            self._out[name] = self._cast(name, tensor, to=DType.FLOAT)
            self._wide[tensor] = name
        return self._wide[tensor]

    def _narrowed(self, tensor: str) -> str:
        """A tensor in the smaller dtype; of a weight that is stored in it, the weight itself."""
        if tensor in self._narrow:
            return self._narrow[tensor]
        source = self._nodes.get(node_of(tensor))
        if source is not None and source.op == "Cast" and self._is_widening(source):
            self._narrow[tensor] = source.inputs[0]
            return source.inputs[0]
        name = self._unique(f"{tensor.replace(':', '_')}/{self._dtype.tf_name}")
        self._out[name] = self._cast(name, tensor, to=self._dtype)
        self._narrow[tensor] = name
        return name

    def _is_widening(self, node: Node) -> bool:
        return attrs.to_type(node.attrs["SrcT"]) is self._dtype and not any(
            tensor.startswith("^") for tensor in node.inputs
        )

    def _unique(self, name: str) -> str:
        return unique({**self._nodes, **self._out} if name in self._nodes else self._out, name)

    def _cast(self, name: str, tensor: str, *, to: DType) -> Node:
        source = self._dtype if to is DType.FLOAT else DType.FLOAT
        values = {
            "DstT": attrs.of_type(to),
            "SrcT": attrs.of_type(source),
            "Truncate": attrs.of_bool(False),
        }
        return Node(name, "Cast", (tensor,), values)


def _flags(definition: OpDef, node: Node, attr: str) -> list[bool]:
    """For each data input, whether its dtype is the attribute's."""
    flags: list[bool] = []
    for arg in definition.inputs:
        number = attrs.to_int(node.attrs[arg.number_attr]) if arg.number_attr else 1
        flags += [arg.type_attr == attr] * number
    return flags
