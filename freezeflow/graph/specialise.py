"""Functions of a library rewritten for the handles that their callers give them.

A function that two callers give different variables (or tables) becomes two functions; bodies that
come out equal are kept once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from freezeflow.graph.freeze_scope import Rules, Scope, Specialised
from freezeflow.graph.graph import Arg, ControlResult, Function, Graph, Node
from freezeflow.graph.handles import Handle


class Specialiser:
    """The functions of one model, each rewritten once for the same handles.

    Args:
        graph: The graph as it was.

    Attributes:
        functions: The rewritten functions.
        met: In their bodies, the resources of each handle that may be one of several.
    """

    rules: Rules

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.functions: dict[str, Function] = {}
        self.met: list[tuple[str, ...]] = []
        self._made: dict[tuple[str, tuple[Handle | None, ...]], Specialised] = {}

    def specialise(self, name: str, given: tuple[Handle | None, ...]) -> Specialised:
        """A function of the library, rewritten for the handles that it is given."""
        if (name, given) not in self._made:
            self._made[name, given] = self._specialise(self.graph.functions[name], given)
        return self._made[name, given]

    def constant(self, node: Node) -> tuple[Node | None, Handle] | None:
        """The node that a resource becomes, and its handle; see `freeze_scope.Freezer`."""
        raise NotImplementedError

    def is_value_of(self, constant: Node, variable: str) -> bool:
        """Whether a Const is what a resource holds anyway; see `freeze_scope.Freezer`."""
        return False

    def not_known(self, node: Node, resources: tuple[str, ...]) -> Exception:
        """What to raise where a node does with resources what is not known."""
        raise NotImplementedError

    def body_of(
        self, function: Function, nodes: Mapping[str, Node]
    ) -> tuple[Mapping[str, Node], tuple[ControlResult, ...]]:
        """What stays of a rewritten body, and which nodes of it a call waits for."""
        raise NotImplementedError

    def _specialise(self, function: Function, given: tuple[Handle | None, ...]) -> Specialised:
        args = zip(function.args, given, strict=True)
        handles = {arg.name: handle for arg, handle in args if handle is not None}
        given_out = [result.tensor for result in function.results]
        scope = Scope(self, function.nodes, dict(handles), results=given_out)
        nodes = scope.run()
        self.met += [h.variables for h in scope.handles.values() if len(h.variables) > 1]
        results = tuple(scope.handles.get(result.tensor) for result in function.results)
        kept, control = self.body_of(function, nodes)
        name = self._emit(_with_values(function, kept, control, handles, results))
        reads = [t for node, touches in scope.reads.items() if node in kept for t in touches]
        return Specialised(name, results, tuple(reads), tuple(scope.writes))

    def _emit(self, body: Function) -> str:
        """Adds a function under a name of its own; an equal body is shared."""
        name, number = body.name, 0
        while name in self.functions:
            if dataclasses.replace(self.functions[name], name=body.name) == body:
                return name
            number += 1
            name = f"{body.name}_{number}"
        self.functions[name] = dataclasses.replace(body, name=name)
        return name


def _with_values(
    function: Function,
    nodes: Mapping[str, Node],
    control: tuple[ControlResult, ...],
    handles: Mapping[str, Handle],
    results: tuple[Handle | None, ...],
) -> Function:
    """A function that takes and gives values where it took and gave handles."""
    return dataclasses.replace(
        function,
        nodes=nodes,
        control_results=control,
        args=tuple(
            Arg(arg.name, handles[arg.name].dtype) if arg.name in handles else arg
            for arg in function.args
        ),
        results=tuple(
            result if handle is None else result._replace(dtype=handle.dtype)
            for result, handle in zip(function.results, results, strict=True)
        ),
    )
