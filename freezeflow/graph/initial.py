"""Values that variables get from the initialiser instead of the checkpoint.

A SavedModel's init op runs after the checkpoint is restored. Besides filling tables it may assign
variables that are not saved: local variables, asset paths. Such a variable is as constant as the
tensor that it is given.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from freezeflow.graph.graph import Graph, Node, data_inputs, node_of
from freezeflow.graph.model import Model
from freezeflow.graph.variables import HANDLES, WRITES
from freezeflow.graph.walk import reached_nodes

_ASSIGNS = frozenset({"Assign", "AssignVariableOp"})

# Stateful ops that give the same value whenever they are run.
_STEADY = HANDLES | {"ReadVariableOp", "GuaranteeConst"}


def initial_values(model: Model) -> dict[str, str]:
    """Handle node to the tensor that the initialiser assigns to it.

    A variable is left out that is written more than once, or is assigned a value that differs from
    run to run (a random one), that depends on its own value before, or on that of a saved variable
    which the initialiser writes, too: it may be read before or after.
    """
    nodes = model.graph.nodes
    writes: dict[str, list[Node]] = {}
    for name in sorted(reached_nodes(nodes, model.init)):
        if WRITES.match(nodes[name].op):
            variable = _variable(nodes, next(data_inputs(nodes[name])))
            if variable is not None:
                writes.setdefault(variable, []).append(nodes[name])
    values: dict[str, str] = {}
    for variable, (node, *others) in writes.items():
        if others or node.op not in _ASSIGNS:
            continue
        value = list(data_inputs(node))[1]
        moving = {variable, *(writes.keys() & model.variables.keys())}
        if _is_steady(model.graph, value, moving):
            values[variable] = value
    return values


def _variable(nodes: Mapping[str, Node], tensor: str) -> str | None:
    name = node_of(tensor)
    while name in nodes and (nodes[name].op == "Identity" or WRITES.match(nodes[name].op)):
        name = node_of(nodes[name].inputs[0])
    return name if name in nodes and nodes[name].op in HANDLES else None


def _is_steady(graph: Graph, tensor: str, moving: Collection[str]) -> bool:
    reached = reached_nodes(graph.nodes, [tensor])
    if not reached.isdisjoint(moving):
        return False
    for name in reached:
        op = graph.nodes[name].op
        definition = graph.op_def(op)
        if definition is None or (definition.is_stateful and op not in _STEADY):
            return False
    return True
