"""Additions and multiplications by channel, moved before what only moves elements around.

A convolution of one dimension is one of two, and a Squeeze behind it; a dilated one has a BatchToSpaceND
there as well. Bias and batch norm come after these. ``squeeze(x) * scale`` is ``squeeze(x * scale)`` to
the bit, and so the batch norm comes to stand behind the convolution, where it can be folded.
"""

from __future__ import annotations

from collections.abc import Mapping

from freezeflow.graph import attrs
from freezeflow.graph.graph import Node, data_inputs, split
from freezeflow.graph.rewrites.body import Body
from freezeflow.graph.rewrites.linear import WEIGHTS, layout_of
from freezeflow.graph.rewrites.static import integers
from freezeflow.graph.shapes import Shapes, all_known
from freezeflow.values import DType

_BY_CHANNEL = {"Add", "AddV2", "BiasAdd", "Div", "Mul", "RealDiv", "Sub"}
_ORDERED = {"BiasAdd", "Div", "RealDiv", "Sub"}
_MOVES = {"BatchToSpaceND", "Squeeze"}


def lift_by_channel(body: Body, shapes: Shapes) -> int:
    """Moves what adds or multiplies by channel before Squeeze and BatchToSpaceND; how often it did."""
    lifted = 0
    for name in list(body.order):
        while (place := _lifted_place(body, shapes, body.nodes[name])) is not None:
            name = _lift(body, shapes, body.nodes[name], place)
            lifted += 1
    return lifted


def _lifted_place(body: Body, shapes: Shapes, node: Node) -> int | None:
    """The number of the input that is to be taken from further up; None where the node stays."""
    if node.op not in _BY_CHANNEL or len(node.inputs) != 2 or node.name in body.fed:
        return None
    for place in (0,) if node.op in _ORDERED else (0, 1):
        term = body.source(node.inputs[1 - place])
        shape = all_known(shapes.of(node.inputs[1 - place]))
        if term is None or term.op != "Const" or term.name in body.fed or shape is None:
            continue
        rank = _rank_behind_linear(body, node.inputs[place])
        mover = body.source(node.inputs[place])
        if rank is None or mover is None or mover.op not in _MOVES:
            continue
        if len(shape) <= rank and all(size == 1 for size in shape[:-1]):
            return place
    return None


def _rank_behind_linear(body: Body, tensor: str) -> int | None:
    """The rank of a tensor that comes from a linear op with its channels last, which stay there.

    Between the two are only ops that move elements, and ones that add or multiply by channel.
    """
    name, index = split(tensor)
    node = body.nodes.get(name)
    if node is None or index or name in body.known or any(t[0] == "^" for t in node.inputs):
        return None
    if sum(t == name for user in body.users_of(name) for t in user.inputs) != 1:
        return None
    if node.op in WEIGHTS:
        layout = layout_of(node)
        return layout.rank if layout is not None and layout.axis == layout.rank - 1 else None
    if node.op in _BY_CHANNEL:
        sources = [t for t in data_inputs(node) if not _is_constant(body, t)]
        return _rank_behind_linear(body, sources[0]) if len(sources) == 1 else None
    if node.op not in _MOVES:
        return None
    rank = _rank_behind_linear(body, node.inputs[0])
    return None if rank is None else _rank_moved(body, node, rank)


def _is_constant(body: Body, tensor: str) -> bool:
    node = body.source(tensor)
    return node is not None and node.op == "Const"


def _rank_moved(body: Body, node: Node, rank: int) -> int | None:
    """The rank behind a Squeeze or BatchToSpaceND that leaves the last axis alone."""
    if node.op == "BatchToSpaceND":
        blocks = body.integers(node.inputs[1])
        return rank if blocks is not None and 1 + len(blocks) < rank else None
    asked = attrs.message(node.attrs["squeeze_dims"]).list.i if "squeeze_dims" in node.attrs else ()
    places = {axis % rank for axis in asked if -rank <= axis < rank}
    return rank - len(places) if places and rank - 1 not in places else None


def _lift(body: Body, shapes: Shapes, node: Node, place: int) -> str:
    """Changes places with the op before; the name of the node where it is now."""
    mover = body.nodes[split(node.inputs[place])[0]]
    term = _as_vector(body, shapes, node.name, node.inputs[1 - place], node.attrs)
    inputs = (mover.inputs[0], term) if place == 0 else (term, mover.inputs[0])
    name = body.unique(f"{node.name}/lifted")
    values = dict(node.attrs)
    if node.op == "BiasAdd":
        values["data_format"] = attrs.of_bytes(b"NHWC")
    body.put(Node(name, node.op, inputs, values, node.device))
    body.put(mover._replace(name=node.name, inputs=(name, *mover.inputs[1:])))
    body.drop(mover.name)
    return name


def _as_vector(
    body: Body, shapes: Shapes, prefix: str, term: str, values: Mapping[str, bytes]
) -> str:
    """A constant by channel without the axes of size 1 before it, whose number changes."""
    shape = all_known(shapes.of(term))
    if shape is None or len(shape) <= 1:
        return term
    size = integers(body.unique(f"{prefix}/channels"), DType.INT32, (1,), shape[-1:])
    body.put(size)
    kept = {"T": values["T"], "Tshape": attrs.of_type(DType.INT32)}
    vector = Node(body.unique(f"{prefix}/vector"), "Reshape", (term, size.name), kept)
    body.put(vector)
    shapes.set_shape(vector.name, shape[-1:])
    return vector.name
