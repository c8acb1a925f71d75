"""A model as coremltools' reader takes it for what it is.

The reader tells the results of a branch apart by their names, and by the one node that takes each:
results that are one tensor, or two of them taken by one node, become one. It refuses scalars as inputs, and
inputs and outputs other than float32, float16 and int32; it multiplies an input that is an output, too, by
1.0, whatever its element type. What is made here says all of that in the one way that it reads rightly.

Source: coremltools 9.0, below ``converters/mil/frontend``:
``tensorflow2/tf_graph_pass/rewrite_control_flow_functions.py`` and ``tensorflow/ops.py`` (``Identity``).
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Mapping

from freezeflow.graph import attrs
from freezeflow.graph.canonical import canonical
from freezeflow.graph.constants import const
from freezeflow.graph.graph import Function, Graph, Node, Result, data_inputs, join
from freezeflow.graph.inline import inline_model
from freezeflow.graph.model import Model
from freezeflow.graph.node_types import NodeTypes
from freezeflow.values import DType, Signature

# Element types of inputs and outputs that become integers of 32 bits: Core ML has no others, and within the
# model coremltools takes these two.
AS_INT32 = frozenset({DType.BOOL, DType.INT64})

BRANCHES = frozenset({"If", "StatelessIf"})
_SIDES = ("then_branch", "else_branch")


def coreml_form(model: Model) -> Model:
    """The model with ends that Core ML has, and with branches of their own.

    Inputs of one element come in place of scalars, integers of 32 bits in place of such of 64 and of truth
    values. Names of inputs and outputs stay.

    Args:
        model: A frozen model with one signature, whose outputs are nodes of their own.
    """
    for form in (inline_model, _with_placeholders, _with_integers, _with_vectors, _with_sums):
        model = form(model)
    model = canonical(model)
    return dataclasses.replace(model, graph=_Branches(model.graph).graph())


# ---------------------------------------------------------------- ends


def _with_placeholders(model: Model) -> Model:
    """With plain inputs in place of those with a default."""
    nodes = {
        name: node._replace(op="Placeholder", inputs=())
        if node.op == "PlaceholderWithDefault"
        else node
        for name, node in model.graph.nodes.items()
    }
    return dataclasses.replace(model, graph=dataclasses.replace(model.graph, nodes=nodes))


def _with_integers(model: Model) -> Model:
    """With integers of 32 bits in place of such of 64 and of truth values at the ends.

    A number other than 0 is true; the reader has no cast that says so.
    """
    ((name, signature),) = model.signatures.items()
    nodes, moved, given = dict(model.graph.nodes), {}, set()
    inputs, outputs = dict(signature.inputs), dict(signature.outputs)
    for key, spec in signature.inputs.items():
        if spec.dtype not in AS_INT32:
            continue
        inputs[key] = dataclasses.replace(spec, dtype=DType.INT32)
        node = nodes[spec.tensor]
        nodes[node.name] = node._replace(attrs={**node.attrs, "dtype": attrs.of_type(DType.INT32)})
        made = _free(nodes, f"{node.name}/given")
        if spec.dtype is DType.BOOL:
            zero = _free(nodes, f"{node.name}/zero")
            nodes[zero] = const(zero, DType.INT32, (), struct.pack("<i", 0))
            kinds = {"T": attrs.of_type(DType.INT32)}
            nodes[made] = Node(made, "NotEqual", (node.name, zero), kinds)
        else:
            nodes[made] = _cast(made, node.name, DType.INT32, spec.dtype)
        moved[node.name] = made
        given.add(made)
    for key, spec in signature.outputs.items():
        if spec.dtype not in AS_INT32:
            continue
        outputs[key] = dataclasses.replace(spec, dtype=DType.INT32)
        node = nodes[spec.tensor]
        found = _free(nodes, f"{node.name}/found")
        nodes[found] = node._replace(name=found)
        nodes[node.name] = _cast(node.name, found, spec.dtype, DType.INT32)
        moved[node.name] = found
    nodes = {each: node if each in given else _taking(node, moved) for each, node in nodes.items()}
    return dataclasses.replace(
        model,
        graph=dataclasses.replace(model.graph, nodes=nodes),
        signatures={name: Signature(inputs, outputs)},
    )


def _cast(name: str, tensor: str, given: DType, wanted: DType) -> Node:
    kinds = {"SrcT": attrs.of_type(given), "DstT": attrs.of_type(wanted)}
    return Node(name, "Cast", (tensor,), kinds)


def _with_vectors(model: Model) -> Model:
    """With inputs of one element in place of scalars, and what makes scalars of them again."""
    ((name, signature),) = model.signatures.items()
    nodes, moved, inputs = dict(model.graph.nodes), {}, dict(signature.inputs)
    for key, spec in signature.inputs.items():
        if spec.shape != ():
            continue
        inputs[key] = dataclasses.replace(spec, shape=(1,))
        node = nodes[spec.tensor]
        values = {"dtype": node.attrs["dtype"], "shape": attrs.of_shape((1,))}
        nodes[node.name] = node._replace(attrs=values)
        shape, scalar = _free(nodes, f"{node.name}/shape"), _free(nodes, f"{node.name}/scalar")
        nodes[shape] = const(shape, DType.INT32, (0,), b"")
        kinds = {"T": attrs.of_type(spec.dtype), "Tshape": attrs.of_type(DType.INT32)}
        nodes[scalar] = Node(scalar, "Reshape", (node.name, shape), kinds)
        moved[node.name] = scalar
    behind = frozenset(moved.values())
    nodes = {each: node if each in behind else _taking(node, moved) for each, node in nodes.items()}
    return dataclasses.replace(
        model,
        graph=dataclasses.replace(model.graph, nodes=nodes),
        signatures={name: Signature(inputs, signature.outputs)},
    )


def _with_sums(model: Model) -> Model:
    """With a sum with zero in place of an integer output that is an input."""
    ((_, signature),) = model.signatures.items()
    nodes = dict(model.graph.nodes)
    fed = {spec.tensor for spec in signature.inputs.values()}
    for spec in signature.outputs.values():
        node = nodes[spec.tensor]
        if node.op != "Identity" or node.inputs[0] not in fed or spec.dtype is not DType.INT32:
            continue
        zero = _free(nodes, f"{node.name}/zero")
        nodes[zero] = const(zero, DType.INT32, (), struct.pack("<i", 0))
        kinds = {"T": attrs.of_type(DType.INT32)}
        nodes[node.name] = Node(node.name, "AddV2", (node.inputs[0], zero), kinds)
    return dataclasses.replace(model, graph=dataclasses.replace(model.graph, nodes=nodes))


# ---------------------------------------------------------------- branches


class _Branches:
    """A graph in which each branch has functions of its own, whose results are nodes with known names."""

    def __init__(self, graph: Graph) -> None:
        self._given = graph
        self._types = NodeTypes(graph)
        self._functions: dict[str, Function] = {}

    def graph(self) -> Graph:
        nodes, _ = self._body(self._given.nodes, "identity")
        return dataclasses.replace(self._given, nodes=nodes, functions=self._functions)

    def _body(
        self, nodes: Mapping[str, Node], first: str
    ) -> tuple[dict[str, Node], dict[str, str]]:
        """A body's nodes, and where what its branches give is taken from.

        Args:
            nodes: The nodes.
            first: What the reader calls the first result of a branch in this body.
        """
        made = dict(nodes)
        moved: dict[str, str] = {}
        for node in nodes.values():
            if node.op not in BRANCHES:
                continue
            sides = {key: attrs.of_function(self._copied(node, key, first)) for key in _SIDES}
            made[node.name] = node._replace(attrs={**node.attrs, **sides})
            for index, dtype in enumerate(self._types.ends(node).outputs or ()):
                name = _free(made, f"{node.name}/result_{index}")
                taken = join(node.name, index)
                made[name] = Node(name, "Identity", (taken,), {"T": attrs.of_type(dtype)})
                moved[taken] = name
        behind = frozenset(moved.values())
        return {
            name: node if name in behind else _taking(node, moved) for name, node in made.items()
        }, moved

    def _copied(self, node: Node, key: str, first: str) -> str:
        """A function for this branch alone."""
        (called,) = attrs.function_names(node.attrs[key])
        given = self._given.functions[called]
        name = _free(self._functions, called)
        # Its place is taken before the branches within it take theirs.
        self._functions[name] = given
        # TensorFlow writes the first output of a node as ``x`` in a graph, and as ``x:0`` in a function.
        nodes, moved = self._body(given.nodes, "identity_0")
        results = []
        for index, result in enumerate(given.results):
            own = _free(nodes, f"result_{index}")
            taken = moved.get(result.tensor, result.tensor)
            nodes[own] = Node(own, "Identity", (taken,), {"T": attrs.of_type(result.dtype)})
            word = f"identity_{index}" if index else first
            results.append(Result(word, own, result.dtype))
        self._functions[name] = dataclasses.replace(
            given, name=name, nodes=nodes, results=tuple(results)
        )
        return name


def _taking(node: Node, moved: Mapping[str, str]) -> Node:
    """A node that takes tensors from where they are now."""
    if not any(tensor in moved for tensor in data_inputs(node)):
        return node
    return node._replace(inputs=tuple(moved.get(tensor, tensor) for tensor in node.inputs))


def _free(nodes: Mapping[str, object], name: str) -> str:
    while name in nodes:
        name += "_"
    return name
