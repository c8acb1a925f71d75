"""A look-up in a static table as pure ops.

A look-up becomes a binary search: the keys (or, for strings, their hashes) are a sorted constant,
LowerBound finds the place, the key there is compared with the one that is looked for, and the value
there or the default is chosen. Strings are compared themselves, so a collision of hashes cannot give
a wrong value; keys of one table have different hashes because the hash's key is chosen so.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any

from freezeflow.errors import ModelRefused
from freezeflow.graph import attrs
from freezeflow.graph.constants import const
from freezeflow.graph.graph import Node, control_inputs, data_inputs, node_of
from freezeflow.graph.handles import scalar_const
from freezeflow.graph.siphash import siphash24
from freezeflow.graph.wire import LARGE_TENSOR_BYTES
from freezeflow.values import DType, TensorRef

PutTensor = Callable[[memoryview, DType, tuple[int, ...]], TensorRef]

FINDS = frozenset({"LookupTableFind", "LookupTableFindV2"})
SIZES = frozenset({"LookupTableSize", "LookupTableSizeV2"})

# What a column is called behind its table's name.
ROLES = ("sorted", "keys", "values")

# Hashes are taken modulo this, the largest number of buckets that the op allows.
_BUCKETS = (1 << 63) - 1

_LETTERS = {
    DType.BOOL: "?",
    DType.INT32: "i",
    DType.INT64: "q",
    DType.FLOAT: "f",
    DType.DOUBLE: "d",
}


class Columns:
    """The sorted contents of one table as constants, shared by all its look-ups."""

    def __init__(
        self, table: Node, name: str, contents: Mapping[Any, Any], put_tensor: PutTensor
    ) -> None:
        self._name = name
        self._put = put_tensor
        self._key_dtype = attrs.to_type(table.attrs["key_dtype"])
        self._value_dtype = attrs.to_type(table.attrs["value_dtype"])
        self._hash_key = (0, 0)
        keys, values = list(contents), list(contents.values())
        sought = self._sought(keys)
        order = sorted(range(len(sought)), key=sought.__getitem__)
        self._count = len(order)
        sought_dtype = DType.INT64 if self._is_text else self._key_dtype
        self._nodes = {
            "sorted": self._column("sorted", sought_dtype, [sought[i] for i in order]),
            "keys": self._column("keys", self._key_dtype, [keys[i] for i in order]),
            "values": self._column("values", self._value_dtype, [values[i] for i in order]),
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

    def look_up(self, node: Node, *, in_frames: bool) -> list[Node]:
        """The nodes that stand in for one that used the table; the last one has its name.

        Args:
            node: A look-up, or what asks for the table's size.
            in_frames: There may be TF1 loops around the node, so constants have to be in its frame.
        """
        if node.op in SIZES:
            size = struct.pack("<q", self._count)
            control = tuple(f"^{name}" for name in control_inputs(node))
            if in_frames:
                control = (f"^{node_of(node.inputs[0])}", *control)
            return [const(node.name, DType.INT64, (), size)._replace(inputs=control)]
        if self._count == 0:
            return self._nothing_found(node)
        columns = self._nodes
        if in_frames:
            columns = {role: _in_frame_of(node, role, made) for role, made in columns.items()}
        return [*columns.values(), *self._look_up(node, columns)]

    def _nothing_found(self, node: Node) -> list[Node]:
        """A look-up in a table without keys: the default everywhere."""
        _, wanted, default = data_inputs(node)
        steps = _Steps(node, wanted)
        shape = steps.add("shape", "Shape", wanted, T=self._key_dtype, out_type=DType.INT32)
        steps.add("", "Fill", shape, default, T=self._value_dtype, index_type=DType.INT32)
        return steps.nodes

    def _look_up(self, node: Node, columns: Mapping[str, Node]) -> list[Node]:
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
            "rows", "ExpandDims", columns["sorted"].name, zero, T=sought_dtype, Tdim=DType.INT32
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
        there = steps.gather("there", columns["keys"].name, within, self._key_dtype, zero)
        found = steps.add("found", "Equal", there, flat, T=self._key_dtype)
        value = steps.gather("value", columns["values"].name, within, self._value_dtype, zero)
        chosen = steps.add("chosen", "SelectV2", found, value, default, T=self._value_dtype)
        shape = steps.add("shape", "Shape", wanted, T=self._key_dtype, out_type=DType.INT32)
        steps.add("", "Reshape", chosen, shape, T=self._value_dtype, Tshape=DType.INT32)
        return steps.nodes


def _in_frame_of(node: Node, role: str, column: Node) -> Node:
    """A column of the look-up's own, in the loop frame of what is looked for."""
    _, wanted, _ = data_inputs(node)
    return column._replace(name=f"{node.name}/table_{role}", inputs=(f"^{node_of(wanted)}",))


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
