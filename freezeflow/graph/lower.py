"""If, Case and While replaced by Switch, Merge and loops of frames, with the nodes of their bodies.

What a functional node does inside cannot be looked at from outside; in the lowered graph every node of
a body is a node of the main graph, under the functional node's name. Each keeps its own name: an
IdentityN (or NoOp) that gives what it gave. Source of the forms: upstream
``core/common_runtime/lower_{if,case,while}_op.cc``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from freezeflow.graph import attrs
from freezeflow.graph.constants import const
from freezeflow.graph.graph import (
    Function,
    Graph,
    Node,
    control_inputs,
    data_inputs,
    join,
    node_of,
)
from freezeflow.graph.inline import MAX_INLINED_NODES, instantiate, renamed
from freezeflow.values import DType

_IFS = frozenset({"If", "StatelessIf"})
_CASES = frozenset({"Case", "StatelessCase"})
_WHILES = frozenset({"While", "StatelessWhile"})


def lower(graph: Graph) -> Graph:
    """A graph that does the same, without If, Case and While in its main part.

    What has a condition that is no bool stays, and so does all that would come to more nodes than a
    graph is inlined to.

    Args:
        graph: The graph, calls inlined.
    """
    lowering = _Lowering(graph)
    lowering.run()
    return dataclasses.replace(graph, nodes=lowering.nodes)


class _Branch(NamedTuple):
    """A function that runs where a predicate is true (output 1 of a Switch), or false (output 0)."""

    name: str
    function: Function
    predicate: str
    side: int


class _Lowering:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.nodes: dict[str, Node] = dict(graph.nodes)
        self._names = set(graph.nodes)

    def run(self) -> None:
        stack = list(self.nodes)
        while stack:
            node = self.nodes[stack.pop()]
            if len(self.nodes) > MAX_INLINED_NODES:
                return
            if node.op in _IFS and _is_bool(node, "Tcond"):
                stack += self._if(node)
            elif node.op in _CASES:
                stack += self._case(node)
            elif node.op in _WHILES:
                stack += self._while(node)

    # ------------------------------------------------------------ branches

    def _if(self, node: Node) -> list[str]:
        condition = node.inputs[0]
        branches = [
            self._branch(node, key, condition, side)
            for side, key in enumerate(("else_branch", "then_branch"))
        ]
        return self._branches(node, branches) if all(branches) else []

    def _branch(self, node: Node, key: str, predicate: str, side: int) -> _Branch | None:
        function = self._function(node.attrs[key])
        if function is None:
            return None
        return _Branch(key.removesuffix("_branch"), function, predicate, side)

    def _case(self, node: Node) -> list[str]:
        """Each branch by a predicate of its own; an index out of range takes the last one."""
        named = attrs.to_functions(node.attrs["branches"])
        found = [self._instantiated(name, bindings) for name, bindings in named]
        branches = []
        for number, function in enumerate(found):
            if function is None:
                return []
            last = number == len(found) - 1
            predicate = self._is_last(node, number) if last else self._is_branch(node, number)
            branches.append(_Branch(f"branch_{number}", function, predicate, 1))
        return self._branches(node, branches)

    def _is_branch(self, node: Node, number: int) -> str:
        return self._compare(node, "Equal", number, f"is_{number}")

    def _is_last(self, node: Node, number: int) -> str:
        below = self._compare(node, "Less", 0, "is_below")
        above = self._compare(node, "GreaterEqual", number, "is_above")
        return self._add(f"{node.name}/is_last", "LogicalOr", (below, above))

    def _compare(self, node: Node, op: str, number: int, name: str) -> str:
        value = const(self._unique(f"{node.name}/{name}/y"), DType.INT32, (), _int32(number))
        self.nodes[value.name] = value._replace(inputs=(f"^{node_of(node.inputs[0])}",))
        inputs = node.inputs[0], value.name
        return self._add(f"{node.name}/{name}", op, inputs, T=attrs.of_type(DType.INT32))

    def _branches(self, node: Node, branches: Sequence[_Branch | None]) -> list[str]:
        given = list(data_inputs(node))[1:]
        waits = [f"^{name}" for name in control_inputs(node)]
        added: list[str] = []
        results: list[list[str]] = []
        ends = []
        for branch in filter(None, branches):
            prefix = f"{node.name}/{branch.name}"
            pivot = self._taken(f"{prefix}/pivot", branch.predicate, branch, DType.BOOL)
            values = [
                self._taken(f"{prefix}/{arg.name}", tensor, branch, arg.dtype)
                for arg, tensor in zip(branch.function.args, given, strict=True)
            ]
            names, moved = self._open(branch.function, prefix, values, [f"^{pivot}", *waits])
            added += names.values()
            results.append(moved)
            effects = [f"^{names[r.node]}" for r in branch.function.control_results]
            ends.append(
                self._add(
                    f"{prefix}/done", "Identity", (pivot, *effects), T=attrs.of_type(DType.BOOL)
                )
            )
        done = self._merge(f"{node.name}/done", ends, DType.BOOL)
        types = [result.dtype for result in _first(branches).function.results]
        merged = [
            self._merge(f"{node.name}/result_{index}", group, dtype)
            for index, (dtype, group) in enumerate(
                zip(types, zip(*results, strict=True), strict=True)
            )
        ]
        self._finish(node, merged, types, [f"^{done}"])
        return added

    def _taken(self, name: str, tensor: str, branch: _Branch, dtype: DType) -> str:
        """A tensor that is alive in a branch only."""
        kind = attrs.of_type(dtype)
        switch = self._add(f"{name}/switch", "Switch", (tensor, branch.predicate), T=kind)
        return self._add(name, "Identity", (join(switch, branch.side),), T=kind)

    def _merge(self, name: str, tensors: Iterable[str], dtype: DType) -> str:
        inputs = tuple(tensors)
        number = attrs.of_int(len(inputs))
        return self._add(name, "Merge", inputs, T=attrs.of_type(dtype), N=number)

    # ------------------------------------------------------------ loops

    def _while(self, node: Node) -> list[str]:
        condition, body = (self._function(node.attrs[key]) for key in ("cond", "body"))
        given = list(data_inputs(node))
        if condition is None or body is None or not given:
            return []
        if condition.results[0].dtype is not DType.BOOL:
            return []
        types = [arg.dtype for arg in body.args]
        waits = tuple(f"^{name}" for name in control_inputs(node))
        frame = {
            "frame_name": attrs.of_bytes(node.name.encode()),
            "parallel_iterations": attrs.of_int(1),
            "is_constant": attrs.of_bool(False),
        }
        enters = [
            self._add(f"{node.name}/enter_{n}", "Enter", (t, *waits), T=attrs.of_type(d), **frame)
            for n, (t, d) in enumerate(zip(given, types, strict=True))
        ]
        # The back edge is put in when the body is there.
        merges = [
            self._merge(f"{node.name}/merge_{n}", (enter, enter), d)
            for n, (enter, d) in enumerate(zip(enters, types, strict=True))
        ]
        names, (goes_on,) = self._open(condition, f"{node.name}/cond", merges, [f"^{merges[0]}"])
        test = self._add(f"{node.name}/loop_cond", "LoopCond", (goes_on,))
        switches = [
            self._add(f"{node.name}/switch_{n}", "Switch", (merge, test), T=attrs.of_type(d))
            for n, (merge, d) in enumerate(zip(merges, types, strict=True))
        ]
        values = [
            self._add(f"{node.name}/round_{n}", "Identity", (join(s, 1),), T=attrs.of_type(d))
            for n, (s, d) in enumerate(zip(switches, types, strict=True))
        ]
        inner, results = self._open(body, f"{node.name}/body", values, [f"^{values[0]}"])
        effects = [f"^{inner[r.node]}" for r in body.control_results]
        for n, (result, merge, d) in enumerate(zip(results, merges, types, strict=True)):
            back = self._add(
                f"{node.name}/next_{n}", "NextIteration", (result, *effects), T=attrs.of_type(d)
            )
            self.nodes[merge] = self.nodes[merge]._replace(inputs=(enters[n], back))
        exits = [
            self._add(f"{node.name}/exit_{n}", "Exit", (s,), T=attrs.of_type(d))
            for n, (s, d) in enumerate(zip(switches, types, strict=True))
        ]
        self._finish(node, exits, types, [])
        return [*names.values(), *inner.values()]

    # ------------------------------------------------------------ both

    def _function(self, data: bytes) -> Function | None:
        return self._instantiated(*attrs.to_function(data))

    def _instantiated(self, name: str, bindings: Mapping[str, bytes]) -> Function | None:
        function = self._graph.functions.get(name)
        return None if function is None else instantiate(function, bindings)

    def _open(
        self, function: Function, prefix: str, values: Sequence[str], entry: Sequence[str]
    ) -> tuple[dict[str, str], list[str]]:
        """Puts a body's nodes in; their new names, and the tensors that are its results."""
        names = {name: self._unique(f"{prefix}/{name}") for name in function.nodes}
        args = dict(zip((arg.name for arg in function.args), values, strict=True))
        for node in function.nodes.values():
            inputs = [renamed(tensor, names, args) for tensor in node.inputs]
            if not any(not tensor.startswith("^") for tensor in inputs):
                inputs += [name for name in entry if name not in inputs]
            self.nodes[names[node.name]] = node._replace(
                name=names[node.name], inputs=tuple(inputs), device=""
            )
        return names, [renamed(result.tensor, names, args) for result in function.results]

    def _finish(
        self, node: Node, tensors: Sequence[str], types: Sequence[DType], waits: Sequence[str]
    ) -> None:
        """The node becomes one that hands on its results."""
        values = {"T": attrs.of_types(types)} if tensors else {}
        op = "IdentityN" if tensors else "NoOp"
        self.nodes[node.name] = Node(node.name, op, (*tensors, *waits), values)

    def _add(self, name: str, op: str, inputs: tuple[str, ...], **values: bytes) -> str:
        unique = self._unique(name)
        self.nodes[unique] = Node(unique, op, inputs, values)
        return unique

    def _unique(self, name: str) -> str:
        number, unique = 0, name
        while unique in self._names:
            number += 1
            unique = f"{name}_{number}"
        self._names.add(unique)
        return unique


def _first(branches: Sequence[_Branch | None]) -> _Branch:
    found = branches[0]
    assert found is not None
    return found


def _is_bool(node: Node, key: str) -> bool:
    return attrs.to_type(node.attrs[key]) is DType.BOOL


def _int32(number: int) -> bytes:
    return number.to_bytes(4, "little", signed=True)
