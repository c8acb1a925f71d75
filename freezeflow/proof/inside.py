"""Where the functions of two nodes differ that should do the same: bodies compared node by node."""

from __future__ import annotations

from collections.abc import Iterator

from freezeflow.graph import attrs, walk
from freezeflow.graph.graph import Function, Graph, Node, data_inputs
from freezeflow.graph.handles import READS
from freezeflow.graph.op_policy import SAME_VALUE
from freezeflow.graph.variables import HANDLES

# Attributes that say what flows, not what is done; freezing and inlining change them.
_ABOUT_TYPES = frozenset(
    {
        "T",
        "dtype",
        "Tin",
        "Tout",
        "Tcond",
        "output_shapes",
        "shape",
        "_output_shapes",
        "is_stateless",
    }
)

# What freezing and folding take out without changing anything.
_MAY_GO = SAME_VALUE | HANDLES | frozenset(READS) | {"Const", "NoOp"}


def difference_inside(there: Graph, one: Node, here: Graph, other: Node) -> str | None:
    """The path of the first node that differs in the functions of two nodes, or None.

    Args:
        there: The original's graph.
        one: Its node.
        here: The result's graph.
        other: The node in it.
    """
    for key, left, right in _functions(one, other):
        if left in there.functions and right in here.functions:
            path = _in_bodies(there, there.functions[left], here, here.functions[right])
            if path is not None:
                return f"{other.name}/{key}/{path}"
    return None


def _functions(one: Node, other: Node) -> Iterator[tuple[str, str, str]]:
    """The functions that two nodes name in the same attributes."""
    for key in sorted(one.attrs.keys() & other.attrs.keys()):
        left, right = (list(attrs.function_names(node.attrs[key])) for node in (one, other))
        for number, pair in enumerate(zip(left, right, strict=False)):
            yield key if len(left) == 1 else f"{key} {number}", *pair


def _in_bodies(there: Graph, one: Function, here: Graph, other: Function) -> str | None:
    for name in walk.inputs_first(other.nodes):
        node = other.nodes[name]
        partner = one.nodes.get(name)
        if partner is None:
            if node.op not in SAME_VALUE | {"Const", "NoOp"}:
                return f"{name} (added)"
            continue
        inner = difference_inside(there, partner, here, node)
        if inner is not None:
            return inner
        if _differs(partner, node):
            return name
    for name in walk.inputs_first(one.nodes):
        node = one.nodes[name]
        if name not in other.nodes and node.op not in _MAY_GO:
            return f"{name} (missing)"
    return None


def _differs(one: Node, other: Node) -> bool:
    if (
        one.op in READS
        or one.op in HANDLES
        or one.op in SAME_VALUE
        or other.op == "Const" != one.op
    ):
        return False
    if one.op != other.op or len(list(data_inputs(one))) != len(list(data_inputs(other))):
        return True
    return any(
        one.attrs[key] != other.attrs[key]
        for key in one.attrs.keys() & other.attrs.keys()
        if key not in _ABOUT_TYPES
        and not key.startswith("_")
        and not list(attrs.function_names(one.attrs[key]))
    ) or (one.tensor and one.tensor.digest) != (other.tensor and other.tensor.digest)
