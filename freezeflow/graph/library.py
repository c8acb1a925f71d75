"""A graph's functions while a pass adds its own to them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Container, Mapping, Sequence

from freezeflow.graph.effects import Effects, behind, drop_idle_control
from freezeflow.graph.graph import Arg, ControlResult, Function, Graph, Node, Result, split
from freezeflow.graph.node_types import NodeTypes
from freezeflow.graph.walk import reached_nodes
from freezeflow.values import DType

_NOT_IN_NAMES = re.compile(r"\W+")


def free(taken: Container[str], name: str) -> str:
    """The name, or the first one like it that is not taken."""
    number, unique = 0, name
    while unique in taken:
        number += 1
        unique = f"{name}_{number}"
    return unique


class Library:
    """The functions of one graph.

    Args:
        graph: The graph.

    Attributes:
        functions: Name to function; what is added is in it from then on.
    """

    def __init__(self, graph: Graph) -> None:
        self.functions: dict[str, Function] = dict(graph.functions)
        grown = dataclasses.replace(graph, functions=self.functions)
        self._types = NodeTypes(grown)
        self._effects = Effects(grown)

    def is_stateful(self, node: Node) -> bool:
        """Whether two copies of a node may do another thing than one; so with ops that nobody defines."""
        definition = self._types.definition(node.op)
        return definition is None or definition.is_stateful

    def dtype(self, nodes: Mapping[str, Node], args: Mapping[str, DType], tensor: str) -> DType:
        """The dtype of a tensor of a body; INVALID where it cannot be told."""
        if tensor in args:
            return args[tensor]
        name, index = split(tensor)
        outputs = self._types.ends(nodes[name]).outputs or ()
        return outputs[index] if index < len(outputs) else DType.INVALID

    def add(self, function: Function) -> str:
        """Adds a function, and gives the name that it has got: its own, or one like it."""
        unique = free(self.functions, function.name)
        self.functions[unique] = dataclasses.replace(function, name=unique)
        return unique

    def make(
        self,
        name: str,
        args: Mapping[str, DType],
        results: Sequence[tuple[str, DType]],
        nodes: Mapping[str, Node],
    ) -> str:
        """Makes a function, adds it and gives the name that it has got.

        Args:
            name: What it should be called; characters that no name has are replaced.
            args: Name to dtype, in order.
            results: Tensors and their dtypes, in order.
            nodes: The body.
        """
        made = Function(
            name=_NOT_IN_NAMES.sub("_", name),
            args=tuple(Arg(arg, dtype) for arg, dtype in args.items()),
            results=tuple(
                Result(f"result_{index}", tensor, dtype)
                for index, (tensor, dtype) in enumerate(results)
            ),
            nodes=nodes,
            control_results=tuple(
                ControlResult(node.name, node.name)
                for node in nodes.values()
                if self._effects.node(node)
            ),
            is_stateful=any(map(self.is_stateful, nodes.values())),
        )
        return self.add(made)

    def rewrite(self, change: Callable[[Function], Function]) -> None:
        """Changes every function, those too that are added on the way; templates stay as they are."""
        pending = list(self.functions)
        for name in pending:  # grows while it is walked
            known = set(self.functions)
            if not self.functions[name].attr_defs:
                self.functions[name] = change(self.functions[name])
            pending += [each for each in self.functions if each not in known]

    def tidied(self, function: Function) -> Function:
        """The function without waits for what does nothing, and without what nobody needs."""
        nodes = drop_idle_control(function.nodes, self.worth_waiting_for(function.nodes))
        roots = [result.tensor for result in function.results]
        roots += [control.node for control in function.control_results]
        reached = reached_nodes(nodes, roots)
        kept = {name: node for name, node in nodes.items() if name in reached}
        return dataclasses.replace(function, nodes=kept)

    def worth_waiting_for(self, nodes: Mapping[str, Node]) -> set[str]:
        """The nodes of a body that do something, or that something happens before."""
        return behind(nodes, {name for name, node in nodes.items() if self.is_stateful(node)})
