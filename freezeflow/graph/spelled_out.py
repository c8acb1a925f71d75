"""Ops that few runtimes have, spelled out in ops that they do have.

`Erfc` (in Keras' gelu) becomes one minus `Erf`: equal but for the last places of numbers near zero. A
batch norm in training mode (of a network that was frozen with ``is_training``, or in Keras 2's layer norms)
takes mean and variance from the batch: they are computed beside it. With channels last it becomes a batch
norm for inference, which all runtimes have; with channels first, which few take, plain arithmetic.
TensorFlow.js does not look at the attribute and answers NaN. Sums come in another order by that, so it is
for targets alone whose answers are compared within a tolerance.

`MatrixBandPart` (in Keras' causal masks) becomes a choice by the distance of row and column: TensorFlow.js
4 reads the width below the diagonal for the one above it, too. `Rank` becomes the number of sizes that there
are; `Select` by a vector, which chooses whole rows, one by a column; `ScatterNd` an addition to zeros.
`Einsum` gets letters for its ellipsis (`freezeflow.graph.einsum`), where what is known of shapes tells them.
"""

from __future__ import annotations

import dataclasses
import functools
import struct
from collections.abc import Callable, Collection, Iterator, Mapping

from freezeflow.graph import attrs
from freezeflow.graph.constants import const
from freezeflow.graph.einsum import without_ellipsis
from freezeflow.graph.foldable import Scope, held_scope
from freezeflow.graph.graph import Graph, Node, data_inputs, node_of, split
from freezeflow.graph.model import Model
from freezeflow.graph.node_types import NodeTypes
from freezeflow.graph.rewrites.body import Body
from freezeflow.graph.shape_rules.infer import infer
from freezeflow.graph.shapes import Shapes
from freezeflow.values import DType

# Gives a name that is free.
Free = Callable[[str], str]

# Ops that have a training mode; they have it unless told otherwise.
BATCH_NORMS = frozenset({"FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"})

_ONES: Mapping[DType, bytes] = {
    DType.FLOAT: struct.pack("<f", 1.0),
    DType.DOUBLE: struct.pack("<d", 1.0),
    DType.HALF: struct.pack("<e", 1.0),
}

_ZEROS: Mapping[DType, bytes] = {
    **dict.fromkeys((DType.FLOAT, DType.INT32), bytes(4)),
    **dict.fromkeys((DType.DOUBLE, DType.INT64), bytes(8)),
}

# Axes of everything but the channels.
_AXES: Mapping[bytes, tuple[int, ...]] = {
    b"NHWC": (0, 1, 2),
    b"NDHWC": (0, 1, 2, 3),
    b"NCHW": (0, 2, 3),
    b"NCDHW": (0, 2, 3, 4),
}

# What an op that does not tell its epsilon has.
_EPSILON = 1e-4


def spelled_out(model: Model, ops: Collection[str]) -> Model:
    """The model without certain ops, those of batch norms in training mode only; names of nodes stay.

    Args:
        model: The model.
        ops: Which of them.
    """
    graph = model.graph
    signatures = model.signatures.values()
    ends = frozenset(spec.tensor for each in signatures for spec in each.outputs.values())
    fed = frozenset(node_of(spec.tensor) for each in signatures for spec in each.inputs.values())
    functions = {
        name: dataclasses.replace(
            function,
            nodes=_Spelling(graph, held_scope(function)).nodes(function.nodes, ops),
        )
        for name, function in graph.functions.items()
    }
    main = _Spelling(graph, Scope(graph.nodes, ends, fed))
    changed = dataclasses.replace(graph, nodes=main.nodes(graph.nodes, ops), functions=functions)
    return dataclasses.replace(model, graph=changed)


def trains(node: Node) -> bool:
    """Whether a batch norm takes its statistics from the batch."""
    flag = node.attrs.get("is_training")
    return flag is None or bool(attrs.message(flag).b)


class _Spelling:
    """A scope in which ops are spelled out.

    Args:
        graph: The graph that it belongs to.
        scope: The scope, with what holds on to its results.
    """

    def __init__(self, graph: Graph, scope: Scope) -> None:
        self._graph, self._scope = graph, scope
        read = {tensor for node in scope.nodes.values() for tensor in data_inputs(node)}
        self.beyond_first = {name for name, index in map(split, read | scope.wanted) if index > 0}

    @functools.cached_property
    def shapes(self) -> Shapes:
        """What is certain of the sizes of its tensors."""
        return infer(Body(self._graph, self._scope, NodeTypes(self._graph)), self._scope.args)

    def free(self, name: str) -> str:
        """The name, or one like it that no node has."""
        while name in self._scope.nodes:
            name += "_"
        return name

    def nodes(self, given: Mapping[str, Node], ops: Collection[str]) -> dict[str, Node]:
        """Nodes of the scope, with others in place of those with certain ops."""
        made: dict[str, Node] = {}
        for node in given.values():
            spelled = tuple(_SPELLED[node.op](node, self)) if node.op in ops else ()
            made |= {each.name: each for each in spelled or (node,)}
        return made


def _without_erfc(node: Node, around: _Spelling) -> Iterator[Node]:
    dtype = attrs.to_type(node.attrs["T"])
    if dtype not in _ONES:
        return
    one, erf = around.free(f"{node.name}/one"), around.free(f"{node.name}/erf")
    kind = {"T": node.attrs["T"]}
    yield const(one, dtype, (), _ONES[dtype])
    yield Node(erf, "Erf", node.inputs, kind, node.device)
    yield Node(node.name, "Sub", (one, erf), kind, node.device)


def _without_training(node: Node, around: _Spelling) -> Iterator[Node]:
    """A batch norm in float32 of which nothing but the normalised tensor is read."""
    given = attrs.to_bytes(node.attrs["data_format"]) if "data_format" in node.attrs else b"NHWC"
    kinds = {attrs.to_type(node.attrs[key]) for key in ("T", "U") if key in node.attrs}
    if (
        not trains(node)
        or given not in _AXES
        or kinds != {DType.FLOAT}
        or node.name in around.beyond_first
    ):
        return
    name, kind, axes = node.name, {"T": node.attrs["T"]}, _AXES[given]
    x, scale, offset, *_ = node.inputs
    over, mean, squares, variance = (
        around.free(f"{name}/{part}") for part in ("axes", "mean", "squares", "variance")
    )
    is_last = axes[1] == 1
    reduced = {
        **kind,
        "Tidx": attrs.of_type(DType.INT32),
        "keep_dims": attrs.of_bool(not is_last),
    }
    yield const(over, DType.INT32, (len(axes),), struct.pack(f"<{len(axes)}i", *axes))
    yield Node(mean, "Mean", (x, over), reduced, node.device)
    yield Node(squares, "SquaredDifference", (x, mean), kind, node.device)
    yield Node(variance, "Mean", (squares, over), reduced, node.device)
    if is_last:
        yield node._replace(
            inputs=(x, scale, offset, mean, variance, *node.inputs[5:]),
            attrs={**node.attrs, "is_training": attrs.of_bool(False)},
        )
        return
    yield from _normalised(node, mean, variance, len(axes), around.free)


def _normalised(node: Node, mean: str, variance: str, rank: int, free: Free) -> Iterator[Node]:
    """(x - mean) / sqrt(variance + epsilon) * scale + offset, where channels come first.

    Args:
        node: The batch norm.
        mean: Its mean, of the rank of its input.
        variance: Its variance, the same.
        rank: How many axes there are beside the channels'.
        free: Gives names.
    """
    x, scale, offset, *_ = node.inputs
    kind = {"T": node.attrs["T"]}
    reshaped = {**kind, "Tshape": attrs.of_type(DType.INT32)}
    epsilon = attrs.message(node.attrs["epsilon"]).f if "epsilon" in node.attrs else _EPSILON

    def named(part: str) -> str:
        return free(f"{node.name}/{part}")

    def made(part: str, op: str, *inputs: str, values: Mapping[str, bytes] = kind) -> Node:
        return Node(named(part), op, inputs, values, node.device)

    yield (least := const(named("epsilon"), DType.FLOAT, (), struct.pack("<f", epsilon)))
    sizes = (-1, *(1,) * (rank - 1))
    yield (shape := const(named("shape"), DType.INT32, (rank,), struct.pack(f"<{rank}i", *sizes)))
    yield (width := made("width", "AddV2", variance, least.name))
    yield (factor := made("factor", "Rsqrt", width.name))
    yield (tall := made("scale", "Reshape", scale, shape.name, values=reshaped))
    yield (scaled := made("scaled", "Mul", factor.name, tall.name))
    yield (centred := made("centred", "Sub", x, mean))
    yield (product := made("product", "Mul", centred.name, scaled.name))
    yield (end := made("offset", "Reshape", offset, shape.name, values=reshaped))
    yield node._replace(
        op="AddV2", inputs=(product.name, end.name, *node.inputs[5:]), attrs=dict(kind)
    )


def _without_band(node: Node, around: _Spelling) -> Iterator[Node]:
    """Zero where row - column is above the first number or column - row above the second, if not negative."""
    x, below, above, *waits = node.inputs
    index = node.attrs.get("Tindex", attrs.of_type(DType.INT64))
    dtype = attrs.to_type(index)
    numbers, kind = {"T": index}, {"T": node.attrs["T"]}

    def named(part: str) -> str:
        return around.free(f"{node.name}/{part}")

    def made(part: str, op: str, *inputs: Node | str, values: Mapping[str, bytes]) -> Node:
        names = tuple(each if isinstance(each, str) else each.name for each in inputs)
        return Node(named(part), op, names, values, node.device)

    def integers(part: str, dtype: DType, *values: int, shape: tuple[int, ...] = ()) -> Node:
        letter = "q" if dtype is DType.INT64 else "i"
        return const(named(part), dtype, shape, struct.pack(f"<{len(values)}{letter}", *values))

    yield (zero := integers("zero", dtype, 0))
    yield (one := integers("one", dtype, 1))
    yield (step := integers("step", DType.INT32, 1, shape=(1,)))
    yield (sizes := made("sizes", "Shape", x, values={**kind, "out_type": index}))
    ranges = []
    for part, axis in (("rows", -2), ("columns", -1)):
        yield (begin := integers(f"{part}/axis", DType.INT32, axis, shape=(1,)))
        yield (end := integers(f"{part}/end", DType.INT32, axis + 1, shape=(1,)))
        cut = {
            "T": index,
            "Index": attrs.of_type(DType.INT32),
            "shrink_axis_mask": attrs.of_int(1),
            **dict.fromkeys(
                ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask"), attrs.of_int(0)
            ),
        }
        yield (size := made(f"{part}/size", "StridedSlice", sizes, begin, end, step, values=cut))
        yield (counted := made(part, "Range", zero, size, one, values={"Tidx": index}))
        ranges.append(counted)
    yield (tall := integers("tall", DType.INT32, -1, 1, shape=(2,)))
    reshaped = {"T": index, "Tshape": attrs.of_type(DType.INT32)}
    yield (column := made("column", "Reshape", ranges[0], tall, values=reshaped))
    yield (distance := made("distance", "Sub", column, ranges[1], values=numbers))
    yield (back := made("back", "Neg", distance, values=numbers))
    sides = []
    for part, width, far in (("below", below, distance), ("above", above, back)):
        yield (whole := made(f"{part}/whole", "Less", width, zero, values=numbers))
        yield (near := made(f"{part}/near", "LessEqual", far, width, values=numbers))
        yield (side := made(part, "LogicalOr", whole, near, values={}))
        sides.append(side)
    yield (inside := made("inside", "LogicalAnd", *sides, values={}))
    yield (nothing := made("nothing", "ZerosLike", x, values=kind))
    yield node._replace(
        op="SelectV2", inputs=(inside.name, x, nothing.name, *waits), attrs=dict(kind)
    )


def _without_rank(node: Node, around: _Spelling) -> Iterator[Node]:
    """How many sizes a tensor has, which is a number even where nobody knows it beforehand."""
    (x, *waits) = node.inputs
    sizes = around.free(f"{node.name}/sizes")
    integers = {"out_type": attrs.of_type(DType.INT32)}
    yield Node(sizes, "Shape", (x, *waits), {"T": node.attrs["T"], **integers}, node.device)
    yield node._replace(
        op="Size", inputs=(sizes,), attrs={"T": attrs.of_type(DType.INT32), **integers}
    )


def _without_scatter(node: Node, around: _Spelling) -> Iterator[Node]:
    """What is scattered into nothing, as an addition to zeros: where an index comes twice, both count."""
    indices, updates, shape, *waits = node.inputs
    dtype = attrs.to_type(node.attrs["T"])
    if dtype not in _ZEROS:
        return
    zero, zeros = around.free(f"{node.name}/zero"), around.free(f"{node.name}/zeros")
    yield const(zero, dtype, (), _ZEROS[dtype])
    filled = {"T": node.attrs["T"], "index_type": node.attrs["Tindices"]}
    yield Node(zeros, "Fill", (shape, zero), filled, node.device)
    yield node._replace(op="TensorScatterAdd", inputs=(zeros, indices, updates, *waits))


def _without_vector(node: Node, around: _Spelling) -> Iterator[Node]:
    """A choice of whole rows by a vector, as a choice by a column, which is stretched over them."""
    chooses, x, y, *waits = node.inputs
    condition = around.shapes.of(chooses)
    rows = around.shapes.of(x) or around.shapes.of(y)
    if condition is None or len(condition) != 1 or rows is None or len(rows) == 1:
        return
    shape, column = around.free(f"{node.name}/shape"), around.free(f"{node.name}/column")
    sizes = (-1, *(1,) * (len(rows) - 1))
    yield const(shape, DType.INT32, (len(sizes),), struct.pack(f"<{len(sizes)}i", *sizes))
    reshaped = {"T": attrs.of_type(DType.BOOL), "Tshape": attrs.of_type(DType.INT32)}
    yield Node(column, "Reshape", (chooses, shape), reshaped, node.device)
    yield node._replace(op="SelectV2", inputs=(column, x, y, *waits), attrs={"T": node.attrs["T"]})


def _without_ellipsis(node: Node, around: _Spelling) -> Iterator[Node]:
    yield from without_ellipsis(node, [*map(around.shapes.of, data_inputs(node))], around.free)


_SPELLED: Mapping[str, Callable[[Node, _Spelling], Iterator[Node]]] = {
    "Erfc": _without_erfc,
    "MatrixBandPart": _without_band,
    "Rank": _without_rank,
    "ScatterNd": _without_scatter,
    "Select": _without_vector,
    "Einsum": _without_ellipsis,
    **dict.fromkeys(BATCH_NORMS, _without_training),
}
