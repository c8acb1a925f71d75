"""Branches that can never be taken, left out once their predicate is a constant.

A model that was trained has both sides of ``if is_training`` in it. With the predicate bound, or a
constant from the start, only one of them is left: TF2's If and Case become the call of one branch,
TF1's Switch hands on to one side, everything behind the other is dead up to the Merge. Source of the
semantics of dead tensors: Yu et al., "Dynamic Control Flow in Large-Scale Machine Learning", EuroSys
2018.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from types import MappingProxyType

from freezeflow.graph import attrs, walk
from freezeflow.graph.effects import CHOSEN_ATTR, Effects, behind
from freezeflow.graph.graph import Function, Graph, Node, data_inputs, join, node_of, output_types
from freezeflow.graph.handles import scalar_const
from freezeflow.graph.known_args import Known, known_arguments
from freezeflow.values import DType

_IFS = {"If": ("then_branch", "else_branch"), "StatelessIf": ("then_branch", "else_branch")}
_CASES = frozenset({"Case", "StatelessCase"})
_SWITCHES = frozenset({"Switch", "RefSwitch"})
_MERGES = frozenset({"Merge", "RefMerge"})
# A handle or reference that is known by its value is one of a variable that nothing writes.
_PASSING = frozenset({"Identity", "RefIdentity", "StopGradient", "Snapshot", "ReadVariableOp"})
_WHOLE = frozenset({DType.BOOL, DType.INT32, DType.INT64})

_CHOOSERS = frozenset(_IFS) | _CASES | _SWITCHES
_BACK_EDGES = frozenset({"NextIteration", "RefNextIteration"})

# Ops on two scalars of bool or integers.
_BINARY: Mapping[str, Callable[[int, int], bool]] = {
    "LogicalAnd": lambda a, b: bool(a) and bool(b),
    "LogicalOr": lambda a, b: bool(a) or bool(b),
    "Equal": operator.eq,
    "NotEqual": operator.ne,
    "Less": operator.lt,
    "LessEqual": operator.le,
    "Greater": operator.gt,
    "GreaterEqual": operator.ge,
}


def choose_branches(
    graph: Graph,
    ends: Collection[str] = (),
    known: Known = MappingProxyType({}),
) -> Graph:
    """The graph, functions included, with every branch chosen whose predicate is constant.

    Names of nodes stay; what nobody needs any more is still there, for pruning. The very same graph
    comes back where there is nothing to choose.

    Args:
        graph: The graph.
        ends: Tensors of the main graph that are known outside of it; they stay where they are.
        known: Handle nodes of the main graph whose variable has a value that never changes; functions
            that take them know it, too.
    """
    nodes = _chosen_nodes(graph, graph.nodes, ends, known)
    given = known_arguments(graph, known) if known else {}
    functions = {
        name: _chosen_body(graph, f, given.get(name, {})) for name, f in graph.functions.items()
    }
    if nodes is graph.nodes and all(functions[n] is f for n, f in graph.functions.items()):
        return graph
    return dataclasses.replace(graph, nodes=nodes, functions=functions)


def _chosen_body(graph: Graph, function: Function, known: Known) -> Function:
    ends = [
        *(result.tensor for result in function.results),
        *(result.node for result in function.control_results),
    ]
    args = {arg.name for arg in function.args}
    nodes = _chosen_nodes(graph, function.nodes, [e for e in ends if node_of(e) not in args], known)
    return function if nodes is function.nodes else dataclasses.replace(function, nodes=nodes)


def _chosen_nodes(
    graph: Graph,
    nodes: Mapping[str, Node],
    ends: Collection[str],
    known: Known = MappingProxyType({}),
) -> Mapping[str, Node]:
    """One body with its branches chosen; as it was if an end of it would be lost."""
    if not any(node.op in _CHOOSERS for node in nodes.values()):
        return nodes
    chooser = _Chooser(graph, nodes, known)
    chosen = chooser.rewritten()
    lost = any(tensor in chooser.moved or node_of(tensor) not in chosen for tensor in ends)
    return nodes if lost or chosen == nodes else chosen


class _Chooser:
    """Goes through one body, inputs first, and notes constants, dead tensors, tensors that moved."""

    def __init__(self, graph: Graph, nodes: Mapping[str, Node], known: Known) -> None:
        self._graph = graph
        self._nodes = nodes
        self._values: dict[str, bool | int] = dict(known)
        self._dead: set[str] = set()
        self.moved: dict[str, str] = {}

    def rewritten(self) -> dict[str, Node]:
        out = {}
        for name in walk.topological_order(self._nodes):
            original = self._nodes[name]
            node = self._with_moved_inputs(original)
            if self._dies(original):
                self._dead |= {join(name, i) for i in range(self._count_outputs(node))}
                self._dead.add(f"^{name}")
                continue
            self._note_value(node)
            out.update({made.name: made for made in self._chosen(node)})
        return {name: self._with_moved_inputs(node) for name, node in out.items()}

    def _with_moved_inputs(self, node: Node) -> Node:
        inputs = tuple(self.moved.get(tensor, tensor) for tensor in node.inputs)
        return node if inputs == node.inputs else node._replace(inputs=inputs)

    def _dies(self, node: Node) -> bool:
        if node.op in _MERGES:
            return all(tensor in self._dead for tensor in self._forward_inputs(node))
        return any(tensor in self._dead for tensor in node.inputs)

    def _forward_inputs(self, merge: Node) -> list[str]:
        """A Merge's inputs without those that come round a loop: they live as the loop does."""
        inputs = list(data_inputs(merge))
        forward = [t for t in inputs if self._op_of(t) not in _BACK_EDGES]
        return forward or inputs

    def _op_of(self, tensor: str) -> str:
        node = self._nodes.get(node_of(tensor))
        return "" if node is None else node.op

    def _count_outputs(self, node: Node) -> int:
        return len(output_types(self._graph, node) or (None,))

    # ------------------------------------------------------------ constants

    def _note_value(self, node: Node) -> None:
        value = self._value_of(node)
        if value is not None and node.name not in self._values:
            self._values[node.name] = value

    def _value_of(self, node: Node) -> bool | int | None:
        if node.op == "Const":
            return scalar_of(node)
        known = [self._values.get(tensor) for tensor in data_inputs(node)]
        if node.op in _PASSING:
            return known[0]
        if node.op == "LogicalNot" and known[0] is not None:
            return not known[0]
        if node.op == "Cast" and known[0] is not None:
            return _cast(known[0], attrs.to_type(node.attrs["DstT"]))
        if node.op in _BINARY and len(known) == 2 and known[0] is not None and known[1] is not None:
            return _BINARY[node.op](known[0], known[1])
        return None

    # ------------------------------------------------------------ branches

    @functools.cached_property
    def _late(self) -> set[str]:
        """Nodes at which, or on the way to which, something happens: a check, a write."""
        effects = Effects(self._graph)
        return behind(self._nodes, {n.name for n in self._nodes.values() if effects.node(n)})

    def _waits_for(self, tensors: Iterable[str]) -> tuple[str, ...]:
        """Control inputs on those of the tensors that something precedes."""
        names = dict.fromkeys(node_of(self.moved.get(tensor, tensor)) for tensor in tensors)
        return tuple(f"^{name}" for name in names if name in self._late)

    def _chosen(self, node: Node) -> list[Node]:
        inputs = list(data_inputs(node))
        if node.op in _SWITCHES and self._values.get(inputs[1]) is not None:
            return self._one_way(node, taken=int(bool(self._values[inputs[1]])))
        if node.op in _MERGES:
            return self._merged(node)
        if node.op in _IFS and self._values.get(inputs[0]) is not None:
            then_branch, else_branch = _IFS[node.op]
            return [
                self._call(
                    node, node.attrs[then_branch if self._values[inputs[0]] else else_branch]
                )
            ]
        if node.op in _CASES and self._values.get(inputs[0]) is not None:
            branches = attrs.to_functions(node.attrs["branches"])
            index = int(self._values[inputs[0]])
            # An index out of range takes the last branch.
            name, bindings = branches[index if 0 <= index < len(branches) else -1]
            return [self._call(node, attrs.of_function(name, bindings))]
        return [node]

    def _one_way(self, node: Node, *, taken: int) -> list[Node]:
        """A Switch whose way is known: an Identity on that side, nothing on the other."""
        self._dead.add(join(node.name, 1 - taken))
        if taken:
            self.moved[join(node.name, 1)] = node.name
        ref = node.op.startswith("Ref")
        waits = dict.fromkeys([*_control_of(node), *self._waits_for([node.inputs[1]])])
        inputs = (node.inputs[0], *waits)
        return [
            Node(node.name, "RefIdentity" if ref else "Identity", inputs, {"T": node.attrs["T"]})
        ]

    def _merged(self, node: Node) -> list[Node]:
        """A Merge of which one input can still come; several may be a loop's or another cond's."""
        original = self._nodes[node.name]
        inputs = list(data_inputs(node))
        # What is dead is known by its old name: a tensor that moved may have that of a dead one.
        alive = [i for i, tensor in enumerate(data_inputs(original)) if tensor not in self._dead]
        if (
            len(alive) == len(inputs)
            or len(alive) != 1
            or self._op_of(inputs[alive[0]]) in _BACK_EDGES
        ):
            return [node]
        (index,) = alive
        ruled_out = [tensor for tensor in data_inputs(original) if tensor in self._dead]
        control = [i for i in _control_of(original) if i not in self._dead]
        control += self._waits_for(self._taken_by_dead(ruled_out))
        number = scalar_const(f"{node.name}/value_index", index, after=inputs[index])
        self.moved[join(node.name, 1)] = number.name
        ref = node.op.startswith("Ref")
        op = "RefIdentity" if ref else "Identity"
        waits = tuple(dict.fromkeys(control))
        return [Node(node.name, op, (inputs[index], *waits), {"T": node.attrs["T"]}), number]

    def _taken_by_dead(self, tensors: Iterable[str]) -> list[str]:
        """What dead tensors are computed from up to the Switches: TensorFlow computes it nevertheless."""
        if not self._late:
            return []
        found, seen, stack = [], set[str](), list(tensors)
        while stack:
            name = node_of(stack.pop())
            if name in seen:
                continue
            seen.add(name)
            for tensor in self._nodes[name].inputs:
                if tensor in self._dead:
                    stack.append(tensor)
                else:
                    found.append(tensor)
        return found

    def _call(self, node: Node, function: bytes) -> Node:
        """The node as a plain call of one branch."""
        name, _ = attrs.to_function(function)
        stateful = name in self._graph.functions and self._graph.functions[name].is_stateful
        op = "StatefulPartitionedCall" if stateful else "PartitionedCall"
        values = {
            "Tin": node.attrs["Tin"],
            "Tout": node.attrs["Tout"],
            "f": function,
            CHOSEN_ATTR: attrs.of_bool(True),
        }
        waits = [w for w in self._waits_for([node.inputs[0]]) if w not in node.inputs]
        return Node(node.name, op, (*node.inputs[1:], *waits), values, node.device)


def _control_of(node: Node) -> Iterator[str]:
    """The control inputs of a node, as it has them."""
    return (tensor for tensor in node.inputs if tensor.startswith("^"))


def _cast(value: bool | int, dtype: DType) -> bool | int | None:
    if dtype is DType.BOOL:
        return bool(value)
    fits = dtype is DType.INT64 or (dtype is DType.INT32 and -(2**31) <= value < 2**31)
    return int(value) if fits else None


def scalar_of(node: Node) -> bool | int | None:
    """The value of a Const that is a scalar bool or integer; None for any other."""
    dtype = attrs.to_type(node.attrs["dtype"])
    if dtype not in _WHOLE or node.tensor is not None:
        return None
    tensor = attrs.message(node.attrs["value"]).tensor
    if tensor.tensor_shape.dim:
        return None
    content = tensor.tensor_content
    if dtype is DType.BOOL:
        return (
            bool(content[0]) if content else bool(tensor.bool_val[0]) if tensor.bool_val else False
        )
    if content:
        return int.from_bytes(content, "little", signed=True)
    given = tensor.int_val if dtype is DType.INT32 else tensor.int64_val
    return int(given[0]) if given else 0
