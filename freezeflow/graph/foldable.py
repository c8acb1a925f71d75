"""Which nodes of a graph are constant, and which of them are worth replacing by their value.

Planning only; nothing is evaluated here. A scope is the main graph or one function's body: constants
do not cross from one to the other. Three questions are answered one after the other:

1. `candidates`: which nodes could be computed from constants alone;
2. `select`: given the sizes of their results, which of them to replace, so that no more than the
   budget is spent;
3. `same_bytes_source`: which results are the bytes of a constant that is there already.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from freezeflow.graph import attrs
from freezeflow.graph.graph import (
    Function,
    Graph,
    Node,
    control_inputs,
    data_inputs,
    node_of,
    output_types,
    split,
)
from freezeflow.graph.op_policy import FOLDABLE, SAME_BYTES
from freezeflow.graph.shapes import Dims
from freezeflow.graph.walk import topological_order
from freezeflow.values import DType

# A part of the graph may grow by this much, if the graph as a whole stays within its budget: what
# TensorFlow's own folder allows for one node.
LOCAL_GROWTH_BYTES = 100 * 1024

# Constants that tie the nodes which use them together: who folds one user only keeps it and pays.
_SHARED_BYTES = 256

# No constant value in the sense of bytes, or none that NumPy can hold.
_UNFOLDABLE_TYPES = frozenset(
    {
        DType.INVALID,
        DType.RESOURCE,
        DType.VARIANT,
        DType.QINT8,
        DType.QUINT8,
        DType.QINT16,
        DType.QUINT16,
        DType.QINT32,
    }
)

# The attribute of a node that makes a weight out of one that is stored in fewer bytes.
STORED_NARROW = "_freezeflow_stored_narrow"

# Rough bytes of the fields around a node's name, attributes and content in a file.
_NODE_OVERHEAD = 48

# A Const's dtype and shape on top of that, for eight dimensions; too much rather than too little.
_CONST_OVERHEAD = _NODE_OVERHEAD + len("Const") + 64


class Scope(NamedTuple):
    """A main graph or a function's body.

    Args:
        nodes: Its nodes.
        wanted: Tensors (and ``^node``) that are taken from outside: results, signature ends.
        fed: Nodes whose outputs a caller replaces, so that they are never constant.
        args: What is certain of the shapes of a function's arguments, by name.
    """

    nodes: Mapping[str, Node]
    wanted: frozenset[str]
    fed: frozenset[str] = frozenset()
    args: Mapping[str, Dims] = MappingProxyType({})


def held_scope(function: Function, args: Mapping[str, Dims] = MappingProxyType({})) -> Scope:
    """A function's body as a scope.

    Results are tensors without a name of their own: each gets a node that holds on to it.
    """
    holders = {
        f"={result.name}": Node(
            f"={result.name}", "Identity", (result.tensor,), {"T": attrs.of_type(DType.INVALID)}
        )
        for result in function.results
    }
    outside = {f"^{control.node}" for control in function.control_results}
    nodes = {**function.nodes, **holders}
    return Scope(nodes, frozenset(outside | holders.keys()), frozenset(holders), args)


def released(function: Function, nodes: Mapping[str, Node]) -> Function:
    """The function with what its `held_scope` has become."""
    kept = dict(nodes)
    results = tuple(
        result._replace(tensor=kept.pop(f"={result.name}").inputs[0]) for result in function.results
    )
    return dataclasses.replace(function, nodes=kept, results=results)


class Candidates(NamedTuple):
    """What could be computed without running the model.

    Args:
        constants: Const nodes that feed a foldable node, by name.
        foldable: Nodes that depend on constants alone, inputs before consumers.
        carried: For each of both, the nodes that it waits for and that are not constant themselves.
    """

    constants: dict[str, Node]
    foldable: dict[str, Node]
    carried: dict[str, tuple[str, ...]]


def candidates(
    graph: Graph, scope: Scope, *, max_bytes: int, banned: Collection[str]
) -> Candidates:
    """Finds the nodes whose outputs are the same in every call.

    Args:
        graph: The graph that the scope belongs to (for its functions and op definitions).
        scope: Where to look.
        max_bytes: Constants over this size, in bytes, count as not constant.
        banned: Nodes that must stay.

    Raises:
        ModelRefused: The scope has a cycle.
    """
    found = Candidates({}, {}, {})
    constants: dict[str, Node] = {}
    for name in topological_order(scope.nodes):
        node = scope.nodes[name]
        if name in scope.fed or name in banned:
            continue
        if node.op == "Const" and 0 <= constant_bytes(node) <= max_bytes:
            constants[name] = node
        elif _is_foldable(graph, scope, node, constants, found.foldable):
            found.foldable[name] = node
            sources = map(node_of, data_inputs(node))
            found.constants.update((s, constants[s]) for s in sources if s in constants)
        else:
            continue
        found.carried[name] = _carried(node, found.carried)
    return found


def _is_foldable(
    graph: Graph,
    scope: Scope,
    node: Node,
    constants: Mapping[str, Node],
    foldable: Mapping[str, Node],
) -> bool:
    sources = [node_of(tensor) for tensor in data_inputs(node)]
    if not sources or node.op not in FOLDABLE or STORED_NARROW in node.attrs:
        return False
    if not all(source in constants or source in foldable for source in sources):
        return False
    if any(attrs.kind(value) == "placeholder" for value in node.attrs.values()):
        return False
    types = output_types(graph, node)
    if types is None or _UNFOLDABLE_TYPES & set(types):
        return False
    # A tensor like "split:1" that is known outside cannot become a Const, which has one output.
    return not any(f"{node.name}:{index}" in scope.wanted for index in range(1, len(types)))


def _carried(node: Node, carried: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """What a node waits for, through constants and folded nodes: their Const has to wait, too."""
    waits: dict[str, None] = {}
    for source in map(node_of, data_inputs(node)):
        waits.update(dict.fromkeys(carried.get(source, ())))
    for source in control_inputs(node):
        waits.update(dict.fromkeys(carried.get(source, (source,))))
    return tuple(sorted(waits))


# ---------------------------------------------------------------- sizes


def constant_bytes(node: Node) -> int:
    """Bytes of a Const's value in memory; -1 where it is not well formed."""
    if node.tensor is not None:
        return node.tensor.nbytes
    tensor = attrs.message(node.attrs["value"]).tensor if "value" in node.attrs else None
    if tensor is None or any(dim.size < 0 for dim in tensor.tensor_shape.dim):
        return -1
    if tensor.dtype == DType.STRING:
        return sum(map(len, tensor.string_val)) + 16 * _elements(tensor)
    try:
        size = DType(tensor.dtype).item_bytes
    except ValueError:
        return -1
    return _elements(tensor) * size if size else -1


def _elements(tensor: object) -> int:
    return math.prod(dim.size for dim in tensor.tensor_shape.dim)  # type: ignore[attr-defined]


def node_bytes(node: Node) -> int:
    """About how many bytes a node takes in a file, its content included."""
    size = _NODE_OVERHEAD + len(node.name) + len(node.op)
    size += sum(len(tensor) + 2 for tensor in node.inputs)
    size += sum(len(key) + len(value) for key, value in node.attrs.items())
    return size + (0 if node.tensor is None else node.tensor.nbytes)


# Upper and lower case of one character can take up to three times its bytes in UTF-8.
_CASE_GROWTH = 3


# The longest number that AsString writes without being asked for a width: a float64 in full.
_NUMBER_BYTES = 400


def string_bound(node: Node, bounds: Iterable[int], count: int = 1) -> int:
    """The most bytes that one string of the node's outputs can have.

    Args:
        node: A foldable node with a string output.
        bounds: The same for each of its string inputs.
        count: How many strings its inputs have in all.
    """
    given = list(bounds)
    longest = max(given, default=0)
    if node.op == "StringJoin":
        return sum(given) + _length(node, "separator") * len(given)
    if node.op == "ReduceJoin":
        return (longest + _length(node, "separator")) * count
    if node.op in ("StringLower", "StringUpper"):
        return _CASE_GROWTH * longest
    if node.op in ("UnicodeTranscode", "EncodeBase64"):
        return 4 * longest + 8
    if node.op == "AsString":
        width, precision = (_number(node, key) for key in ("width", "precision"))
        return _NUMBER_BYTES + max(width, 0) + max(precision, 0)
    if node.op == "StaticRegexReplace":
        # Each place between two bytes gets the new text, in which the whole may be quoted each time.
        new = _length(node, "rewrite")
        return (longest + 1) * new + longest * (new // 2 + 1)
    if node.op == "RegexReplace":
        text, _, new = (*given, 0, 0, 0)[:3]
        return (text + 1) * new + text * (new // 2 + 1)
    return longest


def _length(node: Node, key: str) -> int:
    return len(attrs.to_bytes(node.attrs[key])) if key in node.attrs else 0


def _number(node: Node, key: str) -> int:
    return attrs.to_int(node.attrs[key]) if key in node.attrs else 0


def longest_string(node: Node) -> int:
    """Bytes of the longest string of a string Const."""
    return max(map(len, attrs.message(node.attrs["value"]).tensor.string_val), default=0)


# ---------------------------------------------------------------- selection


class Selection(NamedTuple):
    """What to fold.

    Args:
        folded: Names of the nodes to fold.
        frontier: For those with a user that stays: which of their outputs are needed.
        growth: By how many bytes the scope grows (about; negative: it shrinks).
    """

    folded: frozenset[str]
    frontier: dict[str, tuple[int, ...]]
    growth: int


def select(
    scope: Scope, found: Candidates, sizes: Mapping[str, tuple[int, ...]], *, budget: int
) -> Selection:
    """Chooses nodes to fold so that the scope grows by at most the budget.

    Nodes that share a large constant are decided together. What shrinks is always taken; of the rest
    the smallest growth first, each within `LOCAL_GROWTH_BYTES` or the budget. Where a part would grow
    too much, its largest result is left unfolded and the rest is tried again.

    Args:
        scope: The scope.
        found: Its candidates.
        sizes: For each candidate that can be computed, the bytes of each of its outputs.
        budget: Bytes by which the scope may grow; what is saved in one part may be spent in another.
    """
    users = _users(scope)
    folded: set[str] = set()
    growth = 0
    doubtful: list[tuple[int, tuple[str, ...]]] = []
    parts = _parts(found, sizes)
    while parts:
        part = parts.pop()
        cost = _growth(scope, found, sizes, users, frozenset(part))
        if cost <= 0:
            folded |= set(part)
            growth += cost
        elif cost <= max(LOCAL_GROWTH_BYTES, budget):
            doubtful.append((cost, part))
        else:
            parts += _parts(found, _without_largest(part, sizes, users, scope))
    for cost, part in sorted(doubtful):
        if growth + cost <= budget:
            folded |= set(part)
            growth += cost
    frontier = {
        name: outputs
        for name in found.foldable
        if name in folded and (outputs := _needed(name, users, scope.wanted, folded))
    }
    return Selection(frozenset(folded), frontier, growth)


def _users(scope: Scope) -> dict[str, list[tuple[int, str]]]:
    """For each node, output number and consumer of each of its uses; -1 for a control edge."""
    users: dict[str, list[tuple[int, str]]] = {}
    for node in scope.nodes.values():
        for tensor in node.inputs:
            name, index = (tensor[1:], -1) if tensor.startswith("^") else split(tensor)
            users.setdefault(name, []).append((index, node.name))
    return users


def _needed(
    name: str,
    users: Mapping[str, list[tuple[int, str]]],
    wanted: Collection[str],
    folded: Collection[str],
) -> tuple[int, ...]:
    """The outputs of a folded node that something else takes."""
    needed = {index for index, user in users.get(name, ()) if index >= 0 and user not in folded}
    if name in wanted or f"^{name}" in wanted:
        needed.add(0)
    return tuple(sorted(needed))


def _parts(found: Candidates, sizes: Mapping[str, tuple[int, ...]]) -> list[tuple[str, ...]]:
    """The nodes that can be computed, in groups that share neither edges nor large constants."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    names = [name for name in found.foldable if name in sizes]
    for name in names:
        for source in map(node_of, data_inputs(found.foldable[name])):
            if source in sizes or (
                source in found.constants
                and constant_bytes(found.constants[source]) > _SHARED_BYTES
            ):
                parent[root(source)] = root(name)
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(root(name), []).append(name)
    return [tuple(group) for group in groups.values()]


def _growth(
    scope: Scope,
    found: Candidates,
    sizes: Mapping[str, tuple[int, ...]],
    users: Mapping[str, list[tuple[int, str]]],
    part: frozenset[str],
) -> int:
    """Bytes that replacing these nodes adds to the file; negative where it saves."""
    growth = 0
    sources: set[str] = set()
    for name in part:
        node = scope.nodes[name]
        growth -= node_bytes(node)
        sources |= {s for s in map(node_of, data_inputs(node)) if s in found.constants}
        for index in _needed(name, users, scope.wanted, part):
            growth += _CONST_OVERHEAD + len(name) + sizes[name][index]
    for source in sources:
        if source not in scope.wanted and all(user in part for _, user in users[source]):
            growth -= node_bytes(scope.nodes[source])
    return growth


def _without_largest(
    part: tuple[str, ...],
    sizes: Mapping[str, tuple[int, ...]],
    users: Mapping[str, list[tuple[int, str]]],
    scope: Scope,
) -> dict[str, tuple[int, ...]]:
    """The sizes of a part without the node whose needed results are the largest."""
    inside = frozenset(part)

    def weight(name: str) -> tuple[int, str]:
        needed = _needed(name, users, scope.wanted, inside)
        return sum(sizes[name][index] for index in needed), name

    largest = max(part, key=weight)
    return {name: sizes[name] for name in part if name != largest}


# ---------------------------------------------------------------- results that are there already


def same_bytes_source(scope: Scope, tensor: str) -> Node | None:
    """The large constant whose bytes a tensor has, where only shapes changed on the way; else None."""
    name, index = split(tensor)
    node = scope.nodes.get(name)
    while node is not None and node.op in SAME_BYTES:
        if node.op != "IdentityN":
            index = 0
        source, source_index = split(node.inputs[index])
        node, index = scope.nodes.get(source), source_index
    return node if node is not None and node.op == "Const" and node.tensor is not None else None
