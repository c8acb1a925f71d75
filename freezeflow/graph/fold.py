"""Exact constant folding: nodes that compute the same in every call are replaced by their value.

What to fold is planned here, without TensorFlow; the values come from an `Evaluation`, which uses
TensorFlow's own kernels, so that no bit changes. Three things happen in each scope (the main graph,
then each function's body), until there is nothing left to do: what does nothing or is there twice is
taken out (`rewrites.simplify`), constant nodes are replaced, and what nobody needs any more goes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol

from freezeflow.graph import colocation
from freezeflow.graph.constants import const
from freezeflow.graph.foldable import (
    Candidates,
    Scope,
    Selection,
    candidates,
    held_scope,
    node_bytes,
    released,
    same_bytes_source,
    select,
)
from freezeflow.graph.graph import (
    Function,
    Graph,
    Node,
    join,
    node_of,
    split,
)
from freezeflow.graph.model import Model
from freezeflow.graph.node_types import NodeTypes
from freezeflow.graph.rewrites.arguments import argument_shapes
from freezeflow.graph.rewrites.batch_norms import (
    FoldedNorms,
    drop_zero_additions,
    fold_batch_norms,
)
from freezeflow.graph.rewrites.body import Body
from freezeflow.graph.rewrites.lift import lift_by_channel
from freezeflow.graph.rewrites.settle import settle
from freezeflow.graph.rewrites.simplify import simplify
from freezeflow.graph.rewrites.trim import count_callers
from freezeflow.graph.shape_rules.infer import infer
from freezeflow.graph.shapes import Dims
from freezeflow.graph.walk import (
    prune,
    reached_functions,
    reached_nodes,
    without_unused,
)
from freezeflow.graph.wire import LARGE_TENSOR_BYTES
from freezeflow.values import DType, TensorRef


class Value(NamedTuple):
    """The value of a tensor.

    Args:
        dtype: Its dtype.
        shape: Its shape.
        data: Its bytes, row-major and little-endian; for strings one bytes object an element.
    """

    dtype: DType
    shape: tuple[int, ...]
    data: memoryview | tuple[bytes, ...]


class Evaluation(Protocol):
    """Computes candidates; `freezeflow.tf.evaluate` has the one that there is."""

    @property
    def sizes(self) -> Mapping[str, tuple[int, ...]]:
        """For each node that can be computed, the bytes of each output."""

    def shape(self, tensor: str) -> tuple[int, ...]:
        """The shape of a computable tensor."""

    def values(self, tensors: Iterable[str]) -> Iterator[tuple[str, Value | None]]:
        """Computes tensors; None for one whose kernel fails."""


# Each round leaves fewer branches, arguments and results; nesting is never that deep.
_MAX_ROUNDS = 10

Evaluate = Callable[[Graph, Candidates], Evaluation]
Put = Callable[[memoryview, DType, tuple[int, ...]], TensorRef]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Folding:
    """How a model is folded.

    Args:
        evaluate: Gives the sizes and values of candidates.
        put: Keeps the bytes of a large result.
        max_bytes: No tensor over this size is computed, in bytes.
        max_growth: Bytes by which the whole model may grow.
        batch_norms: Fold batch norms into the weights before them, which changes how results round.
    """

    evaluate: Evaluate
    put: Put
    max_bytes: int
    max_growth: int
    batch_norms: bool = False


class Folded(NamedTuple):
    """A folded model.

    Args:
        model: The model.
        nodes_folded: How many nodes were replaced.
        nodes_left: How many are constant and stay: too large, of unknown size, or failing.
        bytes_folded: Bytes of the constants that were made.
        norms: What became of batch norms, if they were to be folded.
    """

    model: Model
    nodes_folded: int
    nodes_left: int
    bytes_folded: int
    norms: FoldedNorms


def fold(model: Model, folding: Folding) -> Folded:
    """Folds every constant part of a model, function bodies included.

    The names of signature tensors, of init nodes and of variables stay. The model never grows by more
    than ``folding.max_growth`` bytes (up to the few bytes that lengths take).

    Raises:
        ModelRefused: The graph has a cycle.
    """
    folder = _Folder(folding)
    for _ in range(_MAX_ROUNDS):
        model = _fold_scopes(model, folder)
        settled = settle(model, _wanted(model), _fed(model))
        if settled is model:
            break
        model = settled
    return Folded(model, folder.nodes_folded, folder.nodes_left, folder.bytes_folded, folder.norms)


def _fold_scopes(model: Model, folder: _Folder) -> Model:
    """Folds the main graph, then each function's body; prunes what is left over."""
    graph = model.graph
    folder.begin(graph)
    scope = Scope(graph.nodes, _wanted(model), _fed(model))
    nodes = folder.fold(graph, scope)
    kept = prune(dataclasses.replace(graph, nodes=nodes), scope.wanted | scope.fed)
    functions = dict(kept.functions)
    callers, types = count_callers(kept), NodeTypes(kept)
    shapes = argument_shapes(kept, scope._replace(nodes=kept.nodes), types, callers)
    # Callers come before the functions that they call.
    for name in reached_functions(kept, kept.nodes.values()):
        args = shapes.get(name, {})
        functions[name] = body = _fold_body(kept, functions[name], args, folder)
        inside = Scope(body.nodes, frozenset(), frozenset(), args)
        shapes |= argument_shapes(kept, inside, types, callers)
    kept = without_unused(dataclasses.replace(kept, functions=functions))
    return dataclasses.replace(model, graph=kept)


def _wanted(model: Model) -> frozenset[str]:
    """Tensors and nodes that others know by name."""
    wanted = {f"^{name}" for name in (*model.init, *model.variables)}
    for signature in model.signatures.values():
        wanted |= {_short(spec.tensor) for spec in signature.outputs.values()}
    return frozenset(wanted)


def _fed(model: Model) -> frozenset[str]:
    fed = {node_of(asset.tensor) for asset in model.assets}
    for signature in model.signatures.values():
        fed |= {node_of(spec.tensor) for spec in signature.inputs.values()}
    return frozenset(fed)


def _short(tensor: str) -> str:
    return tensor.removesuffix(":0")


def _fold_body(
    graph: Graph, function: Function, args: Mapping[str, Dims], folder: _Folder
) -> Function:
    nodes = folder.fold(graph, held_scope(function, args))
    folded = released(function, nodes)
    roots = [result.tensor for result in folded.results]
    roots += [control.node for control in function.control_results]
    reached = reached_nodes(folded.nodes, [*roots, *_kept_anyway(function, folded.nodes)])
    nodes = {name: node for name, node in folded.nodes.items() if name in reached}
    return dataclasses.replace(folded, nodes=nodes)


def _kept_anyway(function: Function, nodes: Mapping[str, Node]) -> list[str]:
    """Nodes that had no user before folding either: they may be there for their effect."""
    used = {node_of(tensor) for node in function.nodes.values() for tensor in node.inputs}
    used |= {node_of(result.tensor) for result in function.results}
    return [name for name in nodes if name not in used and nodes[name].op != "Const"]


class _Folder:
    """Folds scopes one after the other out of one budget of bytes."""

    def __init__(self, folding: Folding) -> None:
        self._folding = folding
        self._budget = folding.max_growth
        self.nodes_folded = 0
        self.nodes_left = 0
        self.bytes_folded = 0
        self.norms = FoldedNorms(0, {}, 0, 0)

    def begin(self, graph: Graph) -> None:
        """Begins a round over all scopes of a graph."""
        self._types = NodeTypes(graph)
        self.nodes_left = 0

    def fold(self, graph: Graph, scope: Scope) -> Mapping[str, Node]:
        """The folded nodes of a scope, batch norms included if they are to be folded."""
        nodes = self._fold_exactly(graph, scope)
        while self._folding.batch_norms:
            rewritten, count = self._fold_norms(graph, scope._replace(nodes=nodes))
            nodes = self._fold_exactly(graph, scope._replace(nodes=rewritten))
            if not count:
                break
        return nodes

    def _fold_norms(self, graph: Graph, scope: Scope) -> tuple[dict[str, Node], int]:
        """The nodes with batch norms scheduled to be folded, and how many these are."""
        body = Body(graph, scope, self._types)
        lifted = lift_by_channel(body, infer(body, scope.args))
        if lifted:
            body = Body(graph, scope._replace(nodes=body.nodes), self._types)
        shapes = infer(body, scope.args)
        found = fold_batch_norms(body, shapes)
        dropped = drop_zero_additions(body, shapes)
        self._budget += _total(scope.nodes) - _total(body.nodes) + found.copied
        # What stays is only certain once nothing more can be folded.
        left = {} if lifted or found.folded or found.joined else found.left
        self.norms = FoldedNorms(
            self.norms.folded + found.folded,
            {**self.norms.left, **left},
            self.norms.joined + found.joined,
            self.norms.copied + found.copied,
        )
        return body.nodes, lifted + found.folded + found.joined + dropped

    def _fold_exactly(self, graph: Graph, scope: Scope) -> Mapping[str, Node]:
        """The folded nodes of a scope, simplified before and after each time something was folded."""
        nodes = self._simplified(graph, scope)
        while True:
            folded, left = self._fold_once(graph, scope._replace(nodes=nodes))
            # Of what has been rewritten more may be known now, though nothing was folded.
            before = nodes if folded is None else folded
            nodes = self._simplified(graph, scope._replace(nodes=before))
            if folded is None and nodes == before:
                self.nodes_left += left
                return nodes

    def _simplified(self, graph: Graph, scope: Scope) -> Mapping[str, Node]:
        nodes = simplify(graph, scope, self._types)
        self._budget += _total(scope.nodes) - _total(nodes)
        return nodes

    def _fold_once(self, graph: Graph, scope: Scope) -> tuple[dict[str, Node] | None, int]:
        """The scope's nodes with constants computed, None if there are none to compute; nodes left."""
        banned: set[str] = set()
        while True:
            found = candidates(graph, scope, max_bytes=self._folding.max_bytes, banned=banned)
            if not found.foldable:
                return None, len(banned)
            evaluation = self._folding.evaluate(graph, found)
            chosen = select(scope, found, evaluation.sizes, budget=self._budget)
            made, failed = self._constants(scope, found, chosen, evaluation)
            if not failed:
                break
            banned |= failed
        left = len(found.foldable) - len(chosen.folded) + len(banned)
        if not chosen.folded:
            return None, left
        self.nodes_folded += len(chosen.folded)
        self.bytes_folded += sum(map(_content_bytes, made.values()))
        nodes = _without_unused(_replace(scope, found, chosen, made), scope)
        self._budget += _total(scope.nodes) - _total(nodes)
        return nodes, left

    def _constants(
        self, scope: Scope, found: Candidates, chosen: Selection, evaluation: Evaluation
    ) -> tuple[dict[str, Node], set[str]]:
        """Tensor to the Const that takes its place, and the nodes whose kernels fail."""
        made: dict[str, Node] = {}
        failed: set[str] = set()
        wanted = [join(name, i) for name, outputs in chosen.frontier.items() for i in outputs]
        names = _names_for(scope, wanted)
        to_compute = []
        for tensor in wanted:
            source = same_bytes_source(scope, tensor)
            if source is None:
                to_compute.append(tensor)
            else:
                made[tensor] = _reshaped(source, names[tensor], evaluation.shape(tensor))
        for tensor, value in evaluation.values(to_compute):
            if value is None:
                failed.add(node_of(tensor))
            else:
                made[tensor] = constant(names[tensor], value, self._folding.put)
        for tensor, node in made.items():
            waits = found.carried[node_of(tensor)]
            made[tensor] = node._replace(inputs=tuple(f"^{name}" for name in waits))
        return made, failed


def _total(nodes: Mapping[str, Node]) -> int:
    return sum(map(node_bytes, nodes.values()))


def _content_bytes(node: Node) -> int:
    return len(node.attrs["value"]) if node.tensor is None else node.tensor.nbytes


def _names_for(scope: Scope, tensors: Iterable[str]) -> dict[str, str]:
    """Output 0 keeps its node's name; the others get one of their own."""
    names: dict[str, str] = {}
    taken = set(scope.nodes)
    for tensor in tensors:
        name, index = split(tensor)
        if index:
            name = f"{name}/output_{index}"
            while name in taken:
                name += "_"
            taken.add(name)
        names[tensor] = name
    return names


# ---------------------------------------------------------------- making constants


def constant(name: str, value: Value, put: Put) -> Node:
    """A Const node; a large value is kept out of line."""
    if isinstance(value.data, tuple):
        return const(name, value.dtype, value.shape, value.data)
    if value.data.nbytes > LARGE_TENSOR_BYTES:
        return const(name, value.dtype, value.shape, put(value.data, value.dtype, value.shape))
    return const(name, value.dtype, value.shape, bytes(value.data))


def _reshaped(source: Node, name: str, shape: tuple[int, ...]) -> Node:
    """A Const with the bytes of another one and a shape of its own."""
    assert source.tensor is not None
    reference = source.tensor._replace(shape=shape)
    return const(name, reference.dtype, shape, reference)


# ---------------------------------------------------------------- rewriting


def _replace(
    scope: Scope, found: Candidates, chosen: Selection, made: Mapping[str, Node]
) -> Mapping[str, Node]:
    """The scope's nodes with the folded ones replaced by their constants."""
    new_names = {tensor: node.name for tensor, node in made.items()}
    nodes: dict[str, Node] = {}
    for name, node in scope.nodes.items():
        if name not in chosen.folded:
            nodes[name] = _rewired(node, new_names, found.carried)
            continue
        for index in chosen.frontier.get(name, ()):
            constant_node = made[join(name, index)]
            nodes[constant_node.name] = constant_node
    return colocation.drop_dangling(nodes)


def _without_unused(nodes: Mapping[str, Node], scope: Scope) -> dict[str, Node]:
    """The nodes without the constants that only folded nodes used."""
    used = {node_of(tensor) for node in nodes.values() for tensor in node.inputs}
    used |= {node_of(tensor) for tensor in scope.wanted} | scope.fed
    return {name: node for name, node in nodes.items() if node.op != "Const" or name in used}


def _rewired(
    node: Node, new_names: Mapping[str, str], carried: Mapping[str, tuple[str, ...]]
) -> Node:
    """A node with its inputs renamed; instead of a constant it waits for what that waits for."""
    inputs: dict[str, None] = {}
    data = [new_names.get(tensor, tensor) for tensor in node.inputs if not tensor.startswith("^")]
    for tensor in node.inputs:
        if tensor.startswith("^"):
            waits = carried.get(tensor[1:], (tensor[1:],))
            inputs.update(dict.fromkeys(f"^{name}" for name in waits))
    return node._replace(inputs=(*data, *inputs))
