"""Ops that few runtimes have, spelled out in ops that they do have.

`Erfc` (in Keras' gelu) becomes one minus `Erf`: equal but for the last places of numbers near zero. A
batch norm in training mode (of a network that was frozen with ``is_training``) takes mean and variance from
the batch: they are computed beside it, and it becomes one for inference, which all runtimes have.
TensorFlow.js does not look at the attribute and answers NaN. Sums come in another order by that, so it is
for targets alone whose answers are compared within a tolerance.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from freezeflow.graph import attrs
from freezeflow.graph.constants import const
from freezeflow.graph.graph import Node, data_inputs, split
from freezeflow.graph.model import Model
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

# Axes of everything but the channels, where these come last.
_AXES: Mapping[bytes, tuple[int, ...]] = {b"NHWC": (0, 1, 2), b"NDHWC": (0, 1, 2, 3)}


def spelled_out(model: Model) -> Model:
    """The model without `Erfc` and without batch norms in training mode; names of nodes stay."""
    graph = model.graph
    ends = [spec.tensor for each in model.signatures.values() for spec in each.outputs.values()]
    functions = {
        name: dataclasses.replace(
            function, nodes=_body(function.nodes, [result.tensor for result in function.results])
        )
        for name, function in graph.functions.items()
    }
    changed = dataclasses.replace(graph, nodes=_body(graph.nodes, ends), functions=functions)
    return dataclasses.replace(model, graph=changed)


def trains(node: Node) -> bool:
    """Whether a batch norm takes its statistics from the batch."""
    flag = node.attrs.get("is_training")
    return flag is None or bool(attrs.message(flag).b)


def _body(nodes: Mapping[str, Node], ends: Iterable[str]) -> dict[str, Node]:
    read = {tensor for node in nodes.values() for tensor in data_inputs(node)} | set(ends)
    beyond_first = {name for name, index in map(split, read) if index > 0}
    made: dict[str, Node] = {}

    def free(name: str) -> str:
        """The name, or one like it that no node has."""
        while name in nodes:
            name += "_"
        return name

    for node in nodes.values():
        spelled = tuple(_SPELLED[node.op](node, beyond_first, free)) if node.op in _SPELLED else ()
        for each in spelled or (node,):
            made[each.name] = each
    return made


def _without_erfc(node: Node, _: Collection[str], free: Free) -> Iterator[Node]:
    dtype = attrs.to_type(node.attrs["T"])
    if dtype not in _ONES:
        return
    one, erf = free(f"{node.name}/one"), free(f"{node.name}/erf")
    kind = {"T": node.attrs["T"]}
    yield const(one, dtype, (), _ONES[dtype])
    yield Node(erf, "Erf", node.inputs, kind, node.device)
    yield Node(node.name, "Sub", (one, erf), kind, node.device)


def _without_training(node: Node, beyond_first: Collection[str], free: Free) -> Iterator[Node]:
    """A batch norm in float32, channels last, of which nothing but the normalised tensor is read."""
    layout = node.attrs.get("data_format")
    axes = _AXES.get(attrs.to_bytes(layout) if layout is not None else b"NHWC")
    kinds = {attrs.to_type(node.attrs[key]) for key in ("T", "U") if key in node.attrs}
    if not trains(node) or axes is None or kinds != {DType.FLOAT} or node.name in beyond_first:
        return
    name, kind = node.name, {"T": node.attrs["T"]}
    x, scale, offset, *_ = node.inputs
    over, mean, squares, variance = (
        free(f"{name}/{part}") for part in ("axes", "mean", "squares", "variance")
    )
    reduced = {**kind, "Tidx": attrs.of_type(DType.INT32), "keep_dims": attrs.of_bool(False)}
    yield const(over, DType.INT32, (len(axes),), struct.pack(f"<{len(axes)}i", *axes))
    yield Node(mean, "Mean", (x, over), reduced, node.device)
    yield Node(squares, "SquaredDifference", (x, mean), kind, node.device)
    yield Node(variance, "Mean", (squares, over), reduced, node.device)
    yield node._replace(
        inputs=(x, scale, offset, mean, variance, *node.inputs[5:]),
        attrs={**node.attrs, "is_training": attrs.of_bool(False)},
    )


_SPELLED: Mapping[str, Callable[[Node, Collection[str], Free], Iterator[Node]]] = {
    "Erfc": _without_erfc,
    **dict.fromkeys(BATCH_NORMS, _without_training),
}
