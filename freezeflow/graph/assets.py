"""Asset files taken into the graph, so that it needs no file and names no path.

A table that is initialised from a vocabulary file is initialised from constants instead; an asset
that the graph reads whole (ReadFile) becomes a string constant. Source of the file format: upstream
``core/kernels/lookup_util.cc`` (text file initialiser) and ``core/ops/lookup_ops.cc``.
"""

from __future__ import annotations

import dataclasses
import math
import struct
from collections.abc import Callable, Mapping
from fractions import Fraction

from freezeflow.errors import ModelRefused
from freezeflow.graph import attrs
from freezeflow.graph.constants import const, strings_of
from freezeflow.graph.graph import Graph, Node, control_inputs, data_inputs, node_of, split
from freezeflow.graph.model import Asset, Model
from freezeflow.graph.tensor_values import quoted
from freezeflow.graph.write import read_range
from freezeflow.values import DType

_FROM_FILE = {
    "InitializeTableFromTextFile": "InitializeTable",
    "InitializeTableFromTextFileV2": "InitializeTableV2",
}

# Ops that read files, with the number of the input that names them.
_READERS = """
    Restore RestoreV2 ReadFile MatchingFiles TextLineDataset TFRecordDataset TFRecordDatasetV2
    FixedLengthRecordDataset FixedLengthRecordDatasetV2
"""
_FILE_INPUT = {**dict.fromkeys(_FROM_FILE, 1), **dict.fromkeys(_READERS.split(), 0)}

# What a column index of a vocabulary file means when it is not the number of a column.
_WHOLE_LINE = -2
_LINE_NUMBER = -1


def embed_assets(model: Model) -> Model:
    """Replaces what reads an asset file by constants with the file's contents.

    Raises:
        ModelRefused: A vocabulary file does not hold what its table asks for, or an op other than
            a table's initialiser or ReadFile takes an asset's path; or a file that is no asset is read,
            by a path that is a constant.
    """
    if model.assets:
        nodes = dict(model.graph.nodes)
        by_tensor = {asset.tensor: asset for asset in model.assets}
        for node in model.graph.nodes.values():
            for tensor in data_inputs(node):
                asset = _asset(nodes, tensor, by_tensor)
                if asset is not None and node.op != "Identity":
                    nodes.update(_embedded(nodes, node, asset))
        graph = dataclasses.replace(model.graph, nodes=nodes)
        model = dataclasses.replace(model, graph=graph, assets=())
    _check_files(model.graph)
    return model


def _check_files(graph: Graph) -> None:
    """Refuses files that do not belong to the model: nobody else has them, or has others there."""
    for nodes in (graph.nodes, *(function.nodes for function in graph.functions.values())):
        for node in nodes.values():
            if node.op in _FILE_INPUT:
                path = _path(nodes, node.inputs[_FILE_INPUT[node.op]])
                if path:
                    raise ModelRefused(
                        f"op {node.op} reads {quoted(path)}, a file that is not part of the model",
                        where=node.name,
                        hint="Save the model anew with the file among its assets (tf.saved_model.Asset), or"
                        " with its contents as constants (tables: tf.lookup.KeyValueTensorInitializer).",
                    )


def _path(nodes: Mapping[str, Node], tensor: str) -> bytes:
    """The path that a tensor always holds; empty where it is not known."""
    node = nodes.get(node_of(tensor))
    while node is not None and node.op == "Identity":
        node = nodes.get(node_of(node.inputs[0]))
    paths = strings_of(node) if node is not None and node.op == "Const" else ()
    return paths[0] if paths else b""


def _asset(nodes: Mapping[str, Node], tensor: str, by_tensor: Mapping[str, Asset]) -> Asset | None:
    name, _ = split(tensor)
    while name not in by_tensor and name in nodes and nodes[name].op == "Identity":
        name = node_of(nodes[name].inputs[0])
    return by_tensor.get(name)


def _embedded(nodes: Mapping[str, Node], node: Node, asset: Asset) -> dict[str, Node]:
    content = read_range(asset.content.location)
    if node.op == "ReadFile":
        value = const(node.name, DType.STRING, (), [content])
        control = tuple(i for i in node.inputs if i.startswith("^"))
        return {node.name: value._replace(inputs=control)}
    if node.op in _FROM_FILE:
        return _initialized(nodes, node, asset, content)
    raise ModelRefused(
        f"op {node.op} reads the asset file {asset.name!r} itself",
        where=node.name,
        hint="A frozen graph names no files. Read the file with tf.io.read_file or a lookup table,"
        " or feed its content.",
    )


def _initialized(
    nodes: Mapping[str, Node], node: Node, asset: Asset, content: bytes
) -> dict[str, Node]:
    """An initialiser that takes constants in place of one that takes a file."""
    table = node_of(next(data_inputs(node)))
    while nodes[table].op == "Identity":
        table = node_of(nodes[table].inputs[0])
    types = nodes[table].attrs
    if not {"key_dtype", "value_dtype"} <= types.keys():
        raise ModelRefused(
            f"op {nodes[table].op} is filled from the file {asset.name!r}, but is no table",
            where=node.name,
            hint="The model is damaged or was edited; write it again.",
        )
    rows = _rows(node, asset, content)
    columns = {}
    parsed: dict[str, list[int | float | bytes]] = {}
    for role, attr, index_attr in (
        ("keys", "key_dtype", "key_index"),
        ("values", "value_dtype", "value_index"),
    ):
        dtype = attrs.to_type(types[attr])
        index = attrs.to_int(node.attrs[index_attr])
        column = _column(rows, index, _parser(dtype, node, asset), node, asset)
        parsed[role] = column
        columns[role] = _constant(f"{node.name}/{role}", dtype, column)
    _check_keys(parsed["keys"], parsed["values"], node, asset)
    new = Node(
        node.name,
        _FROM_FILE[node.op],
        (
            next(data_inputs(node)),
            columns["keys"].name,
            columns["values"].name,
            *(f"^{name}" for name in control_inputs(node)),
        ),
        {"Tkey": types["key_dtype"], "Tval": types["value_dtype"]},
        node.device,
    )
    return {made.name: made for made in (*columns.values(), new)}


def _rows(node: Node, asset: Asset, content: bytes) -> list[tuple[int, bytes, list[bytes]]]:
    """Line number, whole line and columns of each line that counts.

    What TensorFlow refuses is refused: an empty file, an empty line, fewer lines than asked for.
    """
    # TensorFlow takes off one carriage return before the line's end.
    lines = [line[:-1] if line.endswith(b"\r") else line for line in content.split(b"\n")]
    if not lines[-1]:
        lines.pop()
    offset = attrs.to_int(node.attrs["offset"]) if "offset" in node.attrs else 0
    wanted = attrs.to_int(node.attrs["vocab_size"]) if "vocab_size" in node.attrs else -1
    delimiter = attrs.to_bytes(node.attrs["delimiter"]) if "delimiter" in node.attrs else b"\t"
    if not delimiter:
        raise _bad_file(asset, node, "is to be split at nothing")
    if not lines:
        raise _bad_file(asset, node, "is empty")
    if wanted > len(lines):
        raise _bad_file(asset, node, f"has {len(lines)} lines, the table asks for {wanted}")
    if wanted != -1:
        lines = lines[:wanted]
    if b"" in lines:
        raise _bad_file(asset, node, f"has an empty line, number {lines.index(b'') + 1}")
    return [(n + offset, line, line.split(delimiter)) for n, line in enumerate(lines)]


def _check_keys(
    keys: list[int | float | bytes], values: list[int | float | bytes], node: Node, asset: Asset
) -> None:
    """Refuses two values for one key, as TensorFlow does."""
    known: dict[int | float | bytes, int | float | bytes] = {}
    for key, value in zip(keys, values, strict=True):
        if key in known and known[key] != value:
            shown = key.decode(errors="replace") if isinstance(key, bytes) else key
            raise _bad_file(asset, node, f"has the key {shown!r} twice, with different values")
        known[key] = value


def _column(
    rows: list[tuple[int, bytes, list[bytes]]],
    index: int,
    parse: Callable[[bytes], int | float | bytes],
    node: Node,
    asset: Asset,
) -> list[int | float | bytes]:
    if index == _LINE_NUMBER:
        return [number for number, _, _ in rows]
    if index == _WHOLE_LINE:
        return [parse(line) for _, line, _ in rows]
    if index < 0:
        raise _bad_file(asset, node, f"has no column {index}")
    short = next((number for number, _, columns in rows if len(columns) <= index), None)
    if short is not None:
        raise _bad_file(asset, node, f"has no column {index} in line {short + 1}")
    return [parse(columns[index]) for _, _, columns in rows]


def _parser(dtype: DType, node: Node, asset: Asset) -> Callable[[bytes], int | float | bytes]:
    def number(text: bytes) -> int | float:
        try:
            return _number(text.decode("ascii"), dtype)
        except (ValueError, struct.error, OverflowError):
            shown = text.decode(errors="replace")
            raise _bad_file(asset, node, f"holds {shown!r}, which is no {dtype.tf_name}") from None

    return (lambda text: text) if dtype is DType.STRING else number


def _number(text: str, dtype: DType) -> int | float:
    """A number as TensorFlow reads it (upstream ``strings/numbers.cc``).

    Raises:
        ValueError, struct.error, OverflowError: The text is no number of that dtype.
    """
    if "_" in text:
        raise ValueError(text)  # fine for Python only
    if dtype in (DType.FLOAT, DType.DOUBLE):
        value = float.fromhex(text) if "0x" in text.lower() else float(text)
        return value if dtype is DType.DOUBLE else _nearest_float(value, text)
    number = int(text)
    struct.pack(_STRUCT.get(dtype, "q"), number)
    return number


def _nearest_float(value: float, text: str) -> float:
    """The float32 that is nearest to a decimal number, of which `value` is the nearest float64."""
    try:
        near: float = struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)
    if not math.isfinite(near) or near == value or "0x" in text.lower():
        return near
    (bits,) = struct.unpack("<i", struct.pack("<f", near))
    step = 1 if (value > near) == (near > 0 or (near == 0 and value > 0)) else -1
    other: float = struct.unpack("<f", struct.pack("<i", bits + step))[0]
    if abs(value - near) != abs(other - value):
        return near
    # Half way between two: the digits that a float64 has no room for decide.
    exact = Fraction(text.strip())
    if exact == Fraction(value):
        return near
    return max(near, other) if exact > Fraction(value) else min(near, other)


_STRUCT = {DType.INT32: "i", DType.INT64: "q", DType.FLOAT: "f", DType.DOUBLE: "d"}


def _constant(name: str, dtype: DType, column: list[int | float | bytes]) -> Node:
    if dtype is DType.STRING:
        strings = [v if isinstance(v, bytes) else str(v).encode() for v in column]
        return const(name, dtype, (len(strings),), strings)
    if dtype not in _STRUCT:
        raise ModelRefused(f"a table of {dtype.tf_name} cannot be read from a file", where=name)
    return const(
        name, dtype, (len(column),), struct.pack(f"<{len(column)}{_STRUCT[dtype]}", *column)
    )


def _bad_file(asset: Asset, node: Node, problem: str) -> ModelRefused:
    return ModelRefused(
        f"vocabulary file {asset.name!r} {problem}",
        where=node.name,
        hint="The file does not belong to this model; copy the whole SavedModel folder.",
    )
