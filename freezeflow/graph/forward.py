"""Reads of a variable that the same call has written before: they take the value that was written.

A call that assigns a variable before it reads it does not see what earlier calls left there: the
variable is a place on the way. Such a read goes to what was written last, and nothing is left that would
need the variable. That is only so where the graph fixes the order: all writes of the variable wait for
each other, and every read waits for some of them and comes before the others. What is under TF1's control
flow, or behind a function that writes, is left alone.

In TF1 a reference may show what is written after it was taken, so a reference is only read behind all
writes. (Upstream: ``core/kernels/dense_update_ops.cc``, ``resource_variable_ops.cc``, whose
``AssignAddVariableOp`` adds as ``AddV2`` does once both shapes are the same, and ``scatter_nd_op.cc``, which
has the same functor for variables and for tensors.)
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from freezeflow.graph import attrs, walk
from freezeflow.graph.effects import V1_CONTROL_FLOW, behind
from freezeflow.graph.graph import (
    Graph,
    Node,
    control_inputs,
    data_inputs,
    join,
    output_types,
)
from freezeflow.graph.handles import READS, Handle
from freezeflow.graph.variables import FUNCTION_USES, HANDLES, IGNORED, WRITES
from freezeflow.values import DType

ASSIGNS = frozenset({"Assign", "AssignVariableOp"})
_SUMS = {
    "AssignAdd": "AddV2",
    "AssignAddVariableOp": "AddV2",
    "AssignSub": "Sub",
    "AssignSubVariableOp": "Sub",
}
_SCATTERS = {
    f"{before}ScatterNd{kind}": f"TensorScatter{kind}"
    for before in ("", "Resource")
    for kind in ("Update", "Add", "Sub", "Min", "Max")
}

# What these say of a variable does not change with its value.
_NO_READS = frozenset({"VariableShape", "VarIsInitializedOp", "IsVariableInitialized"}) | IGNORED

# Calls that are over, reads included, once their outputs are there. A dataset reads when it is asked.
_CALLS = frozenset(
    {"PartitionedCall", "StatefulPartitionedCall", "If", "StatelessIf", "Case", "StatelessCase"}
    | {"While", "StatelessWhile"}
)

# A TF1 variable that lives for one call, and the op that takes its last value.
TEMPORARY = "TemporaryVariable"
_DESTROY = "DestroyTemporaryVariable"


# Writes in topological order, each with itself and all nodes that wait for it.
_After = dict[str, set[str]]


class Forwarded(NamedTuple):
    """Nodes whose reads have been led to what was written.

    Args:
        nodes: The nodes; those that give what was written are among them.
        written: The names of these, to the handle that they stand for.
    """

    nodes: Mapping[str, Node]
    written: Mapping[str, Handle]


def forward_writes(
    graph: Graph,
    nodes: Mapping[str, Node],
    handles: Mapping[str, Handle],
    calls: Sequence[Collection[str]],
    results: Collection[str] = (),
) -> Forwarded:
    """Leads reads to what was written before, in the main graph or a function's body.

    Args:
        graph: The graph with the library.
        nodes: The main graph's nodes or the body's.
        handles: The tensors that are a variable: those of handle nodes, and arguments.
        calls: For each call that may be made, the nodes that run in it.
        results: Tensors that a caller takes.
    """
    if not any(node.op in ASSIGNS for node in nodes.values()) or _names_variables(graph, nodes):
        return Forwarded(nodes, {})
    scope = _Scope(graph, nodes, handles, calls, results)
    for variable in scope.variables():
        scope.forward(variable)
    return Forwarded(scope.result() if scope.written else nodes, scope.written)


def _names_variables(graph: Graph, nodes: Mapping[str, Node]) -> bool:
    """Whether a function takes a variable by its name, so that no edge tells which one."""
    functions = walk.reached_functions(graph, nodes.values())
    bodies = (graph.functions[name].nodes.values() for name in functions)
    return any(node.op in HANDLES for body in bodies for node in body)


class _Scope:
    def __init__(
        self,
        graph: Graph,
        nodes: Mapping[str, Node],
        handles: Mapping[str, Handle],
        calls: Sequence[Collection[str]],
        results: Collection[str],
    ) -> None:
        self._graph = graph
        self._used = {*results, *(tensor for node in nodes.values() for tensor in node.inputs)}
        self._calls = calls
        running = [name for name in walk.inputs_first(nodes) if any(name in call for call in calls)]
        self.nodes = {name: nodes[name] for name in running}
        self._taken = {*nodes, *handles}
        self._others = {name: node for name, node in nodes.items() if name not in self.nodes}
        self._consumers = walk.consumers(self.nodes)
        controlled = {n.name for n in self.nodes.values() if n.op in V1_CONTROL_FLOW}
        self._gated = behind(self.nodes, controlled)
        self.written: dict[str, Handle] = {}
        self._handles = dict(handles)
        self._takers: dict[str, list[str]] = {}
        for node in self.nodes.values():
            self._follow(node)

    def _follow(self, node: Node) -> None:
        """Notes what takes a handle, and what hands it on."""
        if node.op == TEMPORARY:
            dtype, shape = attrs.to_type(node.attrs["dtype"]), attrs.to_shape(node.attrs["shape"])
            self._handles[node.name] = Handle(dtype, shape, (node.name,), is_ref=True)
            return
        given = [self._handles[t] for t in node.inputs if t in self._handles]
        for variable in {v for handle in given for v in handle.variables}:
            self._takers.setdefault(variable, []).append(node.name)
        if len(given) == 1 and _hands_on(node, given[0]):
            self._handles[node.name] = given[0]

    def variables(self) -> list[str]:
        """The variables that something is assigned to."""
        return [
            variable
            for variable, takers in self._takers.items()
            if any(self.nodes[taker].op in ASSIGNS for taker in takers)
        ]

    def forward(self, variable: str) -> None:
        """Leads all reads of a variable to what was written, if that is certain for each."""
        takers = [self.nodes[name] for name in self._takers[variable]]
        takers = [n for n in takers if n.name not in self._handles or WRITES.match(n.op)]
        writes = [node for node in takers if WRITES.match(node.op) and node.op != _DESTROY]
        reads = [n for n in takers if n not in writes and n.op not in _NO_READS]
        handle = self._certain(variable, takers)
        if handle is None or not all(self._is_read(node, handle) for node in reads):
            return
        after: _After = {node.name: self._after(node.name) for node in writes}
        if not self._in_order(after):
            return
        if not all(_checks_shape(node) for node in writes if node.op in ASSIGNS):
            handle = handle._replace(shape=None)
        values = self._values(writes, after, handle)
        sources = {}
        for node in reads:
            value = values.get(self._last_before(node.name, after))
            if value is None or not self._comes_before_others(node.name, after, handle):
                return
            sources[node.name] = value[-1].name
        self._lead(variable, handle, sources, values)

    def _certain(self, variable: str, takers: Sequence[Node]) -> Handle | None:
        """The variable's handle, if whoever takes it takes just that, under no control flow."""
        found = None
        for node in takers:
            given = [self._handles[t] for t in node.inputs if t in self._handles]
            mine = [handle for handle in given if variable in handle.variables]
            if len(mine) != 1 or len(mine[0].variables) != 1:
                return None
            if WRITES.match(node.op) and (len(given) != 1 or node.name in self._gated):
                return None
            found = mine[0]
        return found

    def _is_read(self, node: Node, handle: Handle) -> bool:
        if node.op in READS or node.op == _DESTROY:
            return True
        if node.op in _CALLS:
            if self._gives_handles(node):
                return False
            functions = walk.reached_functions(self._graph, [node])
            bodies = (self._graph.functions[name].nodes.values() for name in functions)
            return not any(WRITES.match(inner.op) for body in bodies for inner in body)
        if node.op in FUNCTION_USES or any(walk.named_functions(self._graph, node)):
            return False
        definition = self._graph.op_def(node.op)
        plain = definition is not None and not any(arg.is_ref for arg in definition.inputs)
        return handle.is_ref and plain and node.op not in V1_CONTROL_FLOW

    def _gives_handles(self, call: Node) -> bool:
        """Whether someone takes a handle out of a call: a loop gives all that went round it."""
        types = output_types(self._graph, call)
        return types is None or any(
            dtype is DType.RESOURCE and join(call.name, index) in self._used
            for index, dtype in enumerate(types)
        )

    # ------------------------------------------------------------ order

    def _after(self, name: str) -> set[str]:
        """A node and all that wait for it."""
        seen, stack = {name}, [name]
        while stack:
            for consumer in self._consumers.get(stack.pop(), ()):
                if consumer not in seen:
                    seen.add(consumer)
                    stack.append(consumer)
        return seen

    def _in_order(self, after: _After) -> bool:
        """Whether of the writes of any call each waits for the one before."""
        return all(
            later in after[earlier]
            for call in self._calls
            for earlier, later in itertools.pairwise(name for name in after if name in call)
        )

    def _last_before(self, name: str, after: _After) -> str:
        """The last write that a node waits for; empty where there is none."""
        return next((w for w in reversed(after) if w != name and name in after[w]), "")

    def _comes_before_others(self, read: str, after: _After, handle: Handle) -> bool:
        """Whether all writes for which a read does not wait come after it."""
        others = {
            write
            for call in self._calls
            if read in call
            for write in after
            if write in call and read not in after[write]
        }
        return not others or (not handle.is_ref and others <= self._after(read))

    # ------------------------------------------------------------ values

    def _values(
        self, writes: Sequence[Node], after: _After, handle: Handle
    ) -> dict[str, tuple[Node, ...] | None]:
        """For each write the nodes that give what is there then, the last of them the value itself;
        None where that depends on what was there before the call, or is not known."""
        found: dict[str, tuple[Node, ...] | None] = {}
        for write in writes:
            before = found.get(self._last_before(write.name, after))
            found[write.name] = self._value(write, handle, before[-1].name if before else None)
        return found

    def _value(self, write: Node, handle: Handle, before: str | None) -> tuple[Node, ...] | None:
        _, *given = data_inputs(write)
        kind = {"T": attrs.of_type(handle.dtype)}
        made: list[Node] = []
        if _checks_shape(write):
            if handle.shape is None or None in handle.shape:
                return None
            shape = {**kind, "shape": attrs.of_shape(handle.shape)}
            name = self._unused(f"{write.name}/value")
            made.append(Node(name, "EnsureShape", (given[0],), shape))
            given = [name]
        if write.op not in ASSIGNS:
            op = _SUMS.get(write.op) or _SCATTERS.get(write.op)
            if op is None or before is None:
                return None
            values: Mapping[str, bytes] = kind
            if write.op in _SCATTERS:
                values = {**kind, "Tindices": write.attrs["Tindices"]}
            name = self._unused(f"{write.name}/changed")
            made.append(Node(name, op, (before, *given), values))
            given = [name]
        waits = tuple(f"^{name}" for name in control_inputs(write))
        name = self._unused(f"{write.name}/written")
        return (*made, Node(name, "Identity", (given[0], *waits), kind))

    def _unused(self, name: str) -> str:
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name

    def _lead(
        self,
        variable: str,
        handle: Handle,
        sources: Mapping[str, str],
        values: Mapping[str, tuple[Node, ...] | None],
    ) -> None:
        """Puts the values into the graph, and lets those that read take them."""
        nodes: dict[str, Node] = {}
        for name, node in self.nodes.items():
            nodes[name] = node
            if name in sources:
                nodes[name] = self._reading(node, variable, sources[name])
            made = values.get(name) or ()
            if made and self._is_temporary(variable):
                nodes[name] = Node(name, "NoOp", (f"^{made[-1].name}",))
            nodes.update({new.name: new for new in made})
            if made:
                self.written[made[-1].name] = handle._replace(variables=())
        self.nodes = nodes

    def _reading(self, node: Node, variable: str, value: str) -> Node:
        inputs = tuple(
            value if t in self._handles and variable in self._handles[t].variables else t
            for t in node.inputs
        )
        if node.op == _DESTROY:
            return Node(node.name, "Identity", inputs, {"T": node.attrs["T"]}, node.device)
        return node._replace(inputs=inputs)

    def _is_temporary(self, variable: str) -> bool:
        return variable in self.nodes and self.nodes[variable].op == TEMPORARY

    def result(self) -> Mapping[str, Node]:
        return {**self.nodes, **self._others}


def _hands_on(node: Node, handle: Handle) -> bool:
    """Whether a node's first output is the handle that it takes."""
    if handle.is_ref:
        return node.op == "RefIdentity" or bool(WRITES.match(node.op) and node.op != _DESTROY)
    return node.op == "Identity"


def _checks_shape(write: Node) -> bool:
    """Whether a write refuses a value of another shape than the variable's."""
    if write.op in _SUMS:
        return True
    default = write.op == "Assign"
    told = write.attrs.get("validate_shape")
    return write.op in ASSIGNS and (default if told is None else told == attrs.of_bool(True))
