"""Loops whose number of rounds is known, as the rounds themselves, for targets without such loops.

A While becomes calls of its body, one behind the other, which are inlined. What a loop keeps in a list
(Keras' recurrent layers keep their steps so) is then known place by place: each TensorListGetItem
becomes what was set there, or a slice, and TensorListStack a Pack. Sums stay in their order, so that no
bit changes. Source of the ops' semantics: upstream ``core/kernels/list_kernels.h``,
``core/kernels/functional_ops.cc``.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from freezeflow.graph import attrs
from freezeflow.graph.canonical import canonical
from freezeflow.graph.constants import const
from freezeflow.graph.foldable import Scope
from freezeflow.graph.graph import Graph, Node, control_inputs, data_inputs, join, node_of
from freezeflow.graph.handles import scalar_const
from freezeflow.graph.inline import inline_model
from freezeflow.graph.model import Model
from freezeflow.graph.rewrites.simplify import simplify
from freezeflow.graph.scalars import scalar
from freezeflow.graph.walk import inputs_first, prune
from freezeflow.values import DType

_LOOPS = {"While": "StatefulPartitionedCall", "StatelessWhile": "PartitionedCall"}

# Loops in loops, and loops whose length follows from what one before them gives.
_MOST_DEPTH = 64


def unrolled(model: Model, *, most_rounds: int, lists_only: bool) -> Model:
    """The model with its loops unrolled, as far as their number of rounds follows from constants.

    Args:
        model: A frozen model with one signature, whose outputs are nodes of their own.
        most_rounds: Loops with more rounds stay.
        lists_only: Only loops that carry a list.
    """
    if not any(_has_loop(node, lists_only=lists_only) for node in model.graph.nodes.values()):
        return model
    for _ in range(_MOST_DEPTH):
        model = _simplified(model)
        graph = _with_rounds(model.graph, most_rounds, lists_only=lists_only)
        if graph is model.graph:
            break
        graph = _without_lists(inline_model(dataclasses.replace(model, graph=graph)).graph)
        model = dataclasses.replace(model, graph=prune(graph, _ends(model)))
    else:
        return canonical(model)
    graph = _without_lists(model.graph)
    return canonical(dataclasses.replace(model, graph=prune(graph, _ends(model))))


def _simplified(model: Model) -> Model:
    """With sizes that follow from shapes as constants."""
    ((_, signature),) = model.signatures.items()
    wanted = frozenset(node_of(spec.tensor) for spec in signature.outputs.values())
    fed = frozenset(node_of(spec.tensor) for spec in signature.inputs.values())
    nodes = simplify(model.graph, Scope(model.graph.nodes, wanted, fed))
    graph = prune(dataclasses.replace(model.graph, nodes=nodes), wanted | fed)
    return dataclasses.replace(model, graph=graph)


def _ends(model: Model) -> set[str]:
    ((_, signature),) = model.signatures.items()
    specs = (*signature.inputs.values(), *signature.outputs.values())
    return {node_of(spec.tensor) for spec in specs}


def _has_loop(node: Node, *, lists_only: bool) -> bool:
    if node.op not in _LOOPS:
        return False
    return not lists_only or DType.VARIANT in attrs.to_types(node.attrs["T"])


# ---------------------------------------------------------------- rounds


def _with_rounds(graph: Graph, most_rounds: int, *, lists_only: bool) -> Graph:
    """The main graph with calls in place of loops; the very same where there is none to unroll."""
    nodes = dict(graph.nodes)
    known: dict[str, int | None] = {}
    moved: dict[str, str] = {}
    for node in graph.nodes.values():
        if not _has_loop(node, lists_only=lists_only):
            continue
        rounds = _rounds(graph, node, known, most_rounds)
        if rounds is None:
            continue
        del nodes[node.name]
        values = list(data_inputs(node))
        for number in range(rounds):
            call = _call(graph, node, number, values, nodes)
            nodes[call.name] = call
            values = [join(call.name, index) for index in range(len(values))]
        moved |= {join(node.name, index): value for index, value in enumerate(values)}
        moved[f"^{node.name}"] = f"^{node_of(values[0])}"
    if not moved:
        return graph
    renamed = {name: _renamed(node, moved) for name, node in nodes.items()}
    return dataclasses.replace(graph, nodes=renamed)


def _renamed(node: Node, moved: Mapping[str, str]) -> Node:
    """A node that takes what loops give from where it is now; loops may be behind each other."""
    inputs = []
    for tensor in node.inputs:
        while tensor in moved:
            tensor = moved[tensor]
        inputs.append(tensor)
    return node._replace(inputs=tuple(inputs))


def _rounds(graph: Graph, node: Node, known: dict[str, int | None], most_rounds: int) -> int | None:
    """How often the body runs; None where that does not follow from constants, or is too often."""
    goes_on, _ = attrs.to_function(node.attrs["cond"])
    step, _ = attrs.to_function(node.attrs["body"])
    condition, body = graph.functions[goes_on], graph.functions[step]
    values = [scalar(graph.nodes, tensor, known) for tensor in data_inputs(node)]
    for number in range(most_rounds + 1):
        given: dict[str, int | None] = {
            arg.name: value for arg, value in zip(condition.args, values, strict=True)
        }
        decided = scalar(condition.nodes, condition.results[0].tensor, given)
        if decided is None:
            return None
        if not decided:
            return number
        given = {arg.name: value for arg, value in zip(body.args, values, strict=True)}
        values = [scalar(body.nodes, result.tensor, given) for result in body.results]
    return None


def _call(
    graph: Graph, node: Node, number: int, values: list[str], nodes: Mapping[str, Node]
) -> Node:
    name = f"{node.name}/round_{number}"
    while name in nodes:
        name += "_"
    types = node.attrs["T"]
    body = attrs.to_function(node.attrs["body"])
    return Node(
        name,
        _LOOPS[node.op],
        (*values, *(f"^{waited}" for waited in control_inputs(node))),
        {"Tin": types, "Tout": types, "f": attrs.of_function(*body)},
        node.device,
    )


# ---------------------------------------------------------------- lists


class _List(NamedTuple):
    """What is known of a list.

    Args:
        items: Place to the tensor that was set there.
        source: The tensor whose slices are in all other places; None for places that were not set.
        length: How many places there are; None for those of `source`.
    """

    items: Mapping[int, str]
    source: str | None
    length: int | None


def _without_lists(graph: Graph) -> Graph:
    """The main graph with tensors in place of lists, where places are known."""
    known: dict[str, int | None] = {}
    lists: dict[str, _List] = {}
    nodes = dict(graph.nodes)
    for name in inputs_first(graph.nodes):
        node = graph.nodes[name]
        if (made := _made_list(node, graph.nodes, known, lists)) is not None:
            lists[name] = made
            continue
        for replaced in _read_list(node, graph.nodes, known, lists):
            nodes[replaced.name] = replaced
    return dataclasses.replace(graph, nodes=nodes)


def _made_list(
    node: Node,
    nodes: Mapping[str, Node],
    known: dict[str, int | None],
    lists: Mapping[str, _List],
) -> _List | None:
    """The list that a node gives; None if it gives none, or it is not known."""
    data = list(data_inputs(node))
    if node.op == "TensorListFromTensor":
        return _List({}, data[0], None)
    if node.op in ("TensorListReserve", "EmptyTensorList"):
        length = scalar(nodes, data[1], known) if node.op == "TensorListReserve" else 0
        return None if length is None else _List({}, None, length)
    if node.op == "Identity":
        return lists.get(data[0])
    before = lists.get(data[0]) if data else None
    if before is None:
        return None
    if node.op == "TensorListSetItem":
        place = scalar(nodes, data[1], known)
        if place is None or place < 0:
            return None
        length = None if before.length is None else max(before.length, place + 1)
        return _List({**before.items, place: data[2]}, before.source, length)
    if node.op == "TensorListPushBack" and before.length is not None:
        items = {**before.items, before.length: data[1]}
        return _List(items, before.source, before.length + 1)
    return None


def _read_list(
    node: Node,
    nodes: Mapping[str, Node],
    known: dict[str, int | None],
    lists: Mapping[str, _List],
) -> Iterator[Node]:
    """What takes a node's place that reads a known list."""
    data = list(data_inputs(node))
    given = lists.get(data[0]) if data else None
    if given is None:
        return
    waits = tuple(f"^{name}" for name in control_inputs(node))
    if node.op == "TensorListGetItem":
        place = scalar(nodes, data[1], known)
        kind = node.attrs["element_dtype"]
        if place is None:
            return
        if place in given.items:
            yield Node(node.name, "Identity", (given.items[place], *waits), {"T": kind})
        elif place >= 0 and given.source is not None:
            yield from _slice(node, given.source, place, waits, nodes)
    elif node.op == "TensorListLength" and given.length is not None:
        yield scalar_const(node.name, given.length, after=None)._replace(inputs=waits)
    elif node.op == "TensorListStack":
        kind = node.attrs["element_dtype"]
        if given.source is not None and not given.items:
            yield Node(node.name, "Identity", (given.source, *waits), {"T": kind})
        elif given.length and set(given.items) == set(range(given.length)):
            values = tuple(given.items[place] for place in range(given.length))
            count = attrs.of_int(len(values))
            axis = attrs.of_int(0)
            yield Node(node.name, "Pack", (*values, *waits), {"N": count, "T": kind, "axis": axis})


def _slice(
    node: Node, source: str, place: int, waits: tuple[str, ...], nodes: Mapping[str, Node]
) -> Iterator[Node]:
    """``source[place]``, under the node's name."""
    ends = []
    for word, number in (("begin", place), ("end", place + 1), ("stride", 1)):
        name = f"{node.name}/{word}"
        while name in nodes:
            name += "_"
        ends.append(const(name, DType.INT32, (1,), struct.pack("<i", number)))
    yield from ends
    masks = ("begin_mask", "ellipsis_mask", "end_mask", "new_axis_mask")
    yield Node(
        node.name,
        "StridedSlice",
        (source, *(end.name for end in ends), *waits),
        {
            "Index": attrs.of_type(DType.INT32),
            "T": node.attrs["element_dtype"],
            "shrink_axis_mask": attrs.of_int(1),
            **dict.fromkeys(masks, attrs.of_int(0)),
        },
        node.device,
    )
