"""The node at which a result begins to differ from its original.

Given is a print (a digest of dtype, shape and bytes) of every tensor that one call computed on both
sides. A tensor of one side *agrees* if the node of the same name on the other side has the same print,
or, where there is none, any tensor has. Going back from the output that differs, through tensors that
do not agree, ends at the *entries*: nodes that get what agrees and give what does not. The first of them
is the one to look at. Why it differs is found by putting its inputs beside those of its counterpart: a
constant with another value, other inputs because a node is missing or added between, or another op,
other attributes, another kernel.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Literal

from freezeflow.graph import walk
from freezeflow.graph.graph import Node, data_inputs, node_of
from freezeflow.graph.op_policy import SAME_VALUE
from freezeflow.graph.variables import HANDLES

Kind = Literal["constant", "computation", "missing", "added", "inputs", "output", "unseen"]

# Ops by which a variable's handle comes into branches and loops.
_HANDING_ON = frozenset(
    {"Identity", "Switch", "Enter", "Merge", "RefIdentity", "RefSwitch", "RefEnter", "RefMerge"}
)

# What each kind says of the node.
IN_WORDS: Mapping[Kind, str] = {
    "constant": "has another value than in the original",
    "computation": "gives something else than in the original for the same inputs",
    "missing": "is in the original and not in the result",
    "added": "is in the result and not in the original",
    "inputs": "takes other inputs than in the original",
    "output": "is not what the original gives under this name",
    "unseen": "is where values cannot be looked at; the difference begins in it or behind it",
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One side of a call.

    Args:
        nodes: The nodes that the output needs.
        prints: Tensor to a digest of what it held; those that could not be looked at are left out.
        dead: Tensors that held nothing: in a branch that was not taken, or a round that did not come.
        output: The tensor that differs.
        fed: Nodes that were fed.
        opaque: Nodes that stand for what could not be looked at.
    """

    nodes: Mapping[str, Node]
    prints: Mapping[str, bytes]
    dead: Set[str]
    output: str
    fed: Set[str]
    opaque: Set[str] = frozenset()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """Where a difference begins.

    Args:
        node: The node's name, in the original where it is ``missing`` there, else in the result.
        op: Its op.
        kind: Why it differs.
        counterpart: The node on the other side; empty where there is none.
        others: Further entries: differences that do not come from this one.
        original: Tensors of the original that do not agree, on the way from the node to the output.
        result: The same of the result.
        ends: The closest tensors behind the node that are each other's counterpart and differ, of the
            original and of the result: what shows the difference with the fewest nodes.
    """

    node: str
    op: str
    kind: Kind
    counterpart: str
    others: tuple[str, ...]
    original: frozenset[str]
    result: frozenset[str]
    ends: tuple[str, str]


def find_divergence(
    original: Side,
    result: Side,
    *,
    names: Mapping[str, str],
    alike: Callable[[str, str], bool] = lambda original, result: False,
) -> Divergence:
    """Finds the first node whose inputs agree and whose output does not.

    Args:
        original: The original, without calls.
        result: The result.
        names: Node of the result to node of the original, where the names are not the same.
        alike: Whether two tensors whose prints differ are close enough.
    """
    return _Search(original, result, names, alike).found()


class _Search:
    def __init__(
        self,
        original: Side,
        result: Side,
        names: Mapping[str, str],
        alike: Callable[[str, str], bool],
    ) -> None:
        self.original, self.result = original, result
        self._alike = alike
        self._to_original = {name: name for name in result.nodes if name in original.nodes}
        self._to_original.update(names)
        self._to_result = {there: here for here, there in self._to_original.items()}
        self.agrees_there = _Agreement(original, result, self._to_result, self._is_alike_there)
        self.agrees_here = _Agreement(result, original, self._to_original, self._is_alike_here)

    def _is_alike_here(self, here: str, there: str) -> bool:
        return self._alike(there, here)

    def _is_alike_there(self, there: str, here: str) -> bool:
        return self._alike(there, here)

    def found(self) -> Divergence:
        here, there = (
            _Region(self.result, self.agrees_here),
            _Region(self.original, self.agrees_there),
        )
        if self.agrees_here.holds(self.result.output):
            return self._wrong_output(here, there)
        entries = here.entries()
        for name in entries:
            if name in self.result.opaque:
                return self._made(name, "unseen", entries, here, there)
            source = self._other_source(name, self._to_original.get(name), here)
            if node_is_seen(self.result, name) or source is not None:
                others = [entry for entry in entries if entry != name]
                return self._explained(name, others, here, there)
        name = entries[0] if entries else node_of(self.result.output)
        return self._made(name, "unseen", entries, here, there)

    def _wrong_output(self, here: _Region, there: _Region) -> Divergence:
        """The output agrees with something of the original, but with the wrong thing."""
        for name in there.entries():
            if name not in self._to_result:
                return self._made(name, "missing", (), here, there)
        return self._made(node_of(self.result.output), "output", (), here, there)

    def _explained(self, name: str, others: list[str], here: _Region, there: _Region) -> Divergence:
        counterpart = self._to_original.get(name)
        source = self._other_source(name, counterpart, here)
        if source is not None:
            if source not in self._to_original or self.result.nodes[source].op == "Const":
                return self._made(source, "constant", others, here, there)
            name, counterpart = source, self._to_original[source]
        if counterpart is None:
            return self._made(name, "added", others, here, there)
        if self._same_inputs(name, counterpart):
            return self._made(name, "computation", others, here, there)
        missing = self._missing_before(counterpart, there)
        if missing is not None:
            return self._made(missing, "missing", others, here, there)
        return self._made(name, "inputs", others, here, there)

    def _other_source(self, name: str, counterpart: str | None, here: _Region) -> str | None:
        """What depends on no input and is to blame: the first one behind the node that does not agree."""
        node = self.result.nodes[name]
        if node.op == "Const":
            return name
        if counterpart is None:
            return None
        unlike = [t for t in data_inputs(node) if t in here.tensors and t not in here.moving]
        return here.first_source(unlike) if unlike else None

    def _same_inputs(self, name: str, counterpart: str) -> bool:
        inputs = list(data_inputs(self.result.nodes[name]))
        others = list(data_inputs(self.original.nodes[counterpart]))
        return len(inputs) == len(others) and all(
            self._same(other, tensor) for tensor, other in zip(inputs, others, strict=True)
        )

    def _same(self, there: str, here: str) -> bool:
        one, other = self.original.prints.get(there), self.result.prints.get(here)
        if one is None or other is None:
            return self._to_original.get(node_of(here), "") == node_of(there) or (
                self.original.nodes[node_of(there)].op in HANDLES
            )
        return one == other or self._alike(there, here)

    def _missing_before(self, counterpart: str, there: _Region) -> str | None:
        """The first node that the original has in front of a node, and the result has not."""
        before = there.behind(counterpart)
        for name in (*there.entries(), *there.starts(before)):
            if name in before and name not in self._to_result:
                return name
        return None

    def _made(
        self, name: str, kind: Kind, entries: Iterable[str], here: _Region, there: _Region
    ) -> Divergence:
        in_original = kind == "missing"
        nodes = (self.original if in_original else self.result).nodes
        other = (self._to_result if in_original else self._to_original).get(name, "")
        return Divergence(
            node=name,
            op=nodes[name].op,
            kind=kind,
            counterpart=other,
            others=tuple(entry for entry in entries if entry != name),
            original=frozenset(there.tensors),
            result=frozenset(here.tensors),
            ends=self._ends(name, kind, here, there),
        )

    def _ends(self, name: str, kind: Kind, here: _Region, there: _Region) -> tuple[str, str]:
        """The closest pair of tensors behind a node that should be the same and are not."""
        in_original = kind == "missing"
        start, names = (there, self._to_result) if in_original else (here, self._to_original)
        other = here if in_original else there
        for tensor in start.before_output(name):
            partner = names.get(node_of(tensor))
            # A constant alone has nothing to be run.
            still = kind == "constant" and start.moving and tensor not in start.moving
            if partner is None or still:
                continue
            twin = partner + tensor[len(node_of(tensor)) :]
            if twin in other.tensors and twin in other.side.prints:
                return (tensor, twin) if in_original else (twin, tensor)
        return self.original.output, self.result.output


def node_is_seen(side: Side, name: str) -> bool:
    """Whether some output of a node could be looked at."""
    return any(node_of(tensor) == name for tensor in side.prints if tensor.startswith(name))


class _Agreement:
    """Which tensors of one side agree with the other."""

    def __init__(
        self,
        side: Side,
        other: Side,
        names: Mapping[str, str],
        alike: Callable[[str, str], bool],
    ) -> None:
        self._side, self._other = side, other
        self._names = names
        self._alike = alike
        self._known = set(other.prints.values())
        self._benign: set[str] = set()
        for name in walk.inputs_first(side.nodes):
            self._note(side.nodes[name])

    def holds(self, tensor: str) -> bool:
        """Whether a tensor agrees; one that could not be looked at does if nothing speaks against it."""
        found = self._side.prints.get(tensor)
        partner = self._names.get(node_of(tensor))
        twin = None if partner is None else partner + tensor[len(node_of(tensor)) :]
        if twin is not None and twin not in self._other.prints and twin not in self._other.dead:
            twin = self._handed_on(twin)
        if found is None:
            both_dead = tensor in self._side.dead and twin in self._other.dead
            return both_dead or node_of(tensor) in self._benign
        if twin is not None and twin in self._other.prints:
            return self._other.prints[twin] == found or self._alike(tensor, twin)
        if twin in self._other.dead:
            # A weight may have moved out of a branch that was not taken: there is nothing to compare.
            node = self._side.nodes[node_of(tensor)]
            return all(self._side.nodes[node_of(t)].op in HANDLES for t in data_inputs(node))
        return found in self._known

    def _handed_on(self, tensor: str) -> str:
        """What a tensor of the other side hands on, where it is a handle: a handle's print is its value's."""
        start = tensor
        while tensor not in self._other.prints:
            # What is fed may not be among the nodes.
            node = self._other.nodes.get(node_of(tensor))
            if node is None or node.op not in _HANDING_ON or not node.inputs:
                return start
            tensor = node.inputs[0]
        return tensor if self._other.nodes[node_of(tensor)].op in HANDLES else start

    def _note(self, node: Node) -> None:
        if node.name in self._side.opaque:
            return
        partner = self._names.get(node.name)
        if (
            node.op in HANDLES
            or node.name in self._side.fed
            or (
                partner is not None
                and self._other.nodes[partner].op == node.op
                and all(self.holds(tensor) for tensor in data_inputs(node))
            )
        ):
            self._benign.add(node.name)


class _Region:
    """What does not agree on the way back from the output of one side.

    Attributes:
        tensors: These tensors; the output is always one.
        moving: Those of them that depend on what was fed.
    """

    def __init__(self, side: Side, agreement: _Agreement) -> None:
        self.side = side
        self.tensors = {side.output}
        stack = [side.output]
        while stack:
            for tensor in data_inputs(side.nodes[node_of(stack.pop())]):
                if tensor not in self.tensors and not agreement.holds(tensor):
                    self.tensors.add(tensor)
                    stack.append(tensor)
        self._order = {name: n for n, name in enumerate(walk.inputs_first(side.nodes))}
        depends = _depending(side)
        self.moving = {tensor for tensor in self.tensors if node_of(tensor) in depends}
        self._nodes = {node_of(tensor) for tensor in self.tensors}

    def entries(self) -> list[str]:
        """Nodes that get what agrees and give what does not, in order; constants count as given.

        Where nothing depends on what was fed, constants themselves are the entries.
        """
        relevant = self.moving or self.tensors
        found = {
            node_of(tensor)
            for tensor in relevant
            if not any(t in relevant for t in data_inputs(self.side.nodes[node_of(tensor)]))
        }
        return sorted(found, key=self._order.__getitem__)

    def starts(self, names: Iterable[str]) -> list[str]:
        """Those of some nodes that get only what agrees, in order, whatever they depend on."""
        found = [
            name
            for name in names
            if not any(t in self.tensors for t in data_inputs(self.side.nodes[name]))
        ]
        return sorted(found, key=self._order.__getitem__)

    def first_source(self, tensors: Iterable[str]) -> str:
        """The first node, in order, of those that these tensors come from and that do not agree."""
        names = {node_of(tensor) for tensor in tensors}
        stack = list(names)
        while stack:
            for tensor in data_inputs(self.side.nodes[stack.pop()]):
                name = node_of(tensor)
                if tensor in self.tensors and name not in names:
                    names.add(name)
                    stack.append(name)
        sources = [
            name
            for name in names
            if not any(node_of(t) in names for t in data_inputs(self.side.nodes[name]))
        ]
        return min(sources, key=self._order.__getitem__)

    def behind(self, name: str) -> set[str]:
        """The nodes of the region that a node needs, itself included."""
        found, stack = {name}, [name]
        while stack:
            for tensor in data_inputs(self.side.nodes[stack.pop()]):
                source = node_of(tensor)
                if source in self._nodes and source not in found:
                    found.add(source)
                    stack.append(source)
        return found

    def before_output(self, name: str) -> list[str]:
        """The region's tensors from a node on towards the output, in order."""
        reached = {name}
        for other in sorted(self._nodes, key=self._order.__getitem__):
            if any(node_of(t) in reached for t in data_inputs(self.side.nodes[other])):
                reached.add(other)
        found = [tensor for tensor in self.tensors if node_of(tensor) in reached]
        return sorted(found, key=lambda tensor: (self._order[node_of(tensor)], tensor))


def _depending(side: Side) -> set[str]:
    """Nodes that depend on what was fed."""
    found = set(side.fed)
    for name in walk.inputs_first(side.nodes):
        if any(node_of(tensor) in found for tensor in data_inputs(side.nodes[name])):
            found.add(name)
    return found


def through_identities(nodes: Mapping[str, Node], tensor: str) -> str:
    """The tensor that nodes which only hand on have got."""
    while (node := nodes[node_of(tensor)]).op in SAME_VALUE and tensor == node.name:
        tensor = next(data_inputs(node))
    return tensor
