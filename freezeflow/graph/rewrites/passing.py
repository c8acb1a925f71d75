"""Nodes that only hand a tensor on: Identity, IdentityN, StopGradient and their like."""

from __future__ import annotations

from freezeflow.graph.graph import Node, control_inputs
from freezeflow.graph.op_policy import SAME_VALUE
from freezeflow.graph.rewrites.body import Body


def passes_on(body: Body, node: Node) -> bool:
    """Takes out what gives just what it gets."""
    return node.op in SAME_VALUE and body.forward(node, list(node.inputs))


def waits_only(body: Body, node: Node) -> bool:
    """Takes out a NoOp where those that wait for it may as well wait for what it waits for.

    One that gathers several waits for several others stays: it saves edges.
    """
    if node.op != "NoOp" or node.name in body.known or node.device:
        return False
    waits = list(control_inputs(node))
    users = body.users_of(node.name)
    if len(waits) * len(users) > len(waits) + len(users):
        return False
    body.take_out(node, {}, waits)
    return True
