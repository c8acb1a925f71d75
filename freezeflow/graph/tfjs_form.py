"""A model as TensorFlow.js' executor reads functions rightly.

It keeps the constants of the main graph and of all functions in one map, by the names of their nodes, and
does not run a node whose name is in there. It tells the results of a function apart by the nodes that
give them, and disposes of what a round of a loop gave once the next one has run, also of a constant. What
a node waits for it hands to the op with the rest, where that takes any number of tensors. What is made
here has a name for each node, a node for each result, and nothing waits: the ops that it has do nothing
but give tensors. One does more on the processor backend: a TensorScatterUpdate changes the tensor that it
takes, be it a weight, so that it gets a copy.

Source: @tensorflow/tfjs-converter 4.22.0, ``src/executor/graph_executor.ts`` and
``src/operations/executors/control_executor.ts``; @tensorflow/tfjs-backend-cpu 4.22.0,
``src/kernels/TensorScatterUpdate.ts``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from freezeflow.graph import attrs
from freezeflow.graph.canonical import canonical
from freezeflow.graph.constants import const
from freezeflow.graph.graph import Function, Graph, Node, data_inputs
from freezeflow.graph.inline import renamed
from freezeflow.graph.model import Model
from freezeflow.values import DType


def tfjs_form(model: Model) -> Model:
    """The model with names that are its nodes' own, functions included; those of the main graph stay.

    Args:
        model: A frozen model with one signature, whose outputs are nodes of their own.
    """
    graph = dataclasses.replace(
        model.graph,
        nodes=_body(model.graph.nodes),
        functions={
            name: dataclasses.replace(function, nodes=_body(function.nodes), control_results=())
            for name, function in model.graph.functions.items()
        },
    )
    model = canonical(dataclasses.replace(model, graph=graph))
    return dataclasses.replace(model, graph=_with_own_names(model.graph))


def _body(nodes: Mapping[str, Node]) -> dict[str, Node]:
    made: dict[str, Node] = {}
    for node in nodes.values():
        given = tuple(data_inputs(node))
        if node.op == "TensorScatterUpdate":
            either, copy = _copied(node, nodes)
            made |= {either.name: either, copy.name: copy}
            given = (copy.name, *given[1:])
        made[node.name] = node._replace(inputs=given)
    return made


def _copied(node: Node, nodes: Mapping[str, Node]) -> tuple[Node, Node]:
    """A choice between what a node takes and the same, which is a tensor of its own."""
    names = [f"{node.name}/either", f"{node.name}/copy"]
    while any(name in nodes for name in names):
        names = [name + "_" for name in names]
    either = const(names[0], DType.BOOL, (), b"\x01")
    inputs = (either.name, node.inputs[0], node.inputs[0])
    return either, Node(names[1], "SelectV2", inputs, {"T": node.attrs["T"]})


def _with_own_names(graph: Graph) -> Graph:
    taken = {*graph.nodes, *(arg.name for each in graph.functions.values() for arg in each.args)}

    def own(name: str) -> str:
        while name in taken:
            name += "_"
        taken.add(name)
        return name

    functions = {}
    for function in graph.functions.values():
        names = {name: own(f"{function.name}/{name}") for name in function.nodes}
        ends = {result.name: own(f"{function.name}/{result.name}") for result in function.results}
        functions[function.name] = _named(function, names, ends)
    return dataclasses.replace(graph, functions=functions)


def _named(function: Function, names: Mapping[str, str], ends: Mapping[str, str]) -> Function:
    """A function whose nodes have these names.

    Args:
        function: The function.
        names: Old name of a node to its new one.
        ends: Result to the name of the node that gives it.
    """
    args = {arg.name: arg.name for arg in function.args}
    nodes = {}
    for node in function.nodes.values():
        inputs = tuple(renamed(tensor, names, args) for tensor in node.inputs)
        nodes[names[node.name]] = node._replace(name=names[node.name], inputs=inputs)
    results = []
    for result in function.results:
        end = ends[result.name]
        given = renamed(result.tensor, names, args)
        nodes[end] = Node(end, "Identity", (given,), {"T": attrs.of_type(result.dtype)})
        results.append(result._replace(tensor=end))
    return dataclasses.replace(function, nodes=nodes, results=tuple(results))
