"""TF1's control flow of Switch, Merge and frames in functional form: the inverse of `freezeflow.graph.lower`.

For targets that take If and While only. What does not come from conditionals and loops stays: values that
are dead when they reach an output, Merges that take whatever comes first. Names of Merges and Exits stay,
as nodes that hand on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from freezeflow.graph.canonical import canonical
from freezeflow.graph.effects import V1_CONTROL_FLOW
from freezeflow.graph.flow_shapes import with_flow_shapes
from freezeflow.graph.frames import frames_of
from freezeflow.graph.graph import Function, Node, node_of
from freezeflow.graph.library import Library
from freezeflow.graph.model import Model
from freezeflow.graph.raise_branches import with_ifs
from freezeflow.graph.raise_loops import with_whiles
from freezeflow.graph.walk import prune, without_unused
from freezeflow.values import DType


def raised(model: Model) -> Model:
    """The model with If, Case and While in place of TF1's control flow, as far as that can be said so.

    Args:
        model: A frozen model.

    Returns:
        The model in canonical form; the very same where it has no such control flow.
    """
    graph = model.graph
    bodies = [graph.nodes, *(function.nodes for function in graph.functions.values())]
    if not any(node.op in V1_CONTROL_FLOW for nodes in bodies for node in nodes.values()):
        return model
    ends = [*model.init, *model.variables]
    for signature in model.signatures.values():
        specs = (*signature.inputs.values(), *signature.outputs.values())
        ends += [node_of(spec.tensor) for spec in specs]
    graph = prune(graph, ends)
    library = Library(graph)
    given = set(library.functions)
    nodes = _raised(graph.nodes, {}, ends, library)
    library.rewrite(lambda function: _raised_function(function, library))
    functions = {
        name: function if name in given else library.tidied(function)
        for name, function in library.functions.items()
    }
    graph = dataclasses.replace(graph, nodes=nodes, functions=functions)
    fed = {node_of(s.tensor) for each in model.signatures.values() for s in each.inputs.values()}
    graph = with_flow_shapes(without_unused(graph), fed, functions.keys() - given)
    return canonical(dataclasses.replace(model, graph=graph))


def _raised_function(function: Function, library: Library) -> Function:
    args = {arg.name: arg.dtype for arg in function.args}
    roots = [result.tensor for result in function.results]
    roots += [control.node for control in function.control_results]
    nodes = _raised(function.nodes, args, roots, library)
    return dataclasses.replace(function, nodes=nodes)


def _raised(
    nodes: Mapping[str, Node], args: Mapping[str, DType], roots: Sequence[str], library: Library
) -> Mapping[str, Node]:
    nodes = with_whiles(nodes, library)
    # In what is left of a loop nodes are alive that no If holds.
    return nodes if frames_of(nodes) else with_ifs(nodes, args, roots, library)
