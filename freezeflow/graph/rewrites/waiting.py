"""Control edges that say what others say already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from freezeflow.graph.effects import FUNCTIONAL, V1_CONTROL_FLOW
from freezeflow.graph.graph import control_inputs, node_of
from freezeflow.graph.rewrites.body import Body
from freezeflow.graph.walk import inputs_first


def drop_implied_waits(body: Body) -> bool:
    """Leaves out a wait for what another input waited for anyway; whether there was one.

    Not beside TF1 control flow: there an edge may also carry that its source is dead. An output of
    If, Case or While does not stand for its inputs: TensorFlow spells these out, and then each output is
    computed from those inputs alone that it needs.
    """
    awaited = {name for node in body.nodes.values() for name in control_inputs(node)}
    if not awaited or any(node.op in V1_CONTROL_FLOW for node in body.nodes.values()):
        return False
    bits = {name: 1 << number for number, name in enumerate(sorted(awaited))}
    before: dict[str, int] = {}  # the awaited nodes that are done once a node is
    changed = False
    for name in inputs_first(body.nodes):
        node = body.nodes[name]
        inputs = list(node.inputs)
        for wait in [tensor for tensor in node.inputs if tensor.startswith("^")]:
            others = _done(before, (tensor for tensor in inputs if tensor != wait))
            if others & bits[wait[1:]]:
                inputs.remove(wait)
        if len(inputs) < len(node.inputs):
            body.put(node._replace(inputs=tuple(inputs)))
            changed = True
        given = control_inputs(node) if node.op in FUNCTIONAL else inputs
        before[name] = _done(before, given) | bits.get(name, 0)
    return changed


def _done(before: Mapping[str, int], inputs: Iterable[str]) -> int:
    done = 0
    for tensor in inputs:
        done |= before.get(node_of(tensor), 0)
    return done
