"""Branches that can never be taken, left out once their predicate is a constant.

A model that was trained has both sides of ``if is_training`` in it. With the predicate bound, only
one of them is left: TF2's If and Case become the call of one branch, TF1's Switch hands on to one
side, everything behind the other is dead up to the Merge. Source of the semantics of dead tensors:
Yu et al., "Dynamic Control Flow in Large-Scale Machine Learning", EuroSys 2018.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from freezeflow.graph import attrs, walk
from freezeflow.graph.graph import Graph, Node, data_inputs, join, output_types
from freezeflow.graph.handles import scalar_const
from freezeflow.values import DType

_IFS = {"If": ("then_branch", "else_branch"), "StatelessIf": ("then_branch", "else_branch")}
_CASES = frozenset({"Case", "StatelessCase"})
_SWITCHES = frozenset({"Switch", "RefSwitch"})
_MERGES = frozenset({"Merge", "RefMerge"})
_PASSING = frozenset({"Identity", "StopGradient", "Snapshot"})

_LOGIC: Mapping[str, Callable[[bool, bool], bool]] = {
    "LogicalAnd": lambda a, b: a and b,
    "LogicalOr": lambda a, b: a or b,
}


def choose_branches(graph: Graph) -> Graph:
    """The main graph with every branch chosen whose predicate is constant.

    Names of nodes stay; what nobody needs any more is still there, for pruning.
    """
    chooser = _Chooser(graph)
    return dataclasses.replace(graph, nodes=chooser.rewritten())


class _Chooser:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._values: dict[str, bool | int] = {}
        self._dead: set[str] = set()
        self._moved: dict[str, str] = {}

    def rewritten(self) -> dict[str, Node]:
        out = {}
        for name in walk.topological_order(self._graph.nodes):
            node = self._with_moved_inputs(self._graph.nodes[name])
            if self._dies(node):
                self._dead |= {join(name, i) for i in range(self._count_outputs(node))}
                self._dead.add(f"^{name}")
                continue
            self._note_value(node)
            out.update({made.name: made for made in self._chosen(node)})
        return {name: self._with_moved_inputs(node) for name, node in out.items()}

    def _with_moved_inputs(self, node: Node) -> Node:
        inputs = tuple(self._moved.get(tensor, tensor) for tensor in node.inputs)
        return node if inputs == node.inputs else node._replace(inputs=inputs)

    def _dies(self, node: Node) -> bool:
        if node.op in _MERGES:
            return all(tensor in self._dead for tensor in data_inputs(node))
        return any(tensor in self._dead for tensor in node.inputs)

    def _count_outputs(self, node: Node) -> int:
        return len(output_types(self._graph, node) or (None,))

    # ------------------------------------------------------------ constants

    def _note_value(self, node: Node) -> None:
        value = self._value_of(node)
        if value is not None:
            self._values[node.name] = value

    def _value_of(self, node: Node) -> bool | int | None:
        if node.op == "Const":
            return _scalar(node)
        known = [self._values.get(tensor) for tensor in data_inputs(node)]
        if node.op in _PASSING:
            return known[0]
        if node.op == "LogicalNot" and known[0] is not None:
            return not known[0]
        if node.op in _LOGIC and None not in known:
            return _LOGIC[node.op](bool(known[0]), bool(known[1]))
        return None

    # ------------------------------------------------------------ branches

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
            self._moved[join(node.name, 1)] = node.name
        ref = node.op.startswith("Ref")
        inputs = (node.inputs[0], *(i for i in node.inputs if i.startswith("^")))
        return [
            Node(node.name, "RefIdentity" if ref else "Identity", inputs, {"T": node.attrs["T"]})
        ]

    def _merged(self, node: Node) -> list[Node]:
        """A Merge of which one input can still come; several may be a loop's or another cond's."""
        inputs = list(data_inputs(node))
        alive = [i for i, tensor in enumerate(inputs) if tensor not in self._dead]
        if len(alive) == len(inputs) or len(alive) != 1:
            return [node]
        (index,) = alive
        control = tuple(i for i in node.inputs if i.startswith("^") and i not in self._dead)
        number = scalar_const(f"{node.name}/value_index", index, after=inputs[index])
        self._moved[join(node.name, 1)] = number.name
        ref = node.op.startswith("Ref")
        op = "RefIdentity" if ref else "Identity"
        return [Node(node.name, op, (inputs[index], *control), {"T": node.attrs["T"]}), number]

    def _call(self, node: Node, function: bytes) -> Node:
        """The node as a plain call of one branch."""
        name, _ = attrs.to_function(function)
        stateful = name in self._graph.functions and self._graph.functions[name].is_stateful
        op = "StatefulPartitionedCall" if stateful else "PartitionedCall"
        values = {"Tin": node.attrs["Tin"], "Tout": node.attrs["Tout"], "f": function}
        return Node(node.name, op, node.inputs[1:], values, node.device)


def _scalar(node: Node) -> bool | int | None:
    """The value of a scalar bool or int32 constant."""
    dtype = attrs.to_type(node.attrs["dtype"])
    tensor = attrs.message(node.attrs["value"]).tensor
    if tensor.tensor_shape.dim or node.tensor is not None:
        return None
    content = tensor.tensor_content
    if dtype is DType.BOOL:
        return (
            bool(content[0]) if content else bool(tensor.bool_val[0]) if tensor.bool_val else False
        )
    if dtype is DType.INT32:
        if content:
            return int.from_bytes(content, "little", signed=True)
        return int(tensor.int_val[0]) if tensor.int_val else 0
    return None
