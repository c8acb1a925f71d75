"""One scope (the main graph or a function's body) while rules rewrite it.

What must stay true whatever a rule does is kept here, in one place: names that are known outside
stay; whoever waited for a node goes on waiting for what that node waited for; a tensor that TF1
control flow may leave dead is not replaced by one that is always alive; nothing that could refuse an
input goes unnoticed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from freezeflow.graph import attrs
from freezeflow.graph.effects import V1_CONTROL_FLOW
from freezeflow.graph.foldable import Scope
from freezeflow.graph.graph import Graph, Node, called_functions, data_inputs, join, node_of, split
from freezeflow.graph.node_types import NodeTypes
from freezeflow.graph.tensor_values import elements
from freezeflow.graph.walk import inputs_first
from freezeflow.values import DType

_INTEGERS = frozenset({DType.INT32, DType.INT64})
_SMALL = 64


class Body:
    """A scope's nodes, with their users kept up to date.

    Args:
        graph: The graph that the scope belongs to.
        scope: The scope; its nodes are copied.
        types: Of the graph.

    Raises:
        ModelRefused: The scope has a cycle.
    """

    def __init__(self, graph: Graph, scope: Scope, types: NodeTypes) -> None:
        self.graph = graph
        self.types = types
        self.nodes = dict(scope.nodes)
        self.fed = scope.fed
        self.known: Collection[str] = {node_of(tensor) for tensor in scope.wanted} | scope.fed
        self.order = inputs_first(self.nodes)
        self.users: dict[str, dict[str, None]] = {}
        # Nodes that some other one waits for, or did once.
        self.awaited: set[str] = set()
        self._touched: dict[str, None] = {}
        for name in self.order:
            self._note(self.nodes[name])
        self._bound = _bound(self.order, self.nodes)

    def _note(self, node: Node) -> None:
        for tensor in node.inputs:
            name = node_of(tensor)
            self.users.setdefault(name, {})[node.name] = None
            if tensor[0] == "^":
                self.awaited.add(name)

    @property
    def is_touched(self) -> bool:
        """Whether anything has changed since `take_touched` was asked."""
        return bool(self._touched)

    def take_touched(self) -> list[str]:
        """Nodes around which something has changed since this was asked the last time."""
        touched, self._touched = self._touched, {}
        return [name for name in touched if name in self.nodes]

    def users_of(self, name: str) -> list[Node]:
        """The nodes that take an output of a node, or wait for it."""
        return [self.nodes[user] for user in self.users.get(name, ()) if user in self.nodes]

    def source(self, tensor: str) -> Node | None:
        """The node that gives a tensor; None for a function's argument."""
        return self.nodes.get(node_of(tensor))

    # ------------------------------------------------------------ what is known of tensors

    def dtype(self, tensor: str) -> DType | None:
        """The dtype of a node's output; None where it is not known, and for arguments."""
        name, index = split(tensor)
        node = self.nodes.get(name)
        outputs = None if node is None else self.types.ends(node).outputs
        return None if outputs is None or index >= len(outputs) else outputs[index]

    def integers(self, tensor: str) -> tuple[int, ...] | None:
        """The elements of a small constant of int32 or int64, whatever its shape; else None."""
        node = self.source(tensor)
        if node is None or node.op != "Const" or node.name in self.fed or node.tensor is not None:
            return None
        if "value" not in node.attrs or self.dtype(tensor) not in _INTEGERS:
            return None
        message = attrs.message(node.attrs["value"]).tensor
        count = 1
        for dim in message.tensor_shape.dim:
            count *= dim.size
        return tuple(elements(message)) if 0 <= count <= _SMALL else None

    def is_loose(self, tensor: str) -> bool:
        """Whether leaving a tensor out of a node's inputs takes neither a wait nor a mark of life away.

        Not so where it, or something before it, waits for a node or comes from TF1 control flow.
        """
        return node_of(tensor) not in self._bound

    # ------------------------------------------------------------ rewriting

    def forward(self, node: Node, sources: Sequence[str]) -> bool:
        """Takes out a node whose outputs are these tensors; False where it has to stay.

        It stays where its name is known outside, where it asks for another device than its sources,
        where it waits for something, where it reads a reference, and where something waits for it and
        that could not as well wait for its sources.
        """
        if not self._may_go(node, sources):
            return False
        moved = {join(node.name, index): source for index, source in enumerate(sources)}
        waits = dict.fromkeys(node_of(source) for source in sources)
        self.take_out(node, moved, tuple(waits))
        return True

    def take_out(self, node: Node, moved: Mapping[str, str], waits: Sequence[str]) -> None:
        """Takes a node out: its outputs become other tensors, waiting for it waiting for others."""
        gone = f"^{node.name}"
        for user in self.users_of(node.name):
            data = [moved.get(tensor, tensor) for tensor in data_inputs(user)]
            control: dict[str, None] = {}
            for tensor in user.inputs:
                if tensor == gone:
                    control.update(dict.fromkeys(f"^{name}" for name in waits))
                elif tensor.startswith("^"):
                    control[tensor] = None
            self.put(user._replace(inputs=(*data, *control)))
        self.drop(node.name)

    def put(self, node: Node) -> None:
        """Adds a node, or replaces the one of its name by one that gives the same."""
        before = self.nodes.get(node.name)
        self.nodes[node.name] = node
        self._touched[node.name] = None
        self._touched.update(dict.fromkeys(map(node_of, node.inputs)))
        if before is not None:
            for tensor in before.inputs:
                self.users.get(node_of(tensor), {}).pop(node.name, None)
        self._note(node)
        if node.name in self._bound or any(
            tensor.startswith("^") or node_of(tensor) in self._bound for tensor in node.inputs
        ):
            self._bound.add(node.name)

    def drop(self, name: str) -> None:
        """Takes out a node that nobody uses."""
        for tensor in self.nodes.pop(name).inputs:
            source = node_of(tensor)
            self.users.get(source, {}).pop(name, None)
            self._touched[source] = None
        self.users.pop(name, None)

    def unique(self, name: str) -> str:
        """A name that no node has yet."""
        while name in self.nodes:
            name += "_"
        return name

    def _may_go(self, node: Node, sources: Sequence[str]) -> bool:
        if node.name in self.known or not all(self._is_placed(node, t) for t in sources):
            return False
        if any(tensor.startswith("^") for tensor in node.inputs):
            return False
        if any(map(self._is_reference, sources)):
            return False
        if node.name in self.awaited:
            return all(map(self.can_be_awaited, sources))
        return True

    def _is_placed(self, node: Node, tensor: str) -> bool:
        """Whether a tensor is where a node asks to run, if it asks."""
        source = self.source(tensor)
        return not node.device or (source is not None and source.device == node.device)

    def _is_reference(self, tensor: str) -> bool:
        """Whether a tensor may be a reference to a TF1 variable: reading one takes a copy in time."""
        source = self.source(tensor)
        if source is None:
            return False
        ends = self.types.ends(source)
        return not ends.known or bool(ends.ref_outputs)

    def can_be_awaited(self, tensor: str) -> bool:
        """Whether waiting for a tensor's node is as good as waiting for the tensor.

        Not behind TF1 control flow, and not behind a call (If, While): its results wait for what
        happens inside, a control edge from the call itself does not.
        """
        node = self.source(tensor)
        return (
            node is not None and node.op not in V1_CONTROL_FLOW and not any(called_functions(node))
        )


def _bound(order: Sequence[str], nodes: Mapping[str, Node]) -> set[str]:
    """The nodes that wait for something, or that TF1 control flow may leave dead, and all behind."""
    bound: set[str] = set()
    for name in order:
        node = nodes[name]
        if node.op in V1_CONTROL_FLOW or any(
            tensor.startswith("^") or node_of(tensor) in bound for tensor in node.inputs
        ):
            bound.add(name)
    return bound
