"""Values that variables get from the initialiser instead of the checkpoint.

A SavedModel's init op runs after the checkpoint is restored. Besides filling tables it may assign
variables that are not saved: local variables, asset paths. Such a variable is as constant as the
tensor that it is given.
"""

from __future__ import annotations

from collections.abc import Mapping

from freezeflow.graph.graph import Graph, Node, data_inputs, node_of
from freezeflow.graph.model import Model
from freezeflow.graph.variables import HANDLES
from freezeflow.graph.walk import reached_nodes

_ASSIGNS = frozenset({"Assign", "AssignVariableOp"})

# Stateful ops that give the same value whenever they are run.
_STEADY = HANDLES | {"ReadVariableOp", "GuaranteeConst"}


def initial_values(model: Model) -> dict[str, str]:
    """Handle node to the tensor that the initialiser assigns to it.

    A variable that is assigned a value that differs from run to run (a random one), or that depends
    on its own value before, is left out.
    """
    nodes = model.graph.nodes
    values: dict[str, str] = {}
    for name in sorted(reached_nodes(nodes, model.init)):
        node = nodes[name]
        if node.op not in _ASSIGNS:
            continue
        handle, value = list(data_inputs(node))[:2]
        variable = _variable(nodes, handle)
        if variable is not None and _is_steady(model.graph, value, variable):
            values[variable] = value
    return values


def _variable(nodes: Mapping[str, Node], tensor: str) -> str | None:
    name = node_of(tensor)
    while name in nodes and nodes[name].op == "Identity":
        name = node_of(nodes[name].inputs[0])
    return name if name in nodes and nodes[name].op in HANDLES else None


def _is_steady(graph: Graph, tensor: str, variable: str) -> bool:
    reached = reached_nodes(graph.nodes, [tensor])
    if variable in reached:
        return False
    for name in reached:
        op = graph.nodes[name].op
        definition = graph.op_def(op)
        if definition is None or (definition.is_stateful and op not in _STEADY):
            return False
    return True
