"""Look-ups in static tables turned into pure ops, so that the graph has no state and needs no init.

A look-up becomes a binary search: the keys (or, for strings, their hashes) are a sorted constant,
LowerBound finds the place, the key there is compared with the one that is looked for, and the value
there or the default is chosen. Strings are compared themselves, so a collision of hashes cannot give
a wrong value; keys of one table have different hashes because the hash's key is chosen so.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from freezeflow.errors import ModelRefused
from freezeflow.graph import attrs, walk
from freezeflow.graph.constants import const
from freezeflow.graph.graph import Node, control_inputs, data_inputs, node_of, split
from freezeflow.graph.handles import scalar_const
from freezeflow.graph.model import Model
from freezeflow.graph.siphash import siphash24
from freezeflow.graph.tensor_values import elements, from_bytes
from freezeflow.graph.wire import LARGE_TENSOR_BYTES
from freezeflow.graph.write import read_range
from freezeflow.values import DType, TensorRef

PutTensor = Callable[[memoryview, DType, tuple[int, ...]], TensorRef]

STATIC_TABLES = frozenset({"HashTable", "HashTableV2"})
_FINDS = frozenset({"LookupTableFind", "LookupTableFindV2"})
_SIZES = frozenset({"LookupTableSize", "LookupTableSizeV2"})
_FILLS = frozenset(
    {"InitializeTable", "InitializeTableV2", "LookupTableImport", "LookupTableImportV2"}
)

# Hashes are taken modulo this, the largest number of buckets that the op allows.
_BUCKETS = (1 << 63) - 1

_LETTERS = {
    DType.BOOL: "?",
    DType.INT32: "i",
    DType.INT64: "q",
    DType.FLOAT: "f",
    DType.DOUBLE: "d",
}


class InlinedTables(NamedTuple):
    """A model with its static tables inlined.

    Args:
        model: The model.
        tables: How many tables are gone.
        left: Tables that stay, each with the reason.
    """

    model: Model
    tables: int
    left: tuple[str, ...]


def inline_tables(model: Model, put_tensor: PutTensor) -> InlinedTables:
    """Turns look-ups in static tables into pure ops.

    A table stays where it can change, where its contents are no constants, or where a function
    (the body of a loop, a branch) is given the table itself.

    Args:
        model: A frozen model.
        put_tensor: Takes large constants.
    """
    nodes = model.graph.nodes
    users = walk.consumers(nodes)
    made: dict[str, Node] = {}
    gone: set[str] = set()
    left = []
    for table in [node for node in nodes.values() if node.op in STATIC_TABLES]:
        plan = _plan(table, nodes, users, model.init)
        if isinstance(plan, str):
            left.append(f"{table.name}: {plan}")
            continue
        columns = _Columns(table, plan, put_tensor)
        for node in plan.uses:
            made.update({new.name: new for new in columns.replaced(node, nodes)})
        gone.add(plan.fill.name)
    kept = {**nodes, **made}
    init = tuple(name for name in model.init if name not in gone)
    graph = dataclasses.replace(model.graph, nodes=kept)
    ends = [
        spec.tensor
        for signature in model.signatures.values()
        for side in (signature.inputs, signature.outputs)
        for spec in side.values()
    ]
    pruned = walk.prune(graph, [*ends, *init])
    return InlinedTables(
        dataclasses.replace(model, graph=pruned, init=init), len(gone), tuple(sorted(left))
    )


class _Plan(NamedTuple):
    """A table that can be inlined: the node that fills it, its contents, the nodes that use it."""

    fill: Node
    keys: list[Any]
    values: list[Any]
    uses: list[Node]


def _plan(
    table: Node, nodes: Mapping[str, Node], users: Mapping[str, list[str]], init: Sequence[str]
) -> _Plan | str:
    """How to inline a table, or why it cannot be."""
    handled = list(_users(table.name, nodes, users))
    fills = [node for node in handled if node.op in _FILLS]
    uses = [node for node in handled if node.op in _FINDS | _SIZES]
    other = [node for node in handled if node not in fills and node not in uses]
    if other:
        return f"{other[0].op} at {other[0].name} takes the table itself"
    if len(fills) != 1 or fills[0].name not in init:
        return "it is not filled once, by an initializer"
    contents = [_elements(nodes, tensor) for tensor in list(data_inputs(fills[0]))[1:3]]
    if contents[0] is None or contents[1] is None:
        return "its contents are no constants"
    pairs = dict(zip(contents[0], contents[1], strict=False))
    return _Plan(fills[0], list(pairs), list(pairs.values()), uses)


def _users(name: str, nodes: Mapping[str, Node], users: Mapping[str, list[str]]) -> Iterator[Node]:
    """The nodes that a table's handle comes to, through Identity."""
    stack, seen = [name], {name}
    while stack:
        for user in users.get(stack.pop(), ()):
            if user in seen:
                continue
            seen.add(user)
            if nodes[user].op in ("Identity", "RefIdentity"):
                stack.append(user)
            else:
                yield nodes[user]


def _elements(nodes: Mapping[str, Node], tensor: str) -> list[Any] | None:
    name, _ = split(tensor)
    while nodes[name].op == "Identity":
        name = node_of(nodes[name].inputs[0])
    node = nodes[name]
    if node.op != "Const":
        return None
    if node.tensor is not None:
        data = read_range(node.tensor.location)
        return from_bytes(data, node.tensor.dtype, node.tensor.shape[0] if node.tensor.shape else 1)
    try:
        return elements(attrs.message(node.attrs["value"]).tensor)
    except ValueError:
        return None


class _Columns:
    """The sorted contents of one table as constants, shared by all its look-ups."""

    def __init__(self, table: Node, plan: _Plan, put_tensor: PutTensor) -> None:
        self._name = table.name
        self._put = put_tensor
        self._key_dtype = attrs.to_type(table.attrs["key_dtype"])
        self._value_dtype = attrs.to_type(table.attrs["value_dtype"])
        self._hash_key = (0, 0)
        sought = self._sought(plan.keys)
        order = sorted(range(len(sought)), key=sought.__getitem__)
        self._count = len(order)
        sought_dtype = DType.INT64 if self._is_text else self._key_dtype
        self._nodes = {
            "sorted": self._column("sorted", sought_dtype, [sought[i] for i in order]),
            "keys": self._column("keys", self._key_dtype, [plan.keys[i] for i in order]),
            "values": self._column("values", self._value_dtype, [plan.values[i] for i in order]),
        }

    @property
    def _is_text(self) -> bool:
        return self._key_dtype is DType.STRING

    def _sought(self, keys: list[Any]) -> list[int]:
        """What is searched among: the keys, or hashes of them that are all different."""
        if not self._is_text:
            return list(keys)
        for number in range(1 << 16):
            self._hash_key = (number, 0)
            hashes = [siphash24(self._hash_key, key) % _BUCKETS for key in keys]
            if len(set(hashes)) == len(keys):
                return hashes
        raise ModelRefused("no hash tells this table's keys apart", where=self._name)

    def _column(self, role: str, dtype: DType, column: list[Any]) -> Node:
        name, shape = f"{self._name}/{role}", (len(column),)
        if dtype is DType.STRING:
            return const(name, dtype, shape, column)
        if dtype not in _LETTERS:
            raise ModelRefused(f"a table of {dtype.tf_name} cannot be inlined", where=self._name)
        data = struct.pack(f"<{len(column)}{_LETTERS[dtype]}", *column)
        if len(data) > LARGE_TENSOR_BYTES:
            return const(name, dtype, shape, self._put(memoryview(data), dtype, shape))
        return const(name, dtype, shape, data)

    def replaced(self, node: Node, nodes: Mapping[str, Node]) -> list[Node]:
        """The nodes that stand in for one that used the table; the last one has its name."""
        if node.op in _SIZES:
            size = struct.pack("<q", self._count)
            control = tuple(f"^{name}" for name in control_inputs(node))
            return [const(node.name, DType.INT64, (), size)._replace(inputs=control)]
        if self._count == 0:
            return self._nothing_found(node)
        return [*self._nodes.values(), *self._look_up(node)]

    def _nothing_found(self, node: Node) -> list[Node]:
        """A look-up in a table without keys: the default everywhere."""
        _, wanted, default = data_inputs(node)
        steps = _Steps(node, wanted)
        shape = steps.add("shape", "Shape", wanted, T=self._key_dtype, out_type=DType.INT32)
        steps.add("", "Fill", shape, default, T=self._value_dtype, index_type=DType.INT32)
        return steps.nodes

    def _look_up(self, node: Node) -> list[Node]:
        """Search, compare, choose; the shape of what is looked for is kept."""
        _, wanted, default = data_inputs(node)
        steps = _Steps(node, wanted)
        flat = steps.add(
            "flat",
            "Reshape",
            wanted,
            steps.int_list("all", [-1]),
            T=self._key_dtype,
            Tshape=DType.INT32,
        )
        sought, sought_dtype = flat, self._key_dtype
        if self._is_text:
            sought_dtype = DType.INT64
            sought = steps.add_raw(
                Node(
                    f"{node.name}/hash",
                    "StringToHashBucketStrong",
                    (flat,),
                    {
                        "num_buckets": attrs.of_int(_BUCKETS),
                        "key": attrs.of_ints(self._hash_key),
                    },
                )
            )
        zero = steps.scalar("zero", 0)
        row = steps.add("row", "ExpandDims", sought, zero, T=sought_dtype, Tdim=DType.INT32)
        rows = steps.add(
            "rows", "ExpandDims", self._nodes["sorted"].name, zero, T=sought_dtype, Tdim=DType.INT32
        )
        places = steps.add("places", "LowerBound", rows, row, T=sought_dtype, out_type=DType.INT32)
        place = steps.add(
            "place",
            "Reshape",
            places,
            steps.int_list("flat_again", [-1]),
            T=DType.INT32,
            Tshape=DType.INT32,
        )
        last = steps.scalar("last", max(self._count - 1, 0))
        within = steps.add("within", "Minimum", place, last, T=DType.INT32)
        there = steps.gather("there", self._nodes["keys"].name, within, self._key_dtype, zero)
        found = steps.add("found", "Equal", there, flat, T=self._key_dtype)
        value = steps.gather("value", self._nodes["values"].name, within, self._value_dtype, zero)
        chosen = steps.add("chosen", "SelectV2", found, value, default, T=self._value_dtype)
        shape = steps.add("shape", "Shape", wanted, T=self._key_dtype, out_type=DType.INT32)
        steps.add("", "Reshape", chosen, shape, T=self._value_dtype, Tshape=DType.INT32)
        return steps.nodes


class _Steps:
    """Collects the nodes of one look-up under its name."""

    def __init__(self, node: Node, wanted: str) -> None:
        self._node = node
        self._wanted = wanted
        self._control = tuple(f"^{name}" for name in control_inputs(node))
        self.nodes: list[Node] = []

    def add_raw(self, node: Node) -> str:
        self.nodes.append(node)
        return node.name

    def add(self, role: str, op: str, *inputs: str, **dtypes: DType) -> str:
        name = f"{self._node.name}/{role}" if role else self._node.name
        values = {key: attrs.of_type(dtype) for key, dtype in dtypes.items()}
        # What the look-up waited for, its result waits for.
        control = () if role else self._control
        return self.add_raw(Node(name, op, (*inputs, *control), values))

    def scalar(self, role: str, value: int) -> str:
        # After what is looked for, to be in the same loop frame.
        return self.add_raw(scalar_const(f"{self._node.name}/{role}", value, after=self._wanted))

    def int_list(self, role: str, values: list[int]) -> str:
        data = struct.pack(f"<{len(values)}i", *values)
        made = const(f"{self._node.name}/{role}", DType.INT32, (len(values),), data)
        return self.add_raw(made._replace(inputs=(f"^{node_of(self._wanted)}",)))

    def gather(self, role: str, column: str, places: str, dtype: DType, axis: str) -> str:
        values = {
            "Tparams": attrs.of_type(dtype),
            "Tindices": attrs.of_type(DType.INT32),
            "Taxis": attrs.of_type(DType.INT32),
            "batch_dims": attrs.of_int(0),
        }
        name = f"{self._node.name}/{role}"
        return self.add_raw(Node(name, "GatherV2", (column, places, axis), values))
