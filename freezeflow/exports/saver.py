"""The nodes by which TensorFlow restores the variables of a SavedModel, and saves them again.

They are what TF1's ``Saver`` makes, so that every loader of SavedModels knows them. Source: upstream
``python/training/saver.py``, ``core/protobuf/saver.proto``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from freezeflow.checkpoint import Value, write_bundle
from freezeflow.errors import ModelRefused
from freezeflow.graph import attrs
from freezeflow.graph.constants import const, value_of
from freezeflow.graph.graph import Node, join
from freezeflow.graph.model import Model
from freezeflow.graph.variables import HANDLES, RESOURCE_HANDLE
from freezeflow.messages import message_class
from freezeflow.store.files import Written
from freezeflow.values import DType

# Where a SavedModel has its checkpoint (upstream ``python/saved_model/constants.py``).
_FOLDER = "variables"
_PREFIX = f"{_FOLDER}/variables"

# What TF1 feeds with the checkpoint's prefix; its value is what the node is named without a feed.
_DEFAULT_PREFIX = b"model"


class Saver(NamedTuple):
    """A model that can restore its variables.

    Args:
        model: The model, with the nodes that restore and save.
        definition: The ``SaverDef`` that names them; None where there are no variables.
        values: What the checkpoint holds, by key.
    """

    model: Model
    definition: Any | None
    values: Mapping[str, Value]


def with_saver(model: Model) -> Saver:
    """The model with what restores its variables; as it is, where it has none.

    Raises:
        ModelRefused: It has a variable that is not one of TensorFlow's own kinds.
    """
    if not model.variables:
        return Saver(model, None, {})
    keys = _keys(model)
    handles = sorted(keys, key=lambda handle: keys[handle].encode())
    values = {keys[handle]: _value(model.variables[handle]) for handle in handles}
    scope = "save"
    while any(name.startswith(f"{scope}/") for name in model.graph.nodes):
        scope += "_"
    what = (f"{scope}/prefix", f"{scope}/keys", f"{scope}/slices")
    dtypes = attrs.of_types(value.dtype for value in values.values())
    assigns = [_assign(scope, i, model.graph.nodes[handle]) for i, handle in enumerate(handles)]
    reads = [_read(scope, i, model.graph.nodes[handle]) for i, handle in enumerate(handles)]
    made = [
        const(what[0], DType.STRING, (), [_DEFAULT_PREFIX]),
        const(what[1], DType.STRING, (len(keys),), [key.encode() for key in values]),
        const(what[2], DType.STRING, (len(keys),), [b""] * len(keys)),
        _node(f"{scope}/restored", "RestoreV2", *what, dtypes=dtypes),
        *assigns,
        _node(f"{scope}/restore", "NoOp", *(f"^{node.name}" for node in assigns)),
        *reads,
        _node(f"{scope}/save", "SaveV2", *what, *(node.name for node in reads), dtypes=dtypes),
        _node(
            f"{scope}/saved", "Identity", what[0], f"^{scope}/save", T=attrs.of_type(DType.STRING)
        ),
    ]
    definition = message_class("SaverDef")(
        filename_tensor_name=f"{scope}/prefix:0",
        save_tensor_name=f"{scope}/saved:0",
        restore_op_name=f"{scope}/restore",
        version=2,
    )
    nodes = {**model.graph.nodes, **{node.name: node for node in made}}
    graph = dataclasses.replace(model.graph, nodes=nodes)
    return Saver(dataclasses.replace(model, graph=graph), definition, values)


def write_variables(saver: Saver, folder: Path) -> dict[str, Written]:
    """Writes the checkpoint into a SavedModel's folder; what was written, by path inside of it."""
    if not saver.values:
        return {}
    written = write_bundle(folder / _PREFIX, saver.values)
    return {f"{_FOLDER}/{path.name}": found for path, found in written.items()}


def _keys(model: Model) -> dict[str, str]:
    """Handle to the key of its value: the variable's shared name where that is its own."""
    wanted: dict[str, list[str]] = {}
    for handle in model.variables:
        node = model.graph.nodes.get(handle)
        if node is None or node.op not in HANDLES:
            raise ModelRefused(
                f"a variable that is {'missing' if node is None else node.op} cannot be saved",
                where=handle,
                hint="Freeze it.",
            )
        shared = attrs.to_bytes(node.attrs["shared_name"]) if "shared_name" in node.attrs else b""
        wanted.setdefault(shared.decode() or handle, []).append(handle)
    return {
        handle: key if len(handles) == 1 else f"{key}/{handle}"
        for key, handles in wanted.items()
        for handle in handles
    }


def _value(node: Node) -> Value:
    dtype, shape, content = value_of(node)
    return Value(dtype, shape, content)


def _assign(scope: str, number: int, handle: Node) -> Node:
    name = f"{scope}/assign_{number}"
    restored = join(f"{scope}/restored", number)
    if handle.op == RESOURCE_HANDLE:
        return _node(name, "AssignVariableOp", handle.name, restored, dtype=handle.attrs["dtype"])
    return _node(name, "Assign", handle.name, restored, T=handle.attrs["dtype"])


def _read(scope: str, number: int, handle: Node) -> Node:
    name = f"{scope}/read_{number}"
    if handle.op == RESOURCE_HANDLE:
        return _node(name, "ReadVariableOp", handle.name, dtype=handle.attrs["dtype"])
    return _node(name, "Identity", handle.name, T=handle.attrs["dtype"])


def _node(name: str, op: str, *inputs: str, **values: bytes) -> Node:
    return Node(name, op, inputs, values)
