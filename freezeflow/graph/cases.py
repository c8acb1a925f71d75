"""Case as Ifs in each other, for targets that have no choice among more than two branches.

As many questions lie on the way to each branch as a balanced tree has levels. An index that is out of
range takes the last branch, as upstream ``core/kernels/functional_ops.cc`` has it: below zero it goes to the
upper half all along.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Container, Iterable, Mapping, Sequence

from freezeflow.graph import attrs
from freezeflow.graph.canonical import canonical
from freezeflow.graph.constants import const
from freezeflow.graph.graph import Arg, Node, control_inputs, data_inputs, join
from freezeflow.graph.inline import instantiate
from freezeflow.graph.library import Library, free
from freezeflow.graph.model import Model
from freezeflow.values import DType

_IFS = {"Case": "If", "StatelessCase": "StatelessIf"}


def with_ifs_for_cases(model: Model) -> Model:
    """The model with Ifs in place of each Case, in functions, too; names stay.

    Args:
        model: A model.

    Returns:
        The model in canonical form; the very same where it has no Case.
    """
    graph = model.graph
    bodies = [graph.nodes, *(function.nodes for function in graph.functions.values())]
    if not any(node.op in _IFS for nodes in bodies for node in nodes.values()):
        return model
    library = Library(graph)
    nodes = _rewritten(graph.nodes, library)
    library.rewrite(
        lambda function: dataclasses.replace(
            function, nodes=_rewritten(function.nodes, library, function.args)
        )
    )
    graph = dataclasses.replace(graph, nodes=nodes, functions=library.functions)
    return canonical(dataclasses.replace(model, graph=graph))


def _rewritten(
    nodes: Mapping[str, Node], library: Library, args: Iterable[Arg] = ()
) -> dict[str, Node]:
    """The nodes of a body, the main graph's or a function's, with Ifs in place of each Case."""
    made = dict(nodes)
    for node in nodes.values():
        if node.op not in _IFS:
            continue
        calls = attrs.to_functions(node.attrs["branches"])
        if all(name in library.functions for name, _ in calls):
            index, *given = data_inputs(node)
            taken = {*nodes, *(arg.name for arg in args)}
            *asked, chosen = _Tree(node, calls, library).nodes(
                index, given, range(len(calls)), taken
            )
            waits = (f"^{name}" for name in control_inputs(node))
            chosen = chosen._replace(name=node.name, inputs=(*chosen.inputs, *waits))
            made.update((each.name, each) for each in (*asked, chosen))
    return made


class _Tree:
    """The Ifs that stand for one Case.

    Args:
        case: The Case.
        calls: Its branches, of which there is one at least, with what fills their placeholders.
        library: Gets the functions.
    """

    def __init__(
        self, case: Node, calls: Sequence[tuple[str, Mapping[str, bytes]]], library: Library
    ) -> None:
        self._case = case
        self._calls = calls
        self._library = library

    def nodes(
        self, index: str, given: Sequence[str], among: range, taken: Container[str]
    ) -> list[Node]:
        """An If among some branches, behind what decides.

        Args:
            index: The tensor that holds the index.
            given: What the branches are given.
            among: Their numbers.
            taken: Names that the nodes must not have.
        """
        middle = among.start + (len(among) + 1) // 2
        asked = self._asked(index, middle, among, taken)
        is_last = len(among) <= 2
        sides = {
            "then_branch": range(among.start, middle),
            "else_branch": range(middle, among.stop),
        }
        values = {
            "Tcond": attrs.of_type(DType.BOOL),
            "Tin": attrs.of_types(self._types if is_last else [DType.INT32, *self._types]),
            "Tout": self._case.attrs["Tout"],
            **{
                key: self._side(side or sides["then_branch"], is_last)
                for key, side in sides.items()
            },
            **{k: data for k, data in self._case.attrs.items() if k == "output_shapes"},
        }
        inputs = (asked[-1].name, *(given if is_last else (index, *given)))
        name = free(taken, f"{self._case.name}/if")
        return [*asked, Node(name, _IFS[self._case.op], inputs, values, self._case.device)]

    @property
    def _types(self) -> tuple[DType, ...]:
        return attrs.to_types(self._case.attrs["Tin"])

    def _asked(self, index: str, middle: int, among: range, taken: Container[str]) -> list[Node]:
        """Whether the index is below the middle, and not below zero where it may be."""

        def compared(word: str, op: str, number: int) -> list[Node]:
            name = free(taken, f"{self._case.name}/{word}")
            limit = const(free(taken, f"{name}/y"), DType.INT32, (), struct.pack("<i", number))
            kind = {"T": attrs.of_type(DType.INT32)}
            return [limit, Node(name, op, (index, limit.name), kind, self._case.device)]

        asked = compared("is_below", "Less", middle)
        if among.stop < len(self._calls):
            return asked
        asked += compared("is_number", "GreaterEqual", 0)
        both = (asked[1].name, asked[3].name)
        name = free(taken, f"{self._case.name}/is_first")
        return [*asked, Node(name, "LogicalAnd", both, {}, self._case.device)]

    def _side(self, among: range, is_last: bool) -> bytes:
        """A ``func`` attribute: a branch, or a function that chooses among several by the index."""
        called, bindings = self._calls[among.start]
        if is_last:
            return attrs.of_function(called, bindings)
        function = instantiate(self._library.functions[called], bindings)
        taken = {*function.nodes, *(arg.name for arg in function.args)}
        index = Arg(free(taken, "index"), DType.INT32)
        if len(among) == 1:
            grown = dataclasses.replace(function, args=(index, *function.args))
            return attrs.of_function(self._library.add(grown))
        args = {arg.name: arg.dtype for arg in (index, *function.args)}
        nodes = self.nodes(index.name, [arg.name for arg in function.args], among, args)
        results = [
            (join(nodes[-1].name, number), result.dtype)
            for number, result in enumerate(function.results)
        ]
        name = f"{self._case.name}_from_{among.start}_to_{among[-1]}"
        body = {node.name: node for node in nodes}
        return attrs.of_function(self._library.make(name, args, results, body))
