"""Loops of TF1 frames made visible: which round to look at, and how its tensors hang together.

A tensor in a frame holds another value in each round. All rounds of both sides are recorded; looked at
is the first one out of which anything goes that differs. What went into it agrees, because what went out of
the rounds before did, so in this round the node at which the difference begins is one whose inputs agree,
as it is outside of loops. `as_traced` says so to the search: a loop's head takes nothing from the round
before, and what leaves a loop depends on everything that goes round in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from typing import NamedTuple

from freezeflow.graph import attrs, walk
from freezeflow.graph.constants import const
from freezeflow.graph.frames import Path, frames_of
from freezeflow.graph.graph import Graph, Node, data_inputs, join, node_of
from freezeflow.proof.dtypes import Array
from freezeflow.values import DType

_ENTERS = frozenset({"Enter", "RefEnter"})
EXITS = frozenset({"Exit", "RefExit"})
BACK = frozenset({"NextIteration", "RefNextIteration"})

# Numbers of rounds, one for each frame of a path.
Round = tuple[int, ...]

# Tensor to what it held in each round in which it was alive.
Recorded = Mapping[str, Mapping[Round, Array]]

CLOCK = "freezeflow_clock"


class Record(NamedTuple):
    """What one side's loops held.

    Args:
        frames: Node to the frames that it is in; those outside of loops are left out.
        seen: The tensors.
        watched: All that would have been noted.
        leaving: Those of them that go out of a round: see `leaving`.
        whole: Whether all rounds are there; else the first ones.
    """

    frames: Mapping[str, Path]
    seen: Recorded
    watched: tuple[str, ...]
    leaving: Set[str]
    whole: bool


# ---------------------------------------------------------------- counting rounds


def with_clocks(graph: Graph) -> tuple[Graph, dict[Path, tuple[str, ...]]]:
    """A graph in which each loop counts its rounds.

    Returns:
        The graph, and the tensors that hold the numbers (int32, scalars) in each frame, one for the
        frame itself and one for each around it. A frame without a LoopCond has none.
    """
    frames = frames_of(graph.nodes)
    tests = {frames[n.name]: n for n in graph.nodes.values() if n.op == "LoopCond"}
    enters = {frames[n.name]: n for n in reversed(list(graph.nodes.values())) if n.op in _ENTERS}
    nodes = dict(graph.nodes)
    clocks: dict[Path, tuple[str, ...]] = {(): ()}
    for number, path in enumerate(sorted(tests, key=len)):
        if path[:-1] in clocks and path in enters:
            clock = _Clock(nodes, f"{CLOCK}_{number}", enters[path])
            clocks[path] = clock.add(clocks[path[:-1]], tests[path])
    del clocks[()]
    return Graph(
        nodes=nodes,
        functions=graph.functions,
        producer=graph.producer,
        min_consumer=graph.min_consumer,
        op_defs=graph.op_defs,
    ), clocks


class _Clock:
    """A variable of a loop that counts."""

    def __init__(self, nodes: dict[str, Node], name: str, enter: Node) -> None:
        self._nodes = nodes
        self._name = name
        self._enter = enter

    def add(self, around: tuple[str, ...], test: Node) -> tuple[str, ...]:
        kind = attrs.of_type(DType.INT32)
        outer = tuple(
            self._entered(f"around_{n}", tensor, constant=True) for n, tensor in enumerate(around)
        )
        if around:
            zero = self._add("zero", "ZerosLike", (around[-1],), T=kind)
        else:
            zero = f"{self._name}/zero"
            self._nodes[zero] = const(zero, DType.INT32, (), bytes(4))
        start = self._entered("enter", zero, constant=False)
        back = f"{self._name}/next"
        head = self._add("merge", "Merge", (start, back), T=kind, N=attrs.of_int(2))
        on = self._add("switch", "Switch", (head, test.name), T=kind)
        one = self._add("one", "OnesLike", (join(on, 1),), T=kind)
        more = self._add("more", "AddV2", (join(on, 1), one), T=kind)
        self._add("next", "NextIteration", (more,), T=kind)
        return (*outer, head)

    def _entered(self, name: str, tensor: str, *, constant: bool) -> str:
        values = {
            "T": attrs.of_type(DType.INT32),
            "frame_name": self._enter.attrs["frame_name"],
            "is_constant": attrs.of_bool(constant),
            "parallel_iterations": self._enter.attrs.get("parallel_iterations", attrs.of_int(10)),
        }
        return self._add(name, "Enter", (tensor,), **values)

    def _add(self, name: str, op: str, inputs: tuple[str, ...], **values: bytes) -> str:
        full = f"{self._name}/{name}"
        self._nodes[full] = Node(full, op, inputs, values)
        return full


# ---------------------------------------------------------------- which round


def first_rounds(
    original: Record,
    result: Record,
    twins: Mapping[str, str],
    same: Callable[[Array, Array], bool],
) -> tuple[dict[Path, Round], dict[Path, Round], set[Path]]:
    """The first round of each frame out of which anything goes that differs.

    Where nothing does, one in which anything differs; where nothing does that, the first.

    Args:
        original: What the original's loops held.
        result: What the result's held.
        twins: Node of the result to the node of the original that should do the same.
        same: Whether two values are close enough.

    Returns:
        Frames of the original, and of the result, to the numbers of the round; and the frames of the
        result in which something differs.
    """
    whole = original.whole and result.whole
    differ: dict[str, list[Round]] = {}
    for tensor, here in result.seen.items():
        name = node_of(tensor)
        twin = twins.get(name, "") + tensor[len(name) :]
        if twin in original.seen:
            differ[tensor] = list(_differing(original.seen[twin], here, same, whole=whole))
    chosen: dict[Path, Round] = {(): ()}
    unlike = set()
    for path in sorted(set(result.frames.values()), key=len):
        number = _first_number(result, differ, path, chosen[path[:-1]])
        chosen[path] = (*chosen[path[:-1]], number or 0)
        if number is not None:
            unlike.add(path)
    there: dict[Path, Round] = {}
    for name, path in result.frames.items():
        other = original.frames.get(twins.get(name, ""))
        if other is not None and len(other) == len(path):
            there.setdefault(other, chosen[path])
    for path in original.frames.values():
        there.setdefault(path, (0,) * len(path))
    return there, chosen, unlike


def _first_number(
    result: Record, differ: Mapping[str, Iterable[Round]], path: Path, before: Round
) -> int | None:
    """The number of the round of a frame to look at; None where nothing in it differs."""
    found: dict[int, list[int]] = {}
    for tensor, rounds in differ.items():
        other = result.frames[node_of(tensor)]
        if other[: len(path)] == path:
            # Not all that differs in a round goes on: an inner loop may give what it should after all.
            worth = 2 if tensor not in result.leaving else 0 if other == path else 1
            numbers = [number[len(before)] for number in rounds if number[: len(before)] == before]
            found.setdefault(worth, []).extend(numbers)
    return next((min(found[worth]) for worth in sorted(found) if found[worth]), None)


def _differing(
    there: Mapping[Round, Array],
    here: Mapping[Round, Array],
    same: Callable[[Array, Array], bool],
    *,
    whole: bool,
) -> Iterable[Round]:
    for number in there.keys() | here.keys():
        if number not in there or number not in here:
            if whole:
                yield number
        elif not same(there[number], here[number]):
            yield number


# ---------------------------------------------------------------- how tensors hang together


def leaving(
    nodes: Mapping[str, Node], frames: Mapping[str, Path], watched: Iterable[str]
) -> set[str]:
    """What goes out of a round of a loop, of the tensors of which the values are noted.

    That is what goes into the next round, whether there is one, and what is put into lists, arrays and
    variables, whose own values cannot be noted.
    """
    known = set(watched)
    seen = {node_of(tensor) for tensor in known}
    keep = {name for name in frames if name not in seen and nodes[name].op not in EXITS}
    found = {t for t in known if nodes[node_of(t)].op in BACK | {"LoopCond"}}
    return found | {t for name in keep for t in data_inputs(nodes[name]) if t in known}


_HANDS_ON = (
    frozenset({"Identity", "Switch", "RefSwitch", "Merge", "RefMerge"}) | _ENTERS | EXITS | BACK
)


def exits_of(nodes: Mapping[str, Node], frames: Mapping[str, Path], wanted: Set[Path]) -> set[str]:
    """The nodes at which some frames are left."""
    return {
        node.name
        for node in nodes.values()
        if node.op in EXITS and frames.get(node_of(node.inputs[0]), ()) in wanted
    }


def behind_loops(nodes: Mapping[str, Node]) -> set[str]:
    """The nodes that wait for some loop to end."""
    found: set[str] = set()
    for name in walk.inputs_first(nodes):
        node = nodes[name]
        if node.op in EXITS or any(node_of(tensor) in found for tensor in node.inputs):
            found.add(name)
    return found


def as_traced(nodes: Mapping[str, Node], frames: Mapping[str, Path]) -> dict[str, Node]:
    """Nodes with inputs that say what a tensor of the round that is looked at comes from.

    A loop's head takes what enters; what leaves a loop takes, besides, what goes round in it.
    """
    found = dict(nodes)
    back: dict[Path, list[str]] = {}
    for name, path in frames.items():
        if nodes[name].op in BACK or nodes[name].op == "LoopCond":
            back.setdefault(path, []).append(name)
    for name, node in nodes.items():
        if node.op in ("Merge", "RefMerge"):
            inputs = tuple(t for t in node.inputs if nodes[node_of(t)].op not in BACK)
        elif node.op in EXITS:
            path = frames.get(node_of(node.inputs[0]), ())
            more = (t for t in sorted(back.get(path, ())) if t not in node.inputs)
            # Control inputs come last.
            inputs = tuple(sorted((*node.inputs, *more), key=lambda t: t.startswith("^")))
        else:
            continue
        found[name] = node._replace(inputs=inputs)
    return found


def array_flows(nodes: Mapping[str, Node]) -> set[str]:
    """The numbers by which ops on tensor arrays are ordered: they say nothing of what the arrays hold."""
    takers = walk.consumers(nodes)
    made = [join(n.name, 1) for n in nodes.values() if n.op == "TensorArrayV3"]
    writes = tuple(f"TensorArray{word}" for word in ("Write", "Scatter", "Split", "Unpack"))
    made += [n.name for n in nodes.values() if n.op.startswith(writes)]
    found = set(made)
    while made:
        tensor = made.pop()
        for name in takers.get(node_of(tensor), ()):
            node = nodes[name]
            if node.op in _HANDS_ON and tensor in node.inputs and name not in found:
                more = [name, join(name, 1)] if node.op in ("Switch", "RefSwitch") else [name]
                found.update(more)
                made += more
        for name in takers.get(node_of(tensor), ()):
            node = nodes[name]
            if node.op == "IdentityN":
                places = [i for i, t in enumerate(data_inputs(node)) if t == tensor]
                more = [t for t in (join(name, i) for i in places) if t not in found]
                found.update(more)
                made += more
    return found
