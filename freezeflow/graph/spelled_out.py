"""Ops that few runtimes have, spelled out in ops that they do have.

`Erfc` (in Keras' gelu) becomes one minus `Erf`: equal but for the last places of numbers near zero, so
it is for targets alone whose answers are compared within a tolerance.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator, Mapping

from freezeflow.graph import attrs
from freezeflow.graph.constants import const
from freezeflow.graph.graph import Node
from freezeflow.graph.model import Model
from freezeflow.values import DType

_ONES: Mapping[DType, bytes] = {
    DType.FLOAT: struct.pack("<f", 1.0),
    DType.DOUBLE: struct.pack("<d", 1.0),
    DType.HALF: struct.pack("<e", 1.0),
}


def spelled_out(model: Model) -> Model:
    """The model without `Erfc`; names of nodes stay."""
    graph = model.graph
    functions = {
        name: dataclasses.replace(function, nodes=_body(function.nodes))
        for name, function in graph.functions.items()
    }
    changed = dataclasses.replace(graph, nodes=_body(graph.nodes), functions=functions)
    return dataclasses.replace(model, graph=changed)


def _body(nodes: Mapping[str, Node]) -> dict[str, Node]:
    made: dict[str, Node] = {}
    for node in nodes.values():
        for each in _without_erfc(node, nodes) if node.op == "Erfc" else (node,):
            made[each.name] = each
    return made


def _without_erfc(node: Node, nodes: Mapping[str, Node]) -> Iterator[Node]:
    dtype = attrs.to_type(node.attrs["T"])
    one, erf = f"{node.name}/one", f"{node.name}/erf"
    if dtype not in _ONES or one in nodes or erf in nodes:
        yield node
        return
    kind = {"T": node.attrs["T"]}
    yield const(one, dtype, (), _ONES[dtype])
    yield Node(erf, "Erf", node.inputs, kind, node.device)
    yield Node(node.name, "Sub", (one, erf), kind, node.device)
