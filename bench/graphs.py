"""SavedModels with large graphs, made without TensorFlow: ``python -m bench.graphs KIND NODES FOLDER``.

Kinds, all with a signature ``serving_default`` from ``x`` to ``y``, wrapped as TensorFlow 2 does it:

- ``wide``: a function for every 50 nodes, each called once, and a variable for every 20 nodes;
- ``nested``: 50 functions, each of which calls the next in the middle of its nodes;
- ``repeated``: one function, called 1,000 times;
- ``loops``: as ``wide``, but every function is the body of a while loop of one round.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Sequence
from pathlib import Path

import crc32c

from freezeflow.checkpoint.coding import masked
from freezeflow.graph import attrs
from freezeflow.graph.constants import const
from freezeflow.graph.graph import Arg, Function, Graph, Node, Result
from freezeflow.graph.wire import varint
from freezeflow.graph.write import graph_def_bytes
from freezeflow.messages import message_class
from freezeflow.values import DType

_LENGTH = 300  # numbers in a variable: just too many to be kept inline
_NODES = 50  # of a function
_VARIABLES = 2.5  # of a function
_LEVELS = 50
_CALLS = 1000

_FLOAT = attrs.of_type(DType.FLOAT)
_SHAPE = attrs.of_shape((_LENGTH,))
_TABLE_MAGIC = 0xDB4775248B80FB57


class _Maker:
    """Collects the functions and the variables of a model."""

    def __init__(self) -> None:
        self.functions: dict[str, Function] = {}
        self.variables: list[str] = []

    def layer(
        self, name: str, nodes: int, handles: int, inner: tuple[str, int] | None = None
    ) -> None:
        """A function of so many nodes that reads its handles, and calls another in its middle."""
        args = [Arg("x", DType.FLOAT), *(Arg(f"h{i}", DType.RESOURCE) for i in range(handles))]
        own = handles - (inner[1] if inner else 0)
        body: list[Node] = []
        value = "x"
        for i in range(own):
            body.append(Node(f"read{i}", "ReadVariableOp", (f"h{i}",), {"dtype": _FLOAT}))
            body.append(Node(f"scale{i}", "Mul", (value, f"read{i}"), {"T": _FLOAT}))
            value = f"scale{i}"
        while len(body) < nodes:
            number = len(body)
            if inner and number >= nodes // 2:
                given = (value, *(f"h{i}" for i in range(own, handles)))
                body.append(call("StatefulPartitionedCall", inner[0], given))
                inner = None
            elif number % 10 == 0:
                body.append(
                    const(f"size{number}", DType.FLOAT, (), struct.pack("<f", number / 1000))
                )
                body.append(Node(f"add{number}", "AddV2", (value, f"size{number}"), {"T": _FLOAT}))
            else:
                op = ("Relu", "Identity", "Neg", "Abs")[number % 4]
                body.append(Node(f"{op.lower()}{number}", op, (value,), {"T": _FLOAT}))
            value = body[-1].name
        self.add(name, args, body, value)

    def add(self, name: str, args: Sequence[Arg], body: Sequence[Node], result: str) -> None:
        self.functions[name] = Function(
            name=name,
            args=tuple(args),
            results=(Result("y", result, DType.FLOAT),),
            nodes={node.name: node for node in body},
            is_stateful=True,
        )

    def caller(self, name: str, calls: Sequence[tuple[str, int]], *, loops: bool = False) -> int:
        """A function that calls others one after another; returns how many handles it takes."""
        body = [_int_const("zero", 0)] if loops else []
        value, taken = "x", 0
        for number, (function, handles) in enumerate(calls):
            given = (value, *(f"h{i}" for i in range(taken, taken + handles)))
            node = call(f"call{number}", function, given)
            body.append(_loop(node, number) if loops else node)
            value, taken = f"call{number}:1" if loops else f"call{number}", taken + handles
        args = [Arg("x", DType.FLOAT), *(Arg(f"h{i}", DType.RESOURCE) for i in range(taken))]
        self.add(name, args, body, value)
        return taken

    def save(self, folder: Path, function: str, handles: int) -> None:
        """Writes the SavedModel whose signature calls a function with so many variables."""
        self.variables = [f"layer_{i}/kernel" for i in range(handles)]
        self.caller("signature_wrapper", [(function, handles)])
        nodes = [Node("serving_default_x", "Placeholder", (), {"dtype": _FLOAT, "shape": _SHAPE})]
        nodes += [
            Node(
                name,
                "VarHandleOp",
                (),
                {"dtype": _FLOAT, "shape": _SHAPE, "shared_name": attrs.of_bytes(name.encode())},
            )
            for name in self.variables
        ]
        nodes.append(
            call(
                "StatefulPartitionedCall",
                "signature_wrapper",
                ("serving_default_x", *self.variables),
            )
        )
        nodes += self._restore()
        graph = Graph(
            nodes={node.name: node for node in nodes}, functions=self.functions, producer=2000
        )
        (folder / "variables").mkdir(parents=True, exist_ok=True)
        (folder / "saved_model.pb").write_bytes(saved_model(graph))
        write_bundle(folder / "variables" / "variables", self.variables)

    def _restore(self) -> list[Node]:
        """The restore op, as TensorFlow 2 writes it: a call of a function."""
        if not self.variables:
            return []
        count = len(self.variables)
        types = {"dtypes": attrs.of_types([DType.FLOAT] * count)}
        restore = Node("RestoreV2", "RestoreV2", ("prefix", "names", "slices"), types)
        body = [
            const("names", DType.STRING, (count,), [name.encode() for name in self.variables]),
            const("slices", DType.STRING, (count,), [b""] * count),
            restore,
        ]
        args = [Arg("prefix", DType.STRING)]
        for i in range(count):
            value = "RestoreV2" if i == 0 else f"RestoreV2:{i}"
            args.append(Arg(f"h{i}", DType.RESOURCE))
            body.append(Node(f"read_{i}", "Identity", (value,), {"T": _FLOAT}))
            body.append(
                Node(f"assign_{i}", "AssignVariableOp", (f"h{i}", f"read_{i}"), {"dtype": _FLOAT})
            )
        waits = tuple(f"^assign_{i}" for i in range(count))
        body.append(
            Node("done", "Identity", ("prefix", *waits), {"T": attrs.of_type(DType.STRING)})
        )
        self.functions["restore"] = Function(
            name="restore",
            args=tuple(args),
            results=(Result("done", "done", DType.STRING),),
            nodes={node.name: node for node in body},
            is_stateful=True,
        )
        prefix = Node("saver_filename", "Placeholder", (), {"dtype": attrs.of_type(DType.STRING)})
        given = ("saver_filename", *self.variables)
        types = {
            "Tin": attrs.of_types([DType.STRING] + [DType.RESOURCE] * count),
            "Tout": attrs.of_types([DType.STRING]),
            "f": attrs.of_function("restore"),
        }
        return [prefix, Node("StatefulPartitionedCall_1", "StatefulPartitionedCall", given, types)]


def call(name: str, function: str, given: tuple[str, ...]) -> Node:
    """A call of a function that takes a float tensor and handles."""
    types = [DType.FLOAT] + [DType.RESOURCE] * (len(given) - 1)
    values = {
        "Tin": attrs.of_types(types),
        "Tout": attrs.of_types([DType.FLOAT]),
        "f": attrs.of_function(function),
    }
    return Node(name, "StatefulPartitionedCall", given, values)


def wide(nodes: int, folder: Path) -> None:
    maker = _Maker()
    count = max(1, nodes // _NODES)
    calls = []
    for i in range(count):
        handles = int((i + 1) * _VARIABLES) - int(i * _VARIABLES)
        maker.layer(f"layer_{i}", _NODES, handles)
        calls.append((f"layer_{i}", handles))
    maker.save(folder, "model", maker.caller("model", calls))


def nested(nodes: int, folder: Path) -> None:
    maker = _Maker()
    inner = None
    for level in range(_LEVELS):
        handles = level + 1
        maker.layer(f"level_{level}", nodes // _LEVELS, handles, inner)
        inner = (f"level_{level}", handles)
    maker.save(folder, f"level_{_LEVELS - 1}", _LEVELS)


def repeated(nodes: int, folder: Path) -> None:
    maker = _Maker()
    maker.layer("layer", max(5, nodes // _CALLS), 1)
    maker.save(folder, "model", maker.caller("model", [("layer", 1)] * _CALLS))


def loops(nodes: int, folder: Path) -> None:
    maker = _Maker()
    count = max(1, nodes // _NODES)
    calls = []
    for i in range(count):
        maker.layer(f"layer_{i}", _NODES - 3, 2)
        _loop_functions(maker, i)
        calls.append((f"layer_{i}", 2))
    maker.save(folder, "model", maker.caller("model", calls, loops=True))


def _loop_functions(maker: _Maker, number: int) -> None:
    """Condition and body that run a layer once: the loop ends when the counter is no longer 0."""
    args = [Arg("i", DType.INT32), Arg("x", DType.FLOAT)]
    args += [Arg(f"h{i}", DType.RESOURCE) for i in range(2)]
    integers = {"T": attrs.of_type(DType.INT32)}
    one = _int_const("one", 1)
    less = Node("less", "Less", ("i", "one"), integers)
    maker.functions[f"cond_{number}"] = Function(
        name=f"cond_{number}",
        args=tuple(args),
        results=(Result("go_on", "less", DType.BOOL),),
        nodes={"one": one, "less": less},
    )
    inner = call("inner", f"layer_{number}", ("x", "h0", "h1"))
    more = Node("more", "AddV2", ("i", "one"), integers)
    maker.functions[f"body_{number}"] = Function(
        name=f"body_{number}",
        args=tuple(args),
        results=(
            Result("more", "more", DType.INT32),
            Result("y", "inner", DType.FLOAT),
            Result("h0_out", "h0", DType.RESOURCE),
            Result("h1_out", "h1", DType.RESOURCE),
        ),
        nodes={node.name: node for node in (one, more, inner)},
        is_stateful=True,
    )


def _loop(called: Node, number: int) -> Node:
    """The loop that stands where a call stood."""
    types = attrs.of_types([DType.INT32, DType.FLOAT] + [DType.RESOURCE] * 2)
    values = {
        "T": types,
        "cond": attrs.of_function(f"cond_{number}"),
        "body": attrs.of_function(f"body_{number}"),
    }
    return Node(called.name, "While", ("zero", *called.inputs), values)


def _int_const(name: str, number: int) -> Node:
    return const(name, DType.INT32, (), struct.pack("<i", number))


def saved_model(graph: Graph) -> bytes:
    """The file ``saved_model.pb``."""
    message = message_class("SavedModel")(saved_model_schema_version=1)
    meta_graph = message.meta_graphs.add()
    meta_graph.meta_info_def.tags.append("serve")
    meta_graph.graph_def.MergeFromString(graph_def_bytes(graph))
    if "saver_filename" in graph.nodes:
        meta_graph.saver_def.restore_op_name = "StatefulPartitionedCall_1"
        meta_graph.saver_def.filename_tensor_name = "saver_filename:0"
        meta_graph.saver_def.save_tensor_name = "saver_filename:0"  # nobody saves; it must be there
        meta_graph.saver_def.version = 2
    signature = meta_graph.signature_def["serving_default"]
    signature.method_name = "tensorflow/serving/predict"
    for ends, key, tensor in (
        (signature.inputs, "x", "serving_default_x:0"),
        (signature.outputs, "y", "StatefulPartitionedCall:0"),
    ):
        ends[key].name = tensor
        ends[key].dtype = int(DType.FLOAT)
        ends[key].tensor_shape.dim.add(size=_LENGTH)
    data: bytes = message.SerializeToString(deterministic=True)
    return data


# ---------------------------------------------------------------- the checkpoint


def write_bundle(prefix: Path, names: Sequence[str]) -> None:
    """A tensor bundle of variables, all different.

    Source of the format: upstream ``core/util/tensor_bundle/tensor_bundle.cc``.
    """
    header = message_class("BundleHeaderProto")(num_shards=1)
    header.version.producer = 1
    entries = {b"": header.SerializeToString()}
    with open(f"{prefix}.data-00000-of-00001", "wb") as file:
        for number, name in enumerate(names):
            data = struct.pack(f"<{_LENGTH}f", *(1 + number / 1e6 for _ in range(_LENGTH)))
            entry = message_class("BundleEntryProto")(dtype=int(DType.FLOAT), size=len(data))
            entry.shape.dim.add(size=_LENGTH)
            entry.offset = file.tell()
            entry.crc32c = masked(crc32c.crc32c(data))
            entries[name.encode()] = entry.SerializeToString()
            file.write(data)
    Path(f"{prefix}.index").write_bytes(_table(sorted(entries.items())))


def _table(entries: Sequence[tuple[bytes, bytes]]) -> bytes:
    """A table of one block, in which no key is shortened."""
    data = _stored_block(entries)
    index = _stored_block([(entries[-1][0], varint(0) + varint(len(data) - 5))])
    handles = varint(0) + varint(0) + varint(len(data)) + varint(len(index) - 5)
    return data + index + handles.ljust(40, b"\0") + struct.pack("<Q", _TABLE_MAGIC)


def _stored_block(entries: Sequence[tuple[bytes, bytes]]) -> bytes:
    data = bytearray()
    for key, value in entries:
        data += varint(0) + varint(len(key)) + varint(len(value)) + key + value
    data += struct.pack("<II", 0, 1) + b"\0"
    return bytes(data) + struct.pack("<I", masked(crc32c.crc32c(data)))


KINDS = {"wide": wide, "nested": nested, "repeated": repeated, "loops": loops}


def main() -> None:
    _, kind, nodes, folder = sys.argv
    KINDS[kind](int(nodes), Path(folder))


if __name__ == "__main__":
    main()
