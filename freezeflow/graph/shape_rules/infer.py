"""What each op says of the shapes of its outputs; see `freezeflow.graph.shapes`.

Source of the semantics: the shape functions of upstream ``core/ops`` and ``core/framework/
common_shape_fns.cc``, taken only as far as they hold without assuming that the op succeeds, or where
what it would fail on is seen to be right.
"""

from __future__ import annotations

from collections.abc import Mapping

from freezeflow.graph.graph import Node, join
from freezeflow.graph.rewrites.body import Body
from freezeflow.graph.shape_rules import elementwise, parts, products, reshaping
from freezeflow.graph.shape_rules.known import (
    Known,
    Rule,
)
from freezeflow.graph.shape_rules.values import VALUES, several_values
from freezeflow.graph.shapes import Dims, Shapes

RULES: Mapping[str, Rule] = {
    **elementwise.RULES,
    **products.RULES,
    **reshaping.RULES,
    **parts.RULES,
}


def infer(
    body: Body, args: Mapping[str, Dims] | None = None, further: Mapping[str, Rule] | None = None
) -> Shapes:
    """The shapes of a scope's tensors, and the values of those computed from shapes.

    Args:
        body: The scope.
        args: Shapes of a function's arguments, by name.
        further: Rules for ops that there are none for here.
    """
    rules = {**RULES, **further} if further else RULES
    known = Known(body)
    for name, shape in (args or {}).items():
        known.shapes.set_shape(name, shape)
    for name in body.order:
        if name not in body.fed or body.nodes[name].op == "Placeholder":
            _look_at(known, body.nodes[name], rules)
    return known.shapes


def _look_at(known: Known, node: Node, rules: Mapping[str, Rule]) -> None:
    rule = rules.get(node.op)
    if rule is not None:
        for index, shape in enumerate(rule(known, node)):
            known.shapes.set_shape(join(node.name, index), shape)
    value_rule = VALUES.get(node.op)
    if value_rule is not None:
        value = value_rule(known, node)
        if value is not None:
            known.shapes.set_value(node.name, value)
    elif node.op in ("Unpack", "ShapeN"):
        several_values(known, node)
