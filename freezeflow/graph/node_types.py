"""The dtypes at both ends of nodes, remembered by op and by the attributes that tell them.

A large graph has a hundred thousand nodes but only some hundred ways to be typed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from freezeflow.graph import attrs
from freezeflow.graph.graph import Graph, Node
from freezeflow.graph.ops import ArgDef, OpDef, arg_types
from freezeflow.values import DType

# Tag of AttrValue.placeholder: an attribute of a function's node that the call gives.
PLACEHOLDER_TAG = b"\x4a"


class Ends(NamedTuple):
    """What a node takes and gives.

    Args:
        inputs: Dtypes of the data inputs; None where they cannot be told.
        outputs: Dtypes of the outputs; None where they cannot be told.
        ref_inputs: Numbers of the inputs that must be references (TF1 variables).
        ref_outputs: Numbers of the outputs that are references.
        problem: Why the dtypes cannot be told although the op is known; empty if they can.
        known: Whether the op has a definition.
    """

    inputs: tuple[DType, ...] | None = None
    outputs: tuple[DType, ...] | None = None
    ref_inputs: frozenset[int] = frozenset()
    ref_outputs: frozenset[int] = frozenset()
    problem: str = ""
    known: bool = True


class Kinds(NamedTuple):
    """What the attributes of an op's nodes look like.

    Args:
        tags: Declared attribute to the first byte of its ``AttrValue``; functions left out.
        required: Attributes without a default.
    """

    tags: Mapping[str, bytes]
    required: frozenset[str]


# Tag of the field that an attribute of each kind fills in its AttrValue message.
_TAGS = {
    "string": b"\x12",
    "int": b"\x18",
    "float": b"\x25",
    "bool": b"\x28",
    "type": b"\x30",
    "shape": b"\x3a",
    "tensor": b"\x42",
    "func": b"\x52",
}
_LIST_TAG = b"\x0a"


def tag_of(kind: str) -> bytes:
    """First byte of an ``AttrValue`` of a kind of an ``OpDef``: ``type``, ``list(int)``."""
    return _LIST_TAG if kind.startswith("list(") else _TAGS[kind]


class Look(NamedTuple):
    """What the op and the attributes of a node say.

    Args:
        op: The op.
        values: The attributes.
        ends: The node's ends.
        is_fine: The attributes are those that the op declares, each of its kind.
    """

    op: str
    values: Mapping[str, bytes]
    ends: Ends
    is_fine: bool


class NodeTypes:
    """Tells `Ends` of the nodes of one graph, main graph and functions alike."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._by_op: dict[str, Callable[[Mapping[str, bytes]], Ends]] = {}
        self._definitions: dict[str, OpDef | None] = {}
        self._kinds: dict[str, Kinds] = {}
        # Many nodes share their attributes: by identity, which a look keeps alive.
        self._looks: dict[int, Look] = {}

    def look(self, node: Node) -> Look:
        """What the op and the attributes say; quick where they are another node's, too."""
        op, values = node.op, node.attrs
        found = self._looks.get(id(values))
        if found is None or found.op != op:
            is_fine = _are_declared(values, *self.kinds(op))
            found = self._looks[id(values)] = Look(op, values, self.ends(node), is_fine)
        return found

    def ends(self, node: Node) -> Ends:
        """The node's ends; never raises, see `Ends.problem`."""
        find = self._by_op.get(node.op)
        if find is None:
            find = self._by_op[node.op] = _finder(self.definition(node.op))
        return find(node.attrs)

    def definition(self, op: str) -> OpDef | None:
        """The definition of an op; None if there is none."""
        if op not in self._definitions:
            self._definitions[op] = self._graph.op_def(op)
        return self._definitions[op]

    def kinds(self, op: str) -> Kinds:
        """The attributes that the op declares; nothing for an op that is not known."""
        found = self._kinds.get(op)
        if found is None:
            found = self._kinds[op] = _kinds(self.definition(op))
        return found


def _are_declared(
    values: Mapping[str, bytes], tags: Mapping[str, bytes], required: frozenset[str]
) -> bool:
    for name, data in values.items():
        if tags.get(name) != data[:1]:
            return False
    return len(values) == len(tags) or required <= values.keys()


def _kinds(definition: OpDef | None) -> Kinds:
    if definition is None:
        return Kinds({}, frozenset())
    kinds = definition.attr_types
    return Kinds(
        {name: tag_of(kind) for name, kind in kinds.items() if "func" not in kind},
        frozenset(kinds.keys() - definition.defaults.keys()),
    )


def _finder(definition: OpDef | None) -> Callable[[Mapping[str, bytes]], Ends]:
    """A function from a node's attributes to its ends, for one op."""
    if definition is None:
        unknown = Ends(known=False)
        return lambda values: unknown
    telling = tuple(
        dict.fromkeys(
            name
            for arg in (*definition.inputs, *definition.outputs)
            for name in (arg.type_attr, arg.number_attr, arg.type_list_attr)
            if name
        )
    )
    memo: dict[tuple[bytes | None, ...], Ends] = {}

    if len(telling) == 1:
        return _finder_by_one(definition, telling[0])

    def find(values: Mapping[str, bytes]) -> Ends:
        key = tuple(map(values.get, telling))
        found = memo.get(key)
        if found is None:
            found = memo[key] = _ends(definition, values, key)
        return found

    return find


def _finder_by_one(definition: OpDef, telling: str) -> Callable[[Mapping[str, bytes]], Ends]:
    """As `_finder`, for the many ops that one attribute tells all about."""
    memo: dict[bytes | None, Ends] = {}

    def find(values: Mapping[str, bytes]) -> Ends:
        key = values.get(telling)
        found = memo.get(key)
        if found is None:
            found = memo[key] = _ends(definition, values, (key,))
        return found

    return find


def _ends(
    definition: OpDef, values: Mapping[str, bytes], telling: tuple[bytes | None, ...]
) -> Ends:
    if any(data is not None and data.startswith(PLACEHOLDER_TAG) for data in telling):
        return Ends()
    try:
        inputs = arg_types(definition.inputs, values, definition.defaults)
        outputs = arg_types(definition.outputs, values, definition.defaults)
    except KeyError as missing:
        return Ends(problem=f"lacks attribute {missing}")
    except ValueError as error:
        return Ends(problem=f"has an attribute that names no dtype ({error})")
    return Ends(
        tuple(dtype for group in inputs for dtype in group),
        tuple(dtype for group in outputs for dtype in group),
        _references(definition.inputs, inputs, values),
        _references(definition.outputs, outputs, values),
    )


def _references(
    args: tuple[ArgDef, ...],
    grouped: tuple[tuple[DType, ...], ...],
    values: Mapping[str, bytes],
) -> frozenset[int]:
    found: set[int] = set()
    position = 0
    for arg, types in zip(args, grouped, strict=True):
        if arg.is_ref or _is_ref_attr(values.get(arg.type_attr, b"")):
            found |= set(range(position, position + len(types)))
        position += len(types)
    return frozenset(found)


def _is_ref_attr(data: bytes) -> bool:
    """Whether a ``type`` attribute holds a reference type (number over 100)."""
    return bool(data) and attrs.message(data).type > 100
