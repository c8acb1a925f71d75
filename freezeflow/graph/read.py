"""Graphs from their messages: GraphDef and function library to `Graph`, weights left in the file.

Source of the formats: upstream ``core/framework/graph.proto``, ``node_def.proto``,
``function.proto``. What carries no meaning (debug info, inferred shapes, inferred full types) is
left behind here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from google.protobuf.message import DecodeError

from freezeflow.errors import ModelRefused
from freezeflow.graph import attrs, ops
from freezeflow.graph.graph import (
    Arg,
    ControlResult,
    Function,
    Graph,
    Node,
    Result,
    called_functions,
    join,
    node_of,
)
from freezeflow.graph.targets import newest_version
from freezeflow.messages import raw_class
from freezeflow.values import Digest, DType, Location, TensorRef

# A large Const of a skeleton names its bytes by digest in this attribute.
TENSOR_ATTR = "_freezeflow_tensor"

# Inferred by TensorFlow and written down; they can contradict the graph and are never needed.
_INFERRED_ATTRS = frozenset({"_output_shapes", "_handle_dtypes", "_handle_shapes"})

# Sets of attributes of fewer bytes are worth remembering.
_LARGE_ATTRS_BYTES = 256

_DAMAGED = "The file is damaged or was edited; write the model again."

# No node has outputs whose number is longer.
_MAX_DIGITS = 10


class GraphReader:
    """Reads one GraphDef message; functions are read only when they are reached.

    Args:
        message: The ``GraphDef`` message.
        op_defs: Messages of the op definitions that came with the model.
        where: Names the file in errors.
        locate: Gives the location of the tensor with a digest, for skeletons.
        marker: What `wire.excise` left in the place of a large content.
        cuts: Digest and location of each content that was left out.
    """

    def __init__(
        self,
        message: Any,
        *,
        op_defs: Iterable[Any] = (),
        where: str = "",
        locate: Callable[[Digest], Location] | None = None,
        marker: bytes = b"",
        cuts: Sequence[tuple[Digest, Location]] = (),
    ) -> None:
        if not isinstance(message, raw_class("GraphDef")):
            message = raw_class("GraphDef").FromString(message.SerializeToString())
        self._message = message
        self._where = where
        self._locate = locate
        self._marker = marker
        self._cuts = cuts
        self._op_defs = {op.name: self._op_def(op) for op in op_defs}
        self._library = {f.signature.name: f for f in message.library.function}
        self._functions: dict[str, Function] = {}
        self._first_outputs: dict[str, str | None] = {}
        # The nodes of an op share a few sets of attributes: as they were written, and as they are.
        self._known_sets: dict[tuple[str, tuple[bytes, ...]], dict[str, bytes]] = {}
        self._shared_sets: dict[tuple[str, tuple[tuple[str, bytes], ...]], dict[str, bytes]] = {}
        self.nodes = self._read_main()

    def graph(self, roots: Iterable[str] | None = None) -> Graph:
        """The graph that the root nodes need (all of it without roots), with the functions in reach.

        Raises:
            ModelRefused: A function or an op's definition is missing, or names are not unique.
        """
        nodes = self.nodes if roots is None else self._reached(roots)
        functions = self._reached_functions(nodes.values())
        versions = self._message.versions
        if versions.min_consumer and versions.min_consumer > newest_version():
            raise ModelRefused(
                f"the graph asks for readers of version {versions.min_consumer} or later; the newest"
                f" TensorFlow that is known here is of version {newest_version()}",
                where=self._where,
                hint="Look for a newer freezeflow, or write the model with an older TensorFlow.",
            )
        return Graph(
            nodes=nodes,
            functions=functions,
            producer=versions.producer,
            min_consumer=versions.min_consumer,
            op_defs=self._used_op_defs(nodes, functions),
        )

    # ------------------------------------------------------------ main graph

    def _read_main(self) -> dict[str, Node]:
        nodes: dict[str, Node] = {}
        for message in self._message.node:
            self._add(nodes, self._node(message, self._plain_input))
        return nodes

    def _add(self, nodes: dict[str, Node], node: Node, inside: str = "") -> None:
        # Names stand in messages to people, as they are.
        if not (node.name.isprintable() and node.op.isprintable()):
            raise self._damaged(f"a node{inside} is called {node.name!r}, its op {node.op!r}")
        if node.name in nodes:
            raise self._damaged(f"two nodes{inside} are named {node.name!r}")
        nodes[node.name] = node

    def _plain_input(self, tensor: str) -> str:
        name, colon, index = tensor.partition(":")
        if colon and not _is_number(index):
            raise self._damaged(f"an input is called {tensor!r}, which is no tensor's name")
        return name if index == "0" else tensor

    def _damaged(self, message: str) -> ModelRefused:
        return ModelRefused(message, where=self._where, hint=_DAMAGED)

    def _dtype(self, number: int) -> DType:
        """A dtype by its number, a reference's as that of its value."""
        try:
            return DType(number - 100 if number > 100 else number)
        except ValueError:
            raise self._damaged(f"there is a dtype number {number}, which is not known") from None

    def _node(self, message: Any, translate: Callable[[str], str]) -> Node:
        name, op = message.name, message.op
        entries = tuple(message.attr)
        values, tensor = self._known_sets.get((op, entries)), None
        if values is None:
            values = self._attrs(name, op, entries)
            if op == "Const":
                values, tensor = self._const(name, values)
            if tensor is None and sum(map(len, entries)) < _LARGE_ATTRS_BYTES:
                values = self._shared_sets.setdefault((op, tuple(values.items())), values)
                self._known_sets[op, entries] = values
        inputs = message.input
        tensors = [translate(i) for i in inputs if i[:1] != "^"]
        if len(tensors) < len(inputs):
            tensors += dict.fromkeys(i for i in inputs if i[:1] == "^")
        return Node(name, op, tuple(tensors), values, message.device, tensor)

    def _attrs(self, name: str, op: str, entries: Iterable[bytes]) -> dict[str, bytes]:
        """The attributes that count, by sorted name; of two with one name the last, as in any map."""
        try:
            read = map(raw_class("NodeDef.AttrEntry").FromString, entries)
            found = {entry.key: entry.value for entry in read}
        except DecodeError:
            raise self._damaged(f"an attribute of node {name!r} ({op}) is damaged") from None
        return {
            key: self._attr(name, op, key, found[key])
            for key in sorted(found)
            if key not in _INFERRED_ATTRS
        }

    def _attr(self, name: str, op: str, key: str, raw: bytes) -> bytes:
        """The canonical bytes of an attribute."""
        try:
            data = attrs.canonical(raw)
        except DecodeError:
            raise self._damaged(f"attribute {key!r} of node {name!r} ({op}) is damaged") from None
        unknown = attrs.unknown_dtype(data)
        if unknown is not None:
            raise self._damaged(
                f"attribute {key!r} of node {name!r} ({op}) holds dtype number {unknown},"
                " which is not known"
            )
        return data

    def _const(
        self, name: str, values: dict[str, bytes]
    ) -> tuple[dict[str, bytes], TensorRef | None]:
        """Puts a large value out of line."""
        if TENSOR_ATTR in values and self._locate is not None:
            digest = Digest.parse(attrs.to_bytes(values.pop(TENSOR_ATTR)).decode())
            found = (digest, self._locate(digest))
        else:
            # Few constants are parsed: those that hold the marker somewhere.
            if not self._marker or self._marker not in values.get("value", b""):
                return values, None
            content = attrs.message(values["value"]).tensor.tensor_content
            size = len(self._marker)
            if not (len(content) == size + 8 and content.startswith(self._marker)):
                return values, None
            found = self._cuts[int.from_bytes(content[size:], "big")]
            values["value"] = _without_content(values["value"])
        tensor = attrs.message(values.get("value", b"")).tensor
        sizes = tuple(dim.size for dim in tensor.tensor_shape.dim)
        reference = TensorRef(found[0], self._dtype(tensor.dtype), sizes, found[1])
        self._check_size(name, reference)
        return values, reference

    def _check_size(self, name: str, tensor: TensorRef) -> None:
        if min(tensor.shape, default=0) < 0 or (
            math.prod(tensor.shape) * tensor.dtype.item_bytes != tensor.nbytes
        ):
            raise ModelRefused(
                f"constant {name!r} holds {tensor.nbytes} bytes, not what"
                f" {tensor.dtype.tf_name}{list(tensor.shape)} needs",
                where=self._where,
                hint="The file is damaged; write the model again.",
            )

    def _reached(self, roots: Iterable[str]) -> dict[str, Node]:
        seen: set[str] = set()
        stack = list(roots)
        while stack:
            name = stack.pop()
            if name in seen:
                continue
            seen.add(name)
            if name not in self.nodes:
                raise ModelRefused(
                    f"node {name!r} is named, but is not in the graph",
                    where=self._where,
                    hint=_DAMAGED,
                )
            stack += map(node_of, self.nodes[name].inputs)
        return {name: node for name, node in self.nodes.items() if name in seen}

    # ------------------------------------------------------------ functions

    def _reached_functions(self, nodes: Iterable[Node]) -> dict[str, Function]:
        reached: dict[str, Function] = {}
        stack = list(dict.fromkeys(name for node in nodes for name in self._named_by(node)))
        while stack:
            name = stack.pop()
            if name in reached:
                continue
            reached[name] = self.function(name)
            stack += [f for node in reached[name].nodes.values() for f in self._named_by(node)]
        return dict(sorted(reached.items()))

    def _named_by(self, node: Node) -> Iterable[str]:
        yield from called_functions(node)
        if node.op in self._library:
            yield node.op

    def function(self, name: str) -> Function:
        """One function of the library.

        Raises:
            ModelRefused: There is none of that name, or an op that it uses has no definition.
        """
        if name not in self._functions:
            if name not in self._library:
                raise ModelRefused(
                    f"function {name!r} is called, but is not in the graph's library",
                    where=self._where,
                    hint=_DAMAGED,
                )
            self._functions[name] = self._read_function(self._library[name])
        return self._functions[name]

    def _read_function(self, message: Any) -> Function:
        signature = message.signature
        translate = self._translator(message)
        nodes: dict[str, Node] = {}
        for node_message in message.node_def:
            node = self._node(node_message, translate)
            self._add(nodes, node, f" of function {signature.name!r}")
        return Function(
            name=signature.name,
            args=tuple(
                self._arg(signature, i, message.arg_attr) for i in range(len(signature.input_arg))
            ),
            results=tuple(
                Result(
                    arg.name,
                    translate(message.ret.get(arg.name, "")),
                    self._dtype(arg.type),
                    arg.type_attr,
                )
                for arg in signature.output_arg
            ),
            nodes=nodes,
            control_results=tuple(
                ControlResult(name, node) for name, node in sorted(message.control_ret.items())
            ),
            attrs={key: attrs.encode(value) for key, value in message.attr.items()},
            attr_defs=tuple(attr.SerializeToString(deterministic=True) for attr in signature.attr),
            is_stateful=signature.is_stateful,
        )

    def _arg(self, signature: Any, index: int, arg_attrs: Mapping[int, Any]) -> Arg:
        arg = signature.input_arg[index]
        if arg.number_attr or arg.type_list_attr:
            raise ModelRefused(
                f"argument {arg.name!r} of function {signature.name!r} is a list of tensors",
                where=self._where,
                hint="TensorFlow 2 writes no such functions; save the model again with it.",
            )
        values = {}
        if index in arg_attrs:
            values = {
                key: attrs.encode(value)
                for key, value in arg_attrs[index].attr.items()
                if key not in _INFERRED_ATTRS
            }
        return Arg(arg.name, self._dtype(arg.type), arg.type_attr, values)

    def _translator(self, function: Any) -> Callable[[str], str]:
        """From ``node:output_arg:index`` to ``node:flat_index``, for one function's body."""
        by_name = {node.name: node for node in function.node_def}
        known = {}
        for name, node in by_name.items():
            output = self._first_output(node.op)
            if output is not None:
                known[f"{name}:{output}:0"] = name
        known.update((arg.name, arg.name) for arg in function.signature.input_arg)
        numbers: dict[tuple[str, str], Sequence[int]] = {}

        def find(tensor: str) -> str:
            name, _, rest = tensor.partition(":")
            output, _, index = rest.partition(":")
            if name in by_name and (name, output) not in numbers:
                numbers.update(self._outputs(function, by_name[name]))
            there = numbers.get((name, output), ())
            if not _is_number(index or "0") or int(index or "0") >= len(there):
                raise self._dangling(function, tensor)
            return join(name, there[int(index or "0")])

        def translate(tensor: str) -> str:
            found = known.get(tensor)
            if found is None:
                found = known[tensor] = find(tensor)
            return found

        return translate

    def _first_output(self, op: str) -> str | None:
        """The name of an op's first output, which most edges take; None where it may be a list."""
        if op not in self._first_outputs:
            definition = self._definition(op)
            outputs = () if definition is None else definition.outputs[:1]
            single = [a.name for a in outputs if not (a.number_attr or a.type_list_attr)]
            self._first_outputs[op] = single[0] if single else None
        return self._first_outputs[op]

    def _outputs(self, function: Any, node: Any) -> dict[tuple[str, str], range]:
        """Node and output argument to the flat numbers of its tensors."""
        definition = self._definition(node.op)
        if definition is None:
            raise ModelRefused(
                f"op {node.op!r} of node {node.name!r} in function {function.signature.name!r}"
                " is not known: neither TensorFlow nor the model defines it",
                where=self._where,
                hint="Save the model where the op's library is loaded, so that its definition is kept.",
            )
        values = self._attrs(node.name, node.op, node.attr)
        try:
            grouped = ops.arg_types(definition.outputs, values, definition.defaults)
        except KeyError as missing:
            raise self._damaged(
                f"node {node.name!r} ({node.op}) lacks attribute {missing}"
            ) from None
        except ValueError as unknown:
            raise self._damaged(
                f"node {node.name!r} ({node.op}) names a dtype: {unknown}"
            ) from None
        numbers, position = {}, 0
        for arg, types in zip(definition.outputs, grouped, strict=True):
            numbers[node.name, arg.name] = range(position, position + len(types))
            position += len(types)
        return numbers

    def _dangling(self, function: Any, tensor: str) -> ModelRefused:
        return ModelRefused(
            f"function {function.signature.name!r} uses {tensor!r}, which is not there",
            where=self._where,
            hint=_DAMAGED,
        )

    def _definition(self, op: str) -> ops.OpDef | None:
        found = ops.standard_op(op) or self._op_defs.get(op)
        if found is None and op in self._library:
            return self._op_def(self._library[op].signature)
        return found

    def _op_def(self, message: Any) -> ops.OpDef:
        try:
            return ops.from_message(message)
        except ValueError as unknown:
            raise self._damaged(f"the definition of op {message.name!r}: {unknown}") from None

    def _used_op_defs(
        self, nodes: Mapping[str, Node], functions: Mapping[str, Function]
    ) -> dict[str, ops.OpDef]:
        """The definitions that the graph itself has to carry: those of ops TensorFlow lacks."""
        used = {node.op for node in nodes.values()}
        for function in functions.values():
            used |= {node.op for node in function.nodes.values()}
        return {
            name: self._op_defs[name]
            for name in sorted(used)
            if name in self._op_defs and ops.standard_op(name) is None
        }


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < _MAX_DIGITS


def _without_content(data: bytes) -> bytes:
    value = attrs.message(data)
    slim = type(value)()
    slim.CopyFrom(value)
    slim.tensor.ClearField("tensor_content")
    return attrs.encode(slim)
