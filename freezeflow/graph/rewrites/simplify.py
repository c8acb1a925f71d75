"""Rewrites one scope until no rule finds anything more; no bit of any output changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from freezeflow.graph import colocation
from freezeflow.graph.foldable import Scope
from freezeflow.graph.graph import Graph, Node, called_functions
from freezeflow.graph.node_types import NodeTypes
from freezeflow.graph.rewrites.body import Body
from freezeflow.graph.rewrites.compact import compacted
from freezeflow.graph.rewrites.duplicates import merge_duplicates
from freezeflow.graph.rewrites.idle import is_idle
from freezeflow.graph.rewrites.passing import passes_on, waits_only
from freezeflow.graph.rewrites.static import is_known, plain_target
from freezeflow.graph.rewrites.waiting import drop_implied_waits
from freezeflow.graph.shape_rules.infer import infer
from freezeflow.graph.shapes import Shapes

# Each looks at one node, takes it out or replaces it, and says whether it did.
RULES: tuple[Callable[[Body, Shapes, Node], bool], ...] = (
    lambda body, shapes, node: passes_on(body, node),
    lambda body, shapes, node: waits_only(body, node),
    is_known,
    is_idle,
    plain_target,
)

# Each round takes something out; a chain of dependent rewrites is never longer than a few.
_MAX_ROUNDS = 20


def simplify(
    graph: Graph,
    scope: Scope,
    types: NodeTypes | None = None,
) -> Mapping[str, Node]:
    """The scope's nodes without those that do nothing or are there twice.

    Args:
        graph: The graph that the scope belongs to.
        scope: The scope.
        types: Of the graph.

    Raises:
        ModelRefused: The scope has a cycle.
    """
    body = Body(graph, scope, types or NodeTypes(graph))
    kept_anyway = {name for name in body.nodes if not body.users.get(name)}
    shapes = infer(body, scope.args)
    for node in list(body.nodes.values()):
        if node.op == "Const" and node.name not in body.fed:
            body.put(compacted(node))
    body.take_touched()
    names = list(body.nodes)
    for number in range(_MAX_ROUNDS):
        _apply(body, shapes, names)
        if number and not body.is_touched:
            break
        merge_duplicates(body)
        drop_implied_waits(body)
        _drop_unused(body, kept_anyway)
        names = body.take_touched()
    return _placed(body.nodes)


def _placed(nodes: Mapping[str, Node]) -> Mapping[str, Node]:
    """The nodes without wishes to lie beside another one, where none asks for a device at all."""
    if any(node.device for node in nodes.values()):
        return colocation.drop_dangling(nodes)
    return {name: colocation.without_wishes(node) for name, node in nodes.items()}


def _apply(body: Body, shapes: Shapes, names: Iterable[str]) -> None:
    for name in names:
        for rule in RULES:
            node = body.nodes.get(name)
            if node is None:
                break
            rule(body, shapes, node)


def _drop_unused(body: Body, kept_anyway: set[str]) -> None:
    """Takes out what had users once and has none any more, unless it may be there for its effect."""
    pending = list(body.nodes)
    while pending:
        name = pending.pop()
        node = body.nodes.get(name)
        if node is None or body.users_of(name) or name in body.known or name in kept_anyway:
            continue
        definition = body.types.definition(node.op)
        if definition is None or definition.is_stateful or any(called_functions(node)):
            continue
        pending += [tensor.lstrip("^").partition(":")[0] for tensor in node.inputs]
        body.drop(name)
