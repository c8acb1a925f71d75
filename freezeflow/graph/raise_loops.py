"""TF1's loops of frames as While with functions for its condition and its body.

What goes round in a frame is a variable of the loop: its Merge is an argument, what its NextIteration
gets a result, its Exit an output of the While. What enters once and stays the same (``is_constant``) is an
argument that the body hands on, or a constant of both functions. What leads to the LoopCond is the
condition, what leads to the NextIterations the body; what leads to both is in both. Source of the form:
upstream ``core/graph/control_flow.cc`` and ``python/ops/control_flow_ops.py`` (``WhileContext``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from freezeflow.graph import attrs
from freezeflow.graph.frames import Path, frames_of
from freezeflow.graph.graph import Node, control_inputs, data_inputs, join, node_of
from freezeflow.graph.library import Library, free
from freezeflow.graph.walk import inputs_first
from freezeflow.values import DType

_EXITS = frozenset({"Exit", "RefExit"})

# What makes a frame, beside the Merge and the Switch of its variables.
_OF_FRAMES = _EXITS | {"Enter", "RefEnter", "NextIteration", "RefNextIteration", "LoopCond"}


class _Irregular(Exception):
    """A loop that no While can stand for."""


def with_whiles(nodes: Mapping[str, Node], library: Library) -> Mapping[str, Node]:
    """The nodes of a body with a While for each loop for which there can be one; names of Exits stay.

    Args:
        nodes: The main graph's nodes or a function's, all of them needed.
        library: Gets the functions.
    """
    frames = frames_of(nodes)
    if not frames:
        return nodes
    made = dict(nodes)
    inside: dict[Path, list[str]] = {}
    for name, path in frames.items():
        inside.setdefault(path, []).append(name)
    exits: dict[Path, list[str]] = {}
    for node in nodes.values():
        if node.op in _EXITS:
            exits.setdefault(frames[node_of(node.inputs[0])], []).append(node.name)
    for path in sorted(inside, key=lambda path: (-len(path), path)):
        try:
            loop = _Loop(made, inside[path], library)
            raised = loop.raised([made[name] for name in exits.get(path, ())])
        except _Irregular:
            continue
        for name in inside[path]:
            del made[name]
        made.update({node.name: node for node in raised})
        inside.setdefault(path[:-1], []).append(raised[0].name)
    return made


class _Variable(NamedTuple):
    """What goes round: the Merge at its head, and what leads into it."""

    head: Node
    enter: Node
    back: Node


class _Loop:
    """One frame.

    Args:
        nodes: All nodes of the body that the loop is in; loops within it are a While already.
        members: Those in the frame.
        library: Gets the functions.

    Raises:
        _Irregular: It is not built as loops are.
    """

    def __init__(self, nodes: Mapping[str, Node], members: Iterable[str], library: Library) -> None:
        self._around = nodes
        self._nodes = {name: nodes[name] for name in members}
        self._library = library
        self._test = self._only_test()
        self._variables = [
            _Variable(node, *self._entries(node))
            for node in self._nodes.values()
            if node.op == "Merge" and self._is_head(node)
        ]
        # Tensors that are arguments of both functions, and of the body alone, with their numbers.
        self._given = {v.head.name: number for number, v in enumerate(self._variables)}
        self._inputs = [(v.enter.inputs[0], v.enter) for v in self._variables]
        self._place_constants()
        self._switched: dict[str, int] = {}
        self._left: dict[str, int] = {}
        self._place_switches()

    # ------------------------------------------------------------ its parts

    def _only_test(self) -> Node:
        tests = [node for node in self._nodes.values() if node.op == "LoopCond"]
        if len(tests) != 1:
            raise _Irregular
        return tests[0]

    def _is_head(self, merge: Node) -> bool:
        return any(self._op(tensor) == "NextIteration" for tensor in data_inputs(merge))

    def _op(self, tensor: str) -> str:
        node = self._nodes.get(node_of(tensor))
        return "" if node is None else node.op

    def _entries(self, head: Node) -> tuple[Node, Node]:
        """The Enter and the NextIteration of a variable."""
        found = {self._op(tensor): self._nodes.get(tensor) for tensor in head.inputs}
        enter, back = found.get("Enter"), found.get("NextIteration")
        if len(head.inputs) != 2 or enter is None or back is None or _is_constant(enter):
            raise _Irregular
        return enter, back

    def _place_constants(self) -> None:
        """What does not change: an argument each, or a constant of the functions if it is a small one."""
        places: dict[str, int] = {}
        for enter in [n for n in self._nodes.values() if n.op == "Enter" and _is_constant(n)]:
            tensor = enter.inputs[0]
            source = self._around.get(tensor)
            if source is not None and source.op == "Const" and source.tensor is None:
                self._nodes[enter.name] = source._replace(name=enter.name, inputs=())
                continue
            if tensor not in places:
                places[tensor] = len(self._inputs)
                self._inputs.append((tensor, enter))
            self._given[enter.name] = places[tensor]

    def _place_switches(self) -> None:
        for node in self._nodes.values():
            if node.op != "Switch" or self._plain(node.inputs[1]) != self._test.name:
                continue
            number = self._given.get(self._plain(node.inputs[0]))
            if number is None:
                raise _Irregular
            self._left[node.name] = self._switched[join(node.name, 1)] = number

    def _plain(self, tensor: str) -> str:
        """The tensor that a tensor is."""
        while self._op(tensor) == "Identity":
            node = self._nodes[tensor]
            if len(node.inputs) > 1:
                break
            tensor = node.inputs[0]
        return tensor

    # ------------------------------------------------------------ the While

    def raised(self, exits: Sequence[Node]) -> list[Node]:
        """The While, and what stands for each Exit."""
        kinds = [attrs.to_type(enter.attrs["T"]) for _, enter in self._inputs]
        condition = self._reached([self._test])
        body = self._reached([v.back for v in self._variables], self._switched)
        self._check_effects(condition, body)
        parent = self._test.name.rpartition("/")[0] or self._test.name
        functions = {
            "cond": self._function(f"{parent}_cond", kinds, condition, [self._test]),
            "body": self._function(
                f"{parent}_body", kinds, body, [v.back for v in self._variables]
            ),
        }
        called = [self._library.functions[name] for name in functions.values()]
        waits = [f"^{n}" for _, enter in self._inputs for n in control_inputs(enter)]
        loop = Node(
            free(self._around, f"{parent}/while"),
            "While" if any(function.is_stateful for function in called) else "StatelessWhile",
            (*(tensor for tensor, _ in self._inputs), *dict.fromkeys(waits)),
            {
                "T": attrs.of_types(kinds),
                **{key: attrs.of_function(name) for key, name in functions.items()},
                **{
                    key: value
                    for key, value in self._inputs[0][1].attrs.items()
                    if key == "parallel_iterations"
                },
            },
        )
        return [loop, *(self._outside(node, loop.name) for node in exits)]

    def _outside(self, leaving: Node, loop: str) -> Node:
        tensor, *waits = leaving.inputs
        number = self._left.get(self._plain(tensor))
        if number is None or waits or leaving.op != "Exit":
            raise _Irregular
        kind = {"T": leaving.attrs["T"]}
        return Node(leaving.name, "Identity", (join(loop, number),), kind, leaving.device)

    def _reached(self, ends: Iterable[Node], more: Mapping[str, int] | None = None) -> set[str]:
        """Names of the nodes that some ends need, the ends left out.

        Args:
            ends: NextIterations, or the LoopCond.
            more: Tensors that are arguments as well.
        """
        stops = self._given.keys() | (more or {}).keys()
        found: set[str] = set()
        stack = [tensor for end in ends for tensor in end.inputs]
        while stack:
            tensor = stack.pop()
            name = node_of(tensor)
            if tensor in stops or name in found or self._is_implied(tensor):
                continue
            node = self._nodes.get(name)
            if node is None or node.op in _OF_FRAMES or name in self._given or name in self._left:
                raise _Irregular
            found.add(name)
            stack += node.inputs
        return found

    def _is_implied(self, tensor: str) -> bool:
        """Whether it is a wait for what is there before a round begins."""
        name = tensor[1:]
        node = self._nodes.get(name)
        return tensor.startswith("^") and (
            name in self._given
            or name in self._left
            or (node is not None and node.op in ("Enter", "LoopCond"))
        )

    def _check_effects(self, condition: set[str], body: set[str]) -> None:
        """Lets pass what happens as often in the functions as it does in the frame.

        What waits for no Switch happens in the last round, too, in which the body is not called.
        """
        once_more: set[str] = set()
        for name in inputs_first({name: self._nodes[name] for name in body}):
            node = self._nodes[name]
            if not any(
                tensor in self._switched or (node_of(tensor) in body - once_more)
                for tensor in node.inputs
            ):
                once_more.add(name)
        for name in body & (condition | once_more):
            if self._library.is_stateful(self._nodes[name]):
                raise _Irregular

    def _function(
        self, name: str, kinds: Sequence[DType], inner: set[str], ends: Sequence[Node]
    ) -> str:
        """A function of the condition or the body, with its ends as what they hand on.

        Args:
            name: What it should be called.
            kinds: Dtypes of all that is given.
            inner: Names of its nodes, its ends left out.
            ends: The LoopCond, or the NextIterations.
        """
        nodes = {n: node for n, node in self._nodes.items() if n in inner}
        for end in ends:
            kind = end.attrs.get("T", attrs.of_type(DType.BOOL))
            nodes[end.name] = Node(end.name, "Identity", end.inputs, {"T": kind}, end.device)
        args = [free(nodes, f"arg_{number}") for number in range(len(kinds))]
        places = {**self._given, **self._switched}

        def moved(tensor: str) -> str:
            return args[places[tensor]] if tensor in places else tensor

        nodes = {
            n: node._replace(inputs=tuple(moved(t) for t in node.inputs if not self._is_implied(t)))
            for n, node in nodes.items()
        }
        results = [(end.name, attrs.to_type(nodes[end.name].attrs["T"])) for end in ends]
        if self._test not in ends:
            results += [(args[n], kinds[n]) for n in range(len(ends), len(kinds))]
        return self._library.make(name, dict(zip(args, kinds, strict=True)), results, nodes)


def _is_constant(enter: Node) -> bool:
    flag = enter.attrs.get("is_constant")
    return flag is not None and bool(attrs.message(flag).b)
