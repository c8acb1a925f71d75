"""From a frozen graph to an ONNX model, by tf2onnx."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from freezeflow.errors import ModelRefused
from freezeflow.graph.model import Model
from freezeflow.graph.profile import Profile, look
from freezeflow.runtimes.runtime import Names
from freezeflow.tf.converting import converter, graph_def_of
from freezeflow.tf.onnx_form import canonical
from freezeflow.values import Json

# What tf2onnx's rewriters take in groups (dropout, loops with tensor lists), not node by node.
_REWRITTEN = frozenset(
    [
        "Assert",
        "RandomStandardNormal",
        "RandomUniform",
        "RandomUniformInt",
        "TensorListFromTensor",
        "TensorListGetItem",
        "TensorListLength",
        "TensorListReserve",
        "TensorListResize",
        "TensorListSetItem",
        "TensorListStack",
    ]
)

_HELPS = {
    "StringSplitV2": "Do the text processing before the model: export a signature that takes ids.",
    "ParseExampleV2": "Export a signature that takes tensors in place of serialised examples.",
}


def to_onnx(
    model: Model, nodes: Names, profile: Profile, to: Path, opset: int, external: bool
) -> Json:
    """Writes ``to`` and, with external data, ``to.data`` beside it.

    Args:
        model: A frozen model with one signature.
        nodes: Its inputs and outputs, which become the keys' names.
        profile: What ONNX takes; the ops are those of tf2onnx's table for the opset.
        to: The file.
        opset: Version of ONNX's operator set.
        external: Weights in a file of their own.

    Returns:
        Facts: ``opset``, ``onnx_nodes``.

    Raises:
        ModelRefused: ONNX or its converter does not take the model.
    """
    import onnx
    import tf2onnx.tfonnx  # brings the handlers that the table is made of

    table = tf2onnx.handler.tf_op.create_mapping(opset, None)
    look(model, dataclasses.replace(profile, ops={*table, *_REWRITTEN}, helps=_HELPS))
    # tf2onnx 1.17 asks NumPy for a name that NumPy 2 no longer has; this process does nothing else.
    np.product = np.prod  # type: ignore[attr-defined]
    try:
        proto, storage = _converted(model, nodes, opset, external=external, optimised=False)
    except ModelRefused:
        # Functional control flow is mostly taken as it is, and some of it only after Grappler.
        if external:
            raise
        proto, storage = _converted(model, nodes, opset, external=False, optimised=True)
    proto.producer_name, proto.producer_version = "freezeflow by tf2onnx", ""
    proto.doc_string = ""
    contents = storage.name_to_tensor_data if external else {}
    canonical(proto, contents)
    if external:
        _move_out(proto, contents, to)
    to.write_bytes(proto.SerializeToString(deterministic=True))
    used = next(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
    return {"opset": used, "onnx_nodes": len(proto.graph.node), "onnx": onnx.__version__}


def _converted(
    model: Model, nodes: Names, opset: int, *, external: bool, optimised: bool
) -> tuple[Any, Any]:
    """What tf2onnx makes of a model: the ModelProto, and the contents that it keeps outside."""
    from tf2onnx import convert, tf_loader

    inputs, outputs = ([f"{node}:0" for node in side.values()] for side in nodes)
    with converter("tf2onnx", model):
        graph_def = graph_def_of(model)
        if optimised:
            with tf.Graph().as_default():
                tf.import_graph_def(graph_def, name="")
                graph_def = tf_loader.tf_optimize(inputs, outputs, graph_def)
        proto, storage = convert._convert_common(
            graph_def,
            name="freezeflow",
            large_model=external,
            opset=opset,
            input_names=inputs,
            output_names=outputs,
            tensors_to_rename={f"{node}:0": key for side in nodes for key, node in side.items()},
        )
    _check_known(proto)
    return proto, storage


def _check_known(proto: Any) -> None:
    """Refuses a model in which an op of TensorFlow's is left."""
    import onnx

    known = {schema.name for schema in onnx.defs.get_all_schemas()}
    left = [(node.op_type, node.name) for node in proto.graph.node if node.op_type not in known]
    if left:
        op, name = left[0]
        raise ModelRefused(
            f"ONNX does not take {len(left)} nodes as tf2onnx left them, the first is a {op}",
            where=name,
            hint="A higher `opset` knows more ops; `fold` before the export may leave them out.",
        )


def _move_out(proto: Any, contents: dict[str, bytes], to: Path) -> None:
    """Puts the contents of all external tensors into one file, in the order of the model."""
    name = f"{to.name}.data"
    with open(to.with_name(name), "wb") as file:
        for tensor in _external_tensors(proto.graph):
            (entry,) = [e for e in tensor.external_data if e.key == "location"]
            data = contents[entry.value]
            del tensor.external_data[:]
            offset = file.tell()
            for key, value in (("location", name), ("offset", offset), ("length", len(data))):
                tensor.external_data.add(key=key, value=str(value))
            file.write(data)


def _external_tensors(graph: Any) -> Any:
    import onnx

    external = onnx.TensorProto.EXTERNAL
    for tensor in graph.initializer:
        if tensor.data_location == external:
            yield tensor
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.t.data_location == external:
                yield attribute.t
            for below in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
                yield from _external_tensors(below)
