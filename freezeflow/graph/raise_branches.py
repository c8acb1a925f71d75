"""TF1's Switch and Merge as If, and _SwitchN and Merge as Case, with functions for their branches.

Each node is alive where some choices were made: the side of each Switch on the way to it, its *guard*. A
Merge whose inputs have the same guard but for one choice, one input for each side of it, ends that choice.
What leads from its Switches to it is in the branches; the innermost are raised first. Merges that share a
node of a branch come out of one If, and so do those of one predicate that need not wait for each other.
Source of the semantics of dead tensors: Yu et al., "Dynamic Control Flow in Large-Scale Machine Learning",
EuroSys 2018; of guards: upstream ``compiler/tf2xla/functionalize_cond.cc``.
"""

from __future__ import annotations

import graphlib
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from freezeflow.graph import attrs
from freezeflow.graph.constants import const
from freezeflow.graph.graph import Node, control_inputs, data_inputs, join, node_of, split
from freezeflow.graph.library import Library, free
from freezeflow.graph.walk import inputs_first, reached_nodes
from freezeflow.values import DType

CHOICES = frozenset({"Switch", "RefSwitch", "_SwitchN", "Merge", "RefMerge"})


class _Side(NamedTuple):
    """A choice that was made.

    Args:
        predicate: The tensor that decides.
        cases: How many outputs a _SwitchN has; 0 for a Switch.
        number: Which of its outputs is alive.
    """

    predicate: str
    cases: int
    number: int


_Guard = frozenset[_Side]
_ALWAYS: _Guard = frozenset()


class _End(NamedTuple):
    """What a Merge ends.

    Args:
        around: Its guard.
        predicate: What its choice is made by.
        cases: As in `_Side`.
        numbers: Of each of its inputs, the side that it is alive on.
    """

    around: _Guard
    predicate: str
    cases: int
    numbers: tuple[int, ...]

    @property
    def sides(self) -> list[_Side]:
        """Of each of its inputs."""
        return [_Side(self.predicate, self.cases, number) for number in self.numbers]


class _Irregular(Exception):
    """Choices that no If can stand for."""


def with_ifs(
    nodes: Mapping[str, Node],
    args: Mapping[str, DType],
    roots: Sequence[str],
    library: Library,
) -> Mapping[str, Node]:
    """The nodes of a body with an If for each choice, if there can be one for all; names of Merges stay.

    Args:
        nodes: The main graph's nodes or a function's, all of them needed.
        args: A function's arguments.
        roots: Tensors and nodes that are taken from outside; the indices that Merges give are none.
        library: Gets the functions.
    """
    if not any(node.op in CHOICES for node in nodes.values()):
        return nodes
    before = dict(library.functions)
    try:
        raising = _Raising(nodes, args, library)
        raising.run()
        return raising.finished(roots)
    except _Irregular:
        library.functions.clear()
        library.functions.update(before)
        return nodes


class _Part:
    """Merges that come out of one If, and what leads to them.

    Args:
        end: What they end; the order of their inputs is each one's own.
        merge: The first of them.

    Attributes:
        merges: Their names.
        inside: For each side, the names of the nodes in its branch.
        needs: Names of nodes, or arguments, that the If has to wait for.
    """

    def __init__(self, end: _End, merge: str) -> None:
        self.end = end
        self.merges = [merge]
        self.inside: dict[_Side, dict[str, None]] = {side: {} for side in sorted(end.sides)}
        self.needs: dict[str, None] = {}

    def take(self, other: _Part) -> None:
        """Adds the Merges of another part of the same choice."""
        self.merges += other.merges
        for side, names in other.inside.items():
            self.inside[side].update(names)
        self.needs.update(other.needs)


class _Raising:
    def __init__(
        self, nodes: Mapping[str, Node], args: Mapping[str, DType], library: Library
    ) -> None:
        self._args = args
        self._library = library
        self._worth = library.worth_waiting_for(nodes)
        # Merge to the node that gives which of its inputs came, where anyone asks.
        self._indices: dict[str, str] = {}
        self._nodes = self._with_indices(nodes)
        self._switches: dict[str, tuple[str, int]] = {}  # what decides, and how many cases
        self._guards: dict[str, _Guard] = {}
        self._ends: dict[str, _End] = {}
        self._placed: set[str] = set()  # what is in a branch now, and must not be anywhere else
        for name in inputs_first(self._nodes):
            self._guard(self._nodes[name])

    def _with_indices(self, nodes: Mapping[str, Node]) -> dict[str, Node]:
        merges = {join(node.name, 1): node.name for node in nodes.values() if node.op == "Merge"}
        made = {}
        for name, node in nodes.items():
            asked = [tensor for tensor in node.inputs if tensor in merges]
            for tensor in asked:
                self._indices[merges[tensor]] = free(nodes, f"{merges[tensor]}/value_index")
            made[name] = node
            if asked:
                inputs = (self._indices[merges[t]] if t in merges else t for t in node.inputs)
                made[name] = node._replace(inputs=tuple(inputs))
        kind = {"T": attrs.of_type(DType.INT32)}
        for merge, name in self._indices.items():
            made[name] = Node(name, "Identity", (join(merge, 1),), kind)
        return made

    def run(self) -> None:
        """Raises all choices, the innermost first."""
        depths = sorted({len(end.around) for end in self._ends.values()}, reverse=True)
        for depth in depths:
            merges = [name for name, end in self._ends.items() if len(end.around) == depth]
            for part in self._joined(self._apart(merges)):
                self._raise(part)

    def finished(self, roots: Iterable[str]) -> dict[str, Node]:
        """What the roots need now.

        Raises:
            _Irregular: Something of a branch is needed outside of it.
        """
        reached = reached_nodes(self._nodes, roots)
        kept = {name: node for name, node in self._nodes.items() if name in reached}
        if any(node.op in CHOICES for node in kept.values()) or self._placed & reached:
            raise _Irregular
        return kept

    # ------------------------------------------------------------ guards

    def _guard(self, node: Node) -> None:
        if node.op in ("Switch", "_SwitchN"):
            cases = attrs.to_int(node.attrs["num_outs"]) if node.op == "_SwitchN" else 0
            self._switches[node.name] = self._plain(node.inputs[1]), cases
        elif node.op == "Merge":
            end = self._ends[node.name] = self._ended(node)
            self._guards[node.name] = end.around
            return
        elif node.op in CHOICES:
            raise _Irregular  # one of references
        guards = {guard for tensor in node.inputs if (guard := self._guard_of(tensor))}
        # Most nodes are in no branch, or in one alone.
        guard = next(iter(guards)) if len(guards) == 1 else _ALWAYS.union(*guards)
        if len({side.predicate for side in guard}) < len(guard):
            raise _Irregular  # on two sides at once: never alive
        self._guards[node.name] = guard

    def _guard_of(self, tensor: str) -> _Guard:
        """Where a tensor is alive, or a wait for a node is over."""
        guard = self._guards.get(node_of(tensor), _ALWAYS)
        side = self._side(tensor)
        return guard if side is None else guard | {side}

    def _side(self, tensor: str) -> _Side | None:
        """The choice that is made where a tensor is alive; None for what no Switch gives."""
        name, number = ("", 0) if tensor.startswith("^") else split(tensor)
        return _Side(*self._switches[name], number) if name in self._switches else None

    def _plain(self, tensor: str) -> str:
        """The tensor that a tensor is."""
        while (node := self._nodes.get(tensor)) and node.op == "Identity" and len(node.inputs) == 1:
            tensor = node.inputs[0]
        return tensor

    def _ended(self, merge: Node) -> _End:
        found = [self._guard_of(tensor) for tensor in data_inputs(merge)]
        around = frozenset.intersection(*found)
        if any(len(guard) != len(around) + 1 for guard in found):
            raise _Irregular
        sides = [next(iter(guard - around)) for guard in found]
        first = sides[0]
        numbers = tuple(side.number for side in sides)
        is_whole = sorted(numbers) == list(range(first.cases or 2))
        is_one = all(side._replace(number=first.number) == first for side in sides)
        waits = [self._guard_of(f"^{name}") for name in control_inputs(merge)]
        if not is_whole or not is_one or any(not guard <= around for guard in waits):
            raise _Irregular
        return _End(around, first.predicate, first.cases, numbers)

    # ------------------------------------------------------------ which Merges belong together

    def _apart(self, merges: Iterable[str]) -> list[_Part]:
        """Parts that have no node in common that should not be there twice."""
        parts: dict[str, _Part] = {}  # by each of its Merges
        owners: dict[tuple[_Guard, _Side, str], str] = {}
        for merge in merges:
            part = parts[merge] = self._part(merge)
            for side, inside in part.inside.items():
                for name in inside:
                    if self._is_plain(name):
                        continue
                    other = parts[owners.setdefault((part.end.around, side, name), merge)]
                    if other is not parts[merge]:
                        other.take(parts[merge])
                        parts.update(dict.fromkeys(other.merges, other))
        return list({id(part): part for part in parts.values()}.values())

    def _part(self, merge: str) -> _Part:
        """A Merge with all that leads to it from the Switches of the choice that it ends."""
        node, end = self._nodes[merge], self._ends[merge]
        part = _Part(end, merge)
        part.needs = {node_of(end.predicate): None, **dict.fromkeys(control_inputs(node))}
        for tensor, side in zip(data_inputs(node), end.sides, strict=True):
            inside = part.inside[side]
            stack = [tensor]
            while stack:
                tensor = stack.pop()
                name = node_of(tensor)
                if side not in self._guards.get(name, _ALWAYS):
                    part.needs.update(dict.fromkeys(map(node_of, self._entry(tensor, side))))
                elif name not in inside:
                    self._check_place(name, end.around | {side})
                    inside[name] = None
                    stack += self._needed(self._nodes[name])
        return part

    def _needed(self, node: Node) -> list[str]:
        """Its inputs, without those control inputs that only said which branch it is in."""
        return [t for t in node.inputs if not t.startswith("^") or t[1:] in self._worth]

    def _entry(self, tensor: str, side: _Side) -> list[str]:
        """What a branch is given for a tensor or a wait from outside, and what else has to be waited for.

        What a Switch hands on is there before the branch is chosen.
        """
        name = node_of(tensor)
        if self._side(tensor) == side:
            return list(self._nodes[name].inputs[:1] + self._nodes[name].inputs[2:])
        if tensor.startswith("^") and self._switches.get(name) == (side.predicate, side.cases):
            return [f"^{node_of(each)}" for each in self._nodes[name].inputs]
        return [tensor]

    def _check_place(self, name: str, guard: _Guard) -> None:
        """Lets pass what happens in the branch exactly when it did before."""
        if self._library.is_stateful(self._nodes[name]) and self._guards[name] != guard:
            raise _Irregular

    def _is_plain(self, name: str) -> bool:
        """Whether a node may as well be there twice: a constant, or what a Switch gives."""
        node = self._nodes[name]
        return node.op == "Const" or (
            node.op == "Identity"
            and self._side(node.inputs[0]) is not None
            and len(node.inputs) == 1
        )

    def _joined(self, parts: list[_Part]) -> list[_Part]:
        """The parts, joined where they are of one choice and none has to wait for the other.

        The more parts lie on the longest way to one, the later it is; joined are those that are equally
        late. A part that would have to wait for itself is taken apart again.
        """
        while True:
            try:
                late = self._lateness(parts)
                break
            except graphlib.CycleError as error:
                circle = {each for each in error.args[1] if isinstance(each, int)}
                parts = [
                    piece
                    for number, part in enumerate(parts)
                    for piece in (map(self._part, part.merges) if number in circle else (part,))
                ]
        joined: dict[tuple[_Guard, str, int], _Part] = {}
        for number, part in enumerate(parts):
            key = part.end.around, part.end.predicate, late[number]
            if key in joined:
                joined[key].take(part)
            else:
                joined[key] = part
        return list(joined.values())

    def _lateness(self, parts: Sequence[_Part]) -> list[int]:
        """How many other parts lie on the longest way to each.

        Raises:
            graphlib.CycleError: A part would have to wait for itself.
        """
        sources: dict[str | int, Iterable[str | int]] = {
            name: [node_of(tensor) for tensor in node.inputs] for name, node in self._nodes.items()
        }
        for number, part in enumerate(parts):
            sources[number] = list(part.needs)
            sources.update((merge, [number]) for merge in part.merges)
        late: dict[str | int, int] = {}
        for each in graphlib.TopologicalSorter(sources).static_order():
            before = max((late[source] for source in sources.get(each, ())), default=0)
            late[each] = before + isinstance(each, int)
        return [late[number] for number in range(len(parts))]

    # ------------------------------------------------------------ the If

    def _raise(self, part: _Part) -> None:
        parent = part.merges[0].rpartition("/")[0] or part.merges[0]
        args: dict[str, str] = {}  # tensor from outside to argument
        waits: dict[str, None] = {}
        bodies = [self._branch(part, side, args, waits) for side in part.inside]
        kinds = {
            arg: self._library.dtype(self._nodes, self._args, tensor)
            for tensor, arg in args.items()
        }
        results = [each for merge in part.merges for each in self._results(merge)]
        if DType.INVALID in (*kinds.values(), *(dtype for _, dtype in results)):
            raise _Irregular
        words = [f"branch_{number}" for number in range(part.end.cases)] or ["false", "true"]
        names = [
            self._library.make(f"{parent}_{word}", kinds, results, nodes)
            for word, nodes in zip(words, bodies, strict=True)
        ]
        op, values = "Case", {"branches": attrs.of_functions((name, {}) for name in names)}
        if not part.end.cases:
            op, values = (
                "If",
                {
                    "Tcond": attrs.of_type(DType.BOOL),
                    "else_branch": attrs.of_function(names[0]),
                    "then_branch": attrs.of_function(names[1]),
                },
            )
        values |= {
            "Tin": attrs.of_types(kinds.values()),
            "Tout": attrs.of_types(dtype for _, dtype in results),
        }
        is_stateful = any(self._library.functions[name].is_stateful for name in names)
        made = Node(
            free(self._nodes, f"{parent}/{op.lower()}"),
            op if is_stateful else f"Stateless{op}",
            (part.end.predicate, *args, *waits),
            values,
        )
        self._nodes[made.name] = made
        self._guards[made.name] = part.end.around
        self._hand_on(made, results)

    def _results(self, merge: str) -> Iterator[tuple[str, DType]]:
        """The nodes that hand on what a Merge gives, in the branches as outside, and their dtypes."""
        yield merge, self._library.dtype(self._nodes, self._args, merge)
        if merge in self._indices:
            yield self._indices[merge], DType.INT32

    def _hand_on(self, made: Node, results: Iterable[tuple[str, DType]]) -> None:
        for index, (name, dtype) in enumerate(results):
            waits = (f"^{waited}" for waited in control_inputs(self._nodes[name]))
            inputs = (join(made.name, index), *waits)
            kind = {"T": attrs.of_type(dtype)}
            self._nodes[name] = Node(name, "Identity", inputs, kind, self._nodes[name].device)

    def _branch(
        self, part: _Part, side: _Side, args: dict[str, str], waits: dict[str, None]
    ) -> dict[str, Node]:
        """The nodes of one branch.

        Args:
            part: What comes out of the If.
            side: The side.
            args: Tensors from outside to arguments; what is met for the first time is added.
            waits: What the If has to wait for; the same.
        """
        inside = part.inside[side]
        made: dict[str, Node] = {}

        def moved(tensor: str) -> list[str]:
            if node_of(tensor) in inside:
                return [tensor]
            given, *more = self._entry(tensor, side)
            outside = [given, *more] if given.startswith("^") else more
            waits.update((each, None) for each in outside if each[1:] in self._worth)
            if given.startswith("^"):
                return []
            source = self._nodes.get(given)
            if source is not None and source.op == "Const" and source.tensor is None:
                made[given] = source._replace(inputs=())
                return [given]
            return [args.setdefault(given, free(self._nodes, f"arg_{len(args)}"))]

        for name in inside:
            node = self._nodes[name]
            if self._library.is_stateful(node):
                if name in self._placed:
                    raise _Irregular
                self._placed.add(name)
            inputs = tuple(each for given in self._needed(node) for each in moved(given))
            made[name] = node._replace(inputs=inputs)
        for merge in part.merges:
            node = self._nodes[merge]
            number = self._ends[merge].sides.index(side)
            values = {"T": node.attrs["T"]}
            made[merge] = Node(
                merge, "Identity", tuple(moved(node.inputs[number])), values, node.device
            )
            if merge in self._indices:
                name = self._indices[merge]
                made[name] = const(name, DType.INT32, (), struct.pack("<i", number))
        return made
