"""What depends on shapes alone, where the shapes are known before anything runs."""

from __future__ import annotations

import struct

from freezeflow.graph.constants import const
from freezeflow.graph.graph import Node, data_inputs, join
from freezeflow.graph.rewrites.body import Body
from freezeflow.graph.shapes import READS_SHAPE, Dim, Shapes, all_known, count, stays
from freezeflow.values import DType

_LETTERS = {DType.INT32: "i", DType.INT64: "q"}


def is_known(body: Body, shapes: Shapes, node: Node) -> bool:
    """Replaces each output that is a known shape, or computed from such, by a constant."""
    if node.op == "Const" or node.name in body.known or not node.inputs:
        return False
    outputs = body.types.ends(node).outputs
    if not outputs or not set(outputs) <= _LETTERS.keys():
        return False
    found = {i: v for i in range(len(outputs)) if (v := _value(shapes, node, i)) is not None}
    if len(found) < len(outputs) or not _may_go(body, shapes, node):
        return False
    moved = {}
    for index, (shape, numbers) in found.items():
        name = body.unique(f"{node.name}/known" if not index else f"{node.name}/known_{index}")
        body.put(integers(name, outputs[index], shape, numbers))
        moved[join(node.name, index)] = name
    body.take_out(node, moved, ())
    return True


def _may_go(body: Body, shapes: Shapes, node: Node) -> bool:
    """Whether nothing is lost with what the node is computed from.

    Of a Shape's input only the size is taken; it stays as long as someone else needs it.
    """
    data = list(data_inputs(node))
    if any(tensor.startswith("^") for tensor in node.inputs):
        return False
    if node.op in READS_SHAPE:
        return all(stays(body, t) and body.is_loose(t) for t in data)
    return all(body.is_loose(tensor) and shapes.may_go(body, tensor) for tensor in data)


def _value(
    shapes: Shapes, node: Node, index: int
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    tensor = join(node.name, index)
    shape, numbers = all_known(shapes.of(tensor)), all_known(shapes.value(tensor))
    if shape is None or numbers is None or len(shape) > 1:
        return None
    return (shape, numbers) if shape in ((), (len(numbers),)) else None


def integers(name: str, dtype: DType, shape: tuple[int, ...], numbers: tuple[int, ...]) -> Node:
    """A constant of small integers."""
    return const(name, dtype, shape, struct.pack(f"<{len(numbers)}{_LETTERS[dtype]}", *numbers))


def plain_target(body: Body, shapes: Shapes, node: Node) -> bool:
    """Gives a Reshape a constant for a computed target of which one size is not known.

    ``reshape(x, [shape(x)[0], 32, 64])`` of a tensor of shape (n, 2048) is ``reshape(x, [-1, 32,
    64])``: both have the same elements for every n, 0 included.
    """
    if node.op != "Reshape":
        return False
    source, target = node.inputs[0], node.inputs[1]
    shape, value = shapes.of(source), shapes.value(target)
    maker = body.source(target)
    if shape is None or value is None or maker is None or maker.op == "Const":
        return False
    unknown = [size for size in value if not isinstance(size, int)]
    if len(unknown) != 1 or any(isinstance(size, int) and size <= 0 for size in value):
        return False
    if count(shape) != count(value) or 0 in shape:
        return False
    if not (body.is_loose(target) and shapes.may_go(body, target)):
        return False
    dtype = body.dtype(target)
    if dtype not in _LETTERS:
        return False
    sizes = tuple(map(_or_inferred, value))
    made = integers(body.unique(f"{node.name}/shape"), dtype, (len(sizes),), sizes)
    body.put(made)
    body.put(node._replace(inputs=(source, made.name, *node.inputs[2:])))
    return True


def _or_inferred(size: Dim) -> int:
    return size if isinstance(size, int) else -1
