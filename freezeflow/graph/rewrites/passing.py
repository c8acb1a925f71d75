"""Nodes that only hand a tensor on: Identity, IdentityN, StopGradient and their like."""

from __future__ import annotations

from freezeflow.graph.graph import Node, data_inputs, node_of
from freezeflow.graph.op_policy import REPEATABLE, SAME_VALUE
from freezeflow.graph.rewrites.body import Body


def passes_on(body: Body, node: Node) -> bool:
    """Takes out what gives just what it gets."""
    return node.op in SAME_VALUE and body.forward(node, list(node.inputs))


def waits_only(body: Body, node: Node) -> bool:
    """Takes out what others only wait for, where they may as well wait for what it waits for.

    That is a NoOp, or a pure op of which nobody takes the result. One that gathers several waits for
    several others stays: it saves edges.
    """
    if node.name not in body.awaited and node.op != "NoOp":
        return False
    if node.name in body.known or node.device:
        return False
    waits = dict.fromkeys(node_of(tensor) for tensor in node.inputs)
    users = body.users_of(node.name)
    if node.op != "NoOp":
        if node.op not in REPEATABLE or not users or not all(map(body.can_be_awaited, waits)):
            return False
        if any(node_of(t) == node.name for user in users for t in data_inputs(user)):
            return False
        waits = {name: None for name in waits if not _is_idle_source(body, name)}
    if len(waits) * len(users) > len(waits) + len(users):
        return False
    body.take_out(node, {}, tuple(waits))
    return True


def _is_idle_source(body: Body, name: str) -> bool:
    """Whether a node is there from the start, so that nobody needs to wait for it."""
    node = body.nodes[name]
    return not node.inputs and node.op in ("Const", "Placeholder")
