"""A graph as the bytes of a GraphDef file, weights as ranges of the files where they lie.

The wire format is written directly: every length is known before the first byte, and the contents
of large constants never pass through a message. Node and attribute order is the graph's own and
sorted, so the same graph always gives the same bytes. Source of the format: upstream
``core/framework/graph.proto`` and https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from freezeflow.errors import ModelRefused
from freezeflow.graph import attrs, ops
from freezeflow.graph.graph import Function, Graph, Node, split
from freezeflow.graph.read import TENSOR_ATTR
from freezeflow.graph.wire import varint
from freezeflow.messages import message_class
from freezeflow.store.files import writing_failed
from freezeflow.store.kernel import copy
from freezeflow.values import Location

# Part of a file: bytes as they are, or a range of another file.
Piece = bytes | Location


def graph_def_pieces(graph: Graph, *, skeleton: bool = False) -> Iterator[Piece]:
    """The GraphDef file of a graph, piece by piece.

    Args:
        graph: The graph; its order of nodes and functions is kept.
        skeleton: Write each large constant with the digest of its content instead of the content.

    Raises:
        ModelRefused: A function uses an op without a definition.
    """
    for node in graph.nodes.values():
        yield from _field(b"\x0a", _node_pieces(node, node.inputs, skeleton))
    library: list[Piece] = []
    for function in graph.functions.values():
        library += _field(b"\x0a", _function_pieces(graph, function, skeleton))
    if library:
        yield from _field(b"\x12", library)
    versions = message_class("VersionDef")(producer=graph.producer, min_consumer=graph.min_consumer)
    yield from _field(b"\x22", [versions.SerializeToString(deterministic=True)])


def graph_def_bytes(graph: Graph, *, skeleton: bool = False) -> bytes:
    """The GraphDef file of a graph in memory; for skeletons and for graphs known to be small."""
    return materialise(graph_def_pieces(graph, skeleton=skeleton))


def size_of(pieces: Iterable[Piece]) -> int:
    """Bytes that the pieces have together."""
    return sum(p.length if isinstance(p, Location) else len(p) for p in pieces)


def materialise(pieces: Iterable[Piece]) -> bytes:
    """The pieces in memory, file ranges read."""
    return b"".join(read_range(p) if isinstance(p, Location) else p for p in pieces)


def read_range(location: Location) -> bytes:
    """The bytes of a range of a file.

    Raises:
        ModelRefused: The file has become shorter.
    """
    with open(location.path, "rb") as file:
        file.seek(location.offset)
        data = file.read(location.length)
    if len(data) != location.length:
        raise _became_shorter(location)
    return data


def copy_range(location: Location, path: Path) -> None:
    """Copies a range of a file into a new file, without taking it into this process.

    Raises:
        ModelRefused: The file has become shorter.
        FreezeflowError: The new file cannot be written.
    """
    offset, left = location.offset, location.length
    try:
        with open(location.path, "rb") as source, open(path, "xb") as target:
            while left and (count := copy(source.fileno(), target.fileno(), offset, left)):
                offset, left = offset + count, left - count
    except OSError as error:
        raise writing_failed(error, path) from error
    if left:
        raise _became_shorter(location)


def _became_shorter(location: Location) -> ModelRefused:
    return ModelRefused(
        "the file became shorter while it was in use",
        where=location.path,
        hint="Leave a model alone while it is being frozen, and run again.",
    )


# ---------------------------------------------------------------- nodes


def _field(tag: bytes, pieces: list[Piece]) -> list[Piece]:
    """A length-delimited field; neighbouring bytes are joined."""
    if len(pieces) == 1 and isinstance(pieces[0], bytes):
        return [b"".join((tag, varint(len(pieces[0])), pieces[0]))]
    return [tag + varint(size_of(pieces)), *pieces]


def _text(tag: bytes, text: str) -> bytes:
    data = text.encode()
    return b"".join((tag, varint(len(data)), data))


# Most nodes of a large graph share a few ops and attributes.
_op = functools.lru_cache(maxsize=8192)(functools.partial(_text, b"\x12"))


def _node_pieces(node: Node, inputs: Iterable[str], skeleton: bool) -> list[Piece]:
    head = [_text(b"\x0a", node.name), _op(node.op)]
    head += [_text(b"\x1a", tensor) for tensor in inputs]
    if node.device:
        head.append(_text(b"\x22", node.device))
    values = node.attrs
    if node.tensor is not None and skeleton:
        values = {**values, TENSOR_ATTR: attrs.of_bytes(str(node.tensor.digest).encode())}
    if node.tensor is None or skeleton:
        head += [_attr(key, values[key]) for key in sorted(values)]
        return [b"".join(head)]
    before = [_attr(key, values[key]) for key in sorted(values) if key < "value"]
    after = [_attr(key, values[key]) for key in sorted(values) if key > "value"]
    value = _field(b"\x2a", [_key("value"), *_field(b"\x12", _large_value(node))])
    return [b"".join(head + before), *value, b"".join(after)]


def _key(name: str) -> bytes:
    return _text(b"\x0a", name)


def _attr(name: str, data: bytes) -> bytes:
    return _small_attr(name, data) if len(data) < 256 else _encoded_attr(name, data)


def _encoded_attr(name: str, data: bytes) -> bytes:
    entry = b"".join((_key(name), b"\x12", varint(len(data)), data))
    return b"".join((b"\x2a", varint(len(entry)), entry))


_small_attr = functools.lru_cache(maxsize=8192)(_encoded_attr)


def _large_value(node: Node) -> list[Piece]:
    """The AttrValue of a large constant: dtype and shape, then the content by its location."""
    assert node.tensor is not None
    head = attrs.message(node.attrs["value"]).tensor.SerializeToString(deterministic=True)
    content = _field(b"\x22", [node.tensor.location])
    return _field(b"\x42", [head, *content])


# ---------------------------------------------------------------- functions


def _function_pieces(graph: Graph, function: Function, skeleton: bool) -> list[Piece]:
    outside = _outside_names(graph, function)
    pieces: list[Piece] = [_text_message(b"\x0a", _signature(function))]
    for node in function.nodes.values():
        inputs = [outside(tensor) for tensor in node.inputs]
        pieces += _field(b"\x1a", _node_pieces(node, inputs, skeleton))
    for result in sorted(function.results):
        pieces.append(_pair(b"\x22", result.name, outside(result.tensor)))
    pieces += [_attr(key, function.attrs[key]) for key in sorted(function.attrs)]
    for name, node_name in sorted(function.control_results):
        pieces.append(_pair(b"\x32", name, node_name))
    for index, arg in enumerate(function.args):
        if arg.attrs:
            pieces.append(_arg_attrs(index, arg.attrs))
    return pieces


def _text_message(tag: bytes, message: Any) -> bytes:
    data = message.SerializeToString(deterministic=True)
    return b"".join((tag, varint(len(data)), data))


def _pair(tag: bytes, key: str, value: str) -> bytes:
    entry = _text(b"\x0a", key) + _text(b"\x12", value)
    return b"".join((tag, varint(len(entry)), entry))


def _arg_attrs(index: int, values: Any) -> bytes:
    message = message_class("FunctionDef")()
    for key, data in values.items():
        message.arg_attr[index].attr[key].MergeFromString(data)
    return bytes(message.SerializeToString(deterministic=True))


def _signature(function: Function) -> Any:
    signature = message_class("OpDef")(name=function.name, is_stateful=function.is_stateful)
    for arg in function.args:
        signature.input_arg.add(name=arg.name, type=int(arg.dtype), type_attr=arg.type_attr)
    for result in function.results:
        signature.output_arg.add(
            name=result.name, type=int(result.dtype), type_attr=result.type_attr
        )
    signature.control_output.extend(sorted(r.name for r in function.control_results))
    for data in function.attr_defs:
        signature.attr.add().MergeFromString(data)
    return signature


def _outside_names(graph: Graph, function: Function) -> Callable[[str], str]:
    """From ``node:flat_index`` to ``node:output_arg:index``, for one function's body."""
    arg_names = {arg.name for arg in function.args}
    names: dict[str, list[str]] = {}

    def outside(tensor: str) -> str:
        if tensor.startswith("^") or tensor in arg_names:
            return tensor
        name, index = split(tensor)
        if name not in names:
            names[name] = _output_names(graph, function, name)
        return f"{name}:{names[name][index]}"

    return outside


def _output_names(graph: Graph, function: Function, name: str) -> list[str]:
    node = function.nodes[name]
    definition = graph.op_def(node.op)
    if definition is None:
        raise ModelRefused(
            f"op {node.op!r} of node {name!r} in function {function.name!r} is not known",
            hint="Save the model where the op's library is loaded, so that its definition is kept.",
        )
    grouped = ops.arg_types(definition.outputs, node.attrs, definition.defaults)
    return [
        f"{arg.name}:{index}"
        for arg, types in zip(definition.outputs, grouped, strict=True)
        for index in range(len(types))
    ]
