"""A graph in memory: nodes, functions, versions. Weights stay out of line.

Inside freezeflow tensors are named one way everywhere, in the main graph and in function bodies:
``node`` for output 0, ``node:2`` for output 2, ``^node`` for a control input, and in a function body
also the plain name of an argument. (A FunctionDef on disk says ``node:output_arg:index``; the reader
and the writer translate.) Control inputs come after the others.

Graphs and nodes are values: never change one that someone else may hold, make a new one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from freezeflow.graph import attrs as attr_values
from freezeflow.graph.ops import ArgDef, OpDef, arg_types, standard_op
from freezeflow.values import DType, TensorRef

# Up to this producer version a scalar `shape` attribute meant that nothing is known.
SCALAR_MEANS_UNKNOWN = 23


class Node(NamedTuple):
    """One node.

    Args:
        name: Unique in its graph or function body.
        op: The op, or the name of a function that is called as an op.
        inputs: Tensors in order, then control inputs (``^node``).
        attrs: Attribute name to ``AttrValue`` bytes (`freezeflow.graph.attrs`).
        device: Requested device; mostly empty.
        tensor: For a Const whose value is large: where its bytes are. Its ``value`` attribute then
            holds dtype and shape, and no content.
    """

    name: str
    op: str
    inputs: tuple[str, ...] = ()
    attrs: Mapping[str, bytes] = {}
    device: str = ""
    tensor: TensorRef | None = None


class Arg(NamedTuple):
    """An argument of a function.

    Args:
        name: Its name, by which the body's nodes take it.
        dtype: Its dtype; INVALID where the call's attribute `type_attr` tells it.
        type_attr: Name of that attribute, or empty.
        attrs: Attributes of the argument (``_output_shapes`` and the like), as ``AttrValue`` bytes.
    """

    name: str
    dtype: DType
    type_attr: str = ""
    attrs: Mapping[str, bytes] = {}


class Result(NamedTuple):
    """A result of a function: its name, the tensor of the body that it returns, its dtype."""

    name: str
    tensor: str
    dtype: DType
    type_attr: str = ""


class ControlResult(NamedTuple):
    """A node of the body that runs in every call for its effect."""

    name: str
    node: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """A function of the graph's library.

    Args:
        name: Its name.
        args: Arguments in order.
        results: Results in order.
        nodes: The body.
        control_results: Nodes of the body that run in every call for their effect.
        attrs: Attributes of the function, as ``AttrValue`` bytes.
        attr_defs: For a function with attribute placeholders: their ``OpDef.AttrDef`` messages.
        is_stateful: Whether its body holds a stateful op.
    """

    name: str
    args: tuple[Arg, ...]
    results: tuple[Result, ...]
    nodes: Mapping[str, Node]
    control_results: tuple[ControlResult, ...] = ()
    attrs: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    attr_defs: tuple[bytes, ...] = ()
    is_stateful: bool = False
    _named: tuple[str, ...] | None = dataclasses.field(
        default=None, init=False, repr=False, compare=False
    )

    @property
    def named(self) -> tuple[str, ...]:
        """The ops of its nodes and the functions that their attributes name, in order, each once."""
        if self._named is None:
            found: dict[str, None] = {}
            for node in self.nodes.values():
                found[node.op] = None
                found.update(dict.fromkeys(attr_values.functions_in(node.attrs)))
            # Found once for a function, which never changes.
            object.__setattr__(self, "_named", tuple(found))
        return self._named or ()

    @property
    def op_def(self) -> OpDef:
        """The function seen as an op, for nodes that call it by its name."""
        return OpDef(
            self.name,
            tuple(ArgDef(a.name, a.dtype, a.type_attr, "", "", False) for a in self.args),
            tuple(ArgDef(r.name, r.dtype, r.type_attr, "", "", False) for r in self.results),
            {},
            {},
            self.is_stateful,
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """A main graph with its function library.

    Args:
        nodes: Name to node, in the order of the file; canonical graphs are in canonical order.
        functions: Name to function.
        producer: ``versions.producer`` of the GraphDef.
        min_consumer: ``versions.min_consumer``.
        op_defs: Definitions of ops that are not TensorFlow's own, as the model carried them.
    """

    nodes: Mapping[str, Node]
    functions: Mapping[str, Function] = dataclasses.field(default_factory=dict)
    producer: int = 0
    min_consumer: int = 0
    op_defs: Mapping[str, OpDef] = dataclasses.field(default_factory=dict)

    def op_def(self, op: str) -> OpDef | None:
        """The definition of an op: standard, a function called by name, or brought by the model."""
        found = standard_op(op)
        if found is not None:
            return found
        if op in self.functions:
            return self.functions[op].op_def
        return self.op_defs.get(op)


def node_of(tensor: str) -> str:
    """The node (or argument) that a tensor or a control input names."""
    if tensor.startswith("^"):
        return tensor[1:]
    return tensor.partition(":")[0]


def split(tensor: str) -> tuple[str, int]:
    """Node and output number of a tensor: ``("x", 0)`` for ``x``, ``("x", 2)`` for ``x:2``."""
    name, _, index = tensor.partition(":")
    return name, int(index) if index else 0


def join(name: str, index: int) -> str:
    """The tensor that is output `index` of a node."""
    return name if index == 0 else f"{name}:{index}"


def data_inputs(node: Node) -> Iterator[str]:
    """The inputs of a node without its control inputs."""
    return (tensor for tensor in node.inputs if not tensor.startswith("^"))


def control_inputs(node: Node) -> Iterator[str]:
    """Names of the nodes that a node waits for."""
    return (tensor[1:] for tensor in node.inputs if tensor.startswith("^"))


def waits(node: Node) -> bool:
    """Whether a node has control inputs."""
    return bool(node.inputs) and node.inputs[-1][:1] == "^"


def called_functions(node: Node) -> Iterator[str]:
    """Names of the functions that a node's attributes name (not the op itself)."""
    yield from attr_values.functions_in(node.attrs)


def output_types(graph: Graph, node: Node) -> tuple[DType, ...] | None:
    """The dtypes of a node's outputs; None where the op is not known.

    Raises:
        KeyError: The node lacks an attribute that the op's definition asks for.
        ValueError: An attribute holds no dtype that is known, or no possible number.
    """
    definition = graph.op_def(node.op)
    if definition is None:
        return None
    grouped = arg_types(definition.outputs, node.attrs, definition.defaults)
    return tuple(dtype for group in grouped for dtype in group)
