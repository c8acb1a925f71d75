"""Functions whose nodes and arguments have names that nothing else in the graph has.

For converters that put one function into another by names, tf2onnx for one: a name that a branch has as
well as what is around it would be taken for the wrong one of them.
"""

from __future__ import annotations

import dataclasses

from freezeflow.graph.graph import Function
from freezeflow.graph.inline import renamed
from freezeflow.graph.library import free
from freezeflow.graph.model import Model


def with_own_names(model: Model) -> Model:
    """The model with such names; those of the main graph stay.

    Args:
        model: A model.

    Returns:
        The model, in its order; the very same where it has no functions.
    """
    graph = model.graph
    if not graph.functions:
        return model
    taken = set(graph.nodes)
    functions = {name: _named(function, taken) for name, function in graph.functions.items()}
    return dataclasses.replace(model, graph=dataclasses.replace(graph, functions=functions))


def _named(function: Function, taken: set[str]) -> Function:
    def own(name: str) -> str:
        unique = free(taken, name)
        taken.add(unique)
        return unique

    names = {name: own(f"{function.name}/{name}") for name in function.nodes}
    args = {arg.name: own(f"{function.name}_{arg.name}") for arg in function.args}
    return dataclasses.replace(
        function,
        args=tuple(arg._replace(name=args[arg.name]) for arg in function.args),
        nodes={
            names[node.name]: node._replace(
                name=names[node.name],
                inputs=tuple(renamed(tensor, names, args) for tensor in node.inputs),
            )
            for node in function.nodes.values()
        },
        results=tuple(r._replace(tensor=renamed(r.tensor, names, args)) for r in function.results),
        control_results=tuple(c._replace(node=names[c.node]) for c in function.control_results),
    )
