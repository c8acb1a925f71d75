"""Default values of signature inputs: a caller may leave such an input out.

TensorFlow keeps them in the signature, where a frozen graph loses them; here the placeholder itself gets
its default. Source of the format: ``SignatureDef.defaults`` in upstream ``core/protobuf/meta_graph.proto``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from freezeflow.errors import ModelRefused
from freezeflow.graph import attrs
from freezeflow.graph.graph import Graph, Node, node_of
from freezeflow.messages import message_class
from freezeflow.values import Signature


def with_defaults(graph: Graph, meta_graph: Any, signatures: Mapping[str, Signature]) -> Graph:
    """The graph with placeholders that have a default turned into such as give it.

    Args:
        graph: The main graph, with the placeholders of the signatures.
        meta_graph: The ``MetaGraphDef`` message.
        signatures: The chosen signatures.

    Raises:
        ModelRefused: Two signatures give one placeholder different defaults.
    """
    nodes = dict(graph.nodes)
    given: dict[str, bytes] = {}
    for name, signature in signatures.items():
        if name not in meta_graph.signature_def:
            continue
        defaults = meta_graph.signature_def[name].defaults
        for key in sorted(set(defaults) & set(signature.inputs)):
            placeholder = node_of(signature.inputs[key].tensor)
            value = _value(defaults[key])
            if given.setdefault(placeholder, value) != value:
                raise ModelRefused(
                    f"two signatures give input {key!r} different defaults",
                    where=placeholder,
                    hint="Freeze them one by one.",
                )
            if placeholder in graph.nodes and graph.nodes[placeholder].op == "Placeholder":
                nodes.update(_with_default(graph.nodes[placeholder], value, nodes))
    return dataclasses.replace(graph, nodes=nodes) if given else graph


def _value(tensor: Any) -> bytes:
    message = message_class("AttrValue")()
    message.tensor.MergeFromString(tensor.SerializeToString())
    return attrs.encode(message)


def _with_default(placeholder: Node, value: bytes, taken: Mapping[str, Node]) -> dict[str, Node]:
    name = f"{placeholder.name}/default"
    while name in taken:
        name += "_"
    dtype = placeholder.attrs["dtype"]
    constant = Node(name, "Const", (), {"dtype": dtype, "value": value})
    values = {"dtype": dtype, "shape": placeholder.attrs.get("shape", attrs.of_shape(None))}
    inputs = (name, *(i for i in placeholder.inputs if i.startswith("^")))
    made = Node(placeholder.name, "PlaceholderWithDefault", inputs, values)
    return {name: constant, placeholder.name: made}
