"""Inputs and outputs named after a signature's keys, so that nobody has to look for `Identity_3:0`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping

from freezeflow.graph import attrs, walk
from freezeflow.graph.graph import Node, join, node_of, split
from freezeflow.graph.model import Model
from freezeflow.values import Shape, Signature, TensorSpec

PLACEHOLDERS = frozenset({"Placeholder", "PlaceholderV2", "PlaceholderWithDefault"})

_LAST_WITHOUT_SCALARS = 21

_INVALID = re.compile(r"[^A-Za-z0-9_.\-/]")
_NOT_IN_IDENTIFIERS = re.compile(r"[^A-Za-z0-9_]")


def name_ends(
    model: Model, *, after_signature: bool = True, reserved: frozenset[str] | None = None
) -> Model:
    """Gives every signature input a placeholder and every output a node of its own.

    With one signature the nodes are called after its keys, with several ``signature/key``; a node
    that has such a name already gives way, also if it is one in capitals: TensorFlow 2's loader of
    SavedModels takes `Any` and `any` for the same. A tensor that several keys name keeps its first name.

    Args:
        model: The model; signature inputs are placeholders, or gone from the graph.
        after_signature: False leaves the names of placeholders and outputs as they are.
        reserved: Names have to be identifiers, and other ones than these words; None where any will do.
    """
    naming = _Naming(model, after_signature, reserved)
    for name, signature in model.signatures.items():
        prefix = f"{name}/" if len(model.signatures) > 1 else ""
        naming.add_inputs(name, prefix, signature)
    for name, signature in model.signatures.items():
        prefix = f"{name}/" if len(model.signatures) > 1 else ""
        naming.add_outputs(name, prefix, signature)
    return naming.finished()


class _Naming:
    def __init__(
        self, model: Model, after_signature: bool, reserved: frozenset[str] | None
    ) -> None:
        self._model = model
        self._after_signature = after_signature
        self._reserved = reserved
        self._nodes = dict(model.graph.nodes)
        self._new_names: dict[str, str] = {}  # node -> name that it shall have
        self._wanted: set[str] = set()  # in small letters
        self._inputs: dict[str, dict[str, TensorSpec]] = {}
        self._outputs: dict[str, dict[str, TensorSpec]] = {}

    def add_inputs(self, name: str, prefix: str, signature: Signature) -> None:
        self._inputs[name] = dict(signature.inputs)
        for key, spec in signature.inputs.items():
            if spec.tensor not in self._new_names:
                self._add_placeholder(spec)
                self._claim(spec.tensor, prefix + key)

    def add_outputs(self, name: str, prefix: str, signature: Signature) -> None:
        ends = self._outputs[name] = {}
        for key, spec in signature.outputs.items():
            tensor = self._output(prefix + key, spec)
            ends[key] = dataclasses.replace(spec, tensor=tensor)

    def _add_placeholder(self, spec: TensorSpec) -> None:
        """The node that is fed; one that no output needs may have gone."""
        node = self._nodes.get(spec.tensor)
        if node is None:
            values = {"dtype": attrs.of_type(spec.dtype), "shape": attrs.of_shape(spec.shape)}
            self._nodes[spec.tensor] = Node(spec.tensor, "Placeholder", (), values)
        else:
            self._nodes[spec.tensor] = _with_shape(node, spec, self._model.graph.producer)

    def _output(self, wanted: str, spec: TensorSpec) -> str:
        name, index = split(spec.tensor)
        if not self._after_signature:
            return spec.tensor
        if index or not self._may_be_renamed(name):
            name = self._free(f"{name}/output")
            values = {"T": attrs.of_type(spec.dtype)}
            self._nodes[name] = Node(name, "Identity", (spec.tensor,), values)
        self._claim(name, wanted)
        return name

    def _may_be_renamed(self, name: str) -> bool:
        """Whether an output is an Identity that only hands on, and has not been named yet."""
        return (
            self._nodes[name].op == "Identity"
            and name not in self._new_names
            and name not in self._model.init
        )

    def _claim(self, name: str, wanted: str) -> None:
        if not self._after_signature:
            return
        clean = self._clean(wanted)
        number, unique = 0, clean
        while unique.lower() in self._wanted:
            number += 1
            unique = f"{clean}_{number}"
        self._wanted.add(unique.lower())
        self._new_names[name] = unique

    def _clean(self, wanted: str) -> str:
        """A name that may be used, and is as much as possible like the wanted one."""
        if self._reserved is None:
            clean = _INVALID.sub("_", wanted)
            return clean if re.match(r"[A-Za-z0-9.]", clean) else f".{clean}"
        clean = _NOT_IN_IDENTIFIERS.sub("_", wanted)
        clean = clean if re.match(r"[A-Za-z]", clean) else f"x{clean}"
        return f"{clean}_" if clean in self._reserved else clean

    def _as_met(self, name: str) -> str:
        """What a node's name is for whoever reads the file."""
        name = name if self._reserved is None else _NOT_IN_IDENTIFIERS.sub("_", name)
        return name.lower()

    def _free(self, name: str) -> str:
        number, unique = 0, name
        while unique in self._nodes:
            number += 1
            unique = f"{name}_{number}"
        return unique

    def finished(self) -> Model:
        names = self._all_names()

        def moved(tensor: str) -> str:
            name, index = split(tensor)
            return join(names.get(name, name), index)

        nodes = {}
        for name, node in self._nodes.items():
            new_name = names.get(name, name)
            if any(tensor in names or node_of(tensor) in names for tensor in node.inputs):
                node = node._replace(inputs=tuple(_renamed(t, names) for t in node.inputs))
            nodes[new_name] = node if name == new_name else node._replace(name=new_name)
        signatures = {
            name: Signature(_moved(self._inputs[name], moved), _moved(self._outputs[name], moved))
            for name in self._model.signatures
        }
        graph = dataclasses.replace(self._model.graph, nodes=nodes)
        variables = {
            names.get(handle, handle): value._replace(name=names.get(handle, handle))
            for handle, value in self._model.variables.items()
        }
        model = dataclasses.replace(
            self._model,
            graph=graph,
            signatures=signatures,
            init=tuple(moved(name) for name in self._model.init),
            variables=variables,
        )
        return _pruned(model)

    def _all_names(self) -> dict[str, str]:
        """Old name to new name, for the ends and for nodes that stand in their way."""
        names = dict(self._new_names)
        taken = {self._as_met(name) for name in self._nodes} | self._wanted
        for name in self._nodes:
            if self._as_met(name) in self._wanted and name not in names:
                number = 1
                while self._as_met(f"{name}_{number}") in taken:
                    number += 1
                names[name] = f"{name}_{number}"
                taken.add(self._as_met(names[name]))
        return names


def _renamed(tensor: str, names: Mapping[str, str]) -> str:
    if tensor.startswith("^"):
        return "^" + names.get(tensor[1:], tensor[1:])
    name, index = split(tensor)
    return join(names.get(name, name), index)


def _moved(ends: Mapping[str, TensorSpec], moved: Callable[[str], str]) -> dict[str, TensorSpec]:
    return {key: dataclasses.replace(spec, tensor=moved(spec.tensor)) for key, spec in ends.items()}


def placeholder_shape(node: Node, producer: int) -> Shape:
    """The shape that a placeholder says.

    Args:
        node: The placeholder.
        producer: The graph's; up to version 21 (TensorFlow 1.0) an empty shape stood for an unknown
            one, see the shape function of ``Placeholder`` in upstream ``core/ops/array_ops.cc``.
    """
    shape = attrs.to_shape(node.attrs["shape"]) if "shape" in node.attrs else None
    return None if shape == () and producer <= _LAST_WITHOUT_SCALARS else shape


def _with_shape(node: Node, spec: TensorSpec, producer: int) -> Node:
    """A placeholder with the signature's shape, which may be better known than its own."""
    own = placeholder_shape(node, producer)
    if own is not None or spec.shape is None or node.op == "PlaceholderWithDefault":
        return node
    return node._replace(attrs={**node.attrs, "shape": attrs.of_shape(spec.shape)})


def _pruned(model: Model) -> Model:
    ends = [
        spec.tensor
        for signature in model.signatures.values()
        for side in (signature.inputs, signature.outputs)
        for spec in side.values()
    ]
    graph = walk.prune(model.graph, [*map(node_of, ends), *model.init, *model.variables])
    return dataclasses.replace(model, graph=graph)
