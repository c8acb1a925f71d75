"""From a frozen graph to an ONNX model, by tf2onnx."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import tensorflow as tf

from freezeflow.errors import ModelRefused
from freezeflow.graph.model import Model
from freezeflow.graph.profile import Profile, look
from freezeflow.graph.storage import model_tensors
from freezeflow.runtimes.runtime import Names
from freezeflow.tf.converting import At, converter, graph_def_of
from freezeflow.tf.onnx_form import canonical
from freezeflow.tf.onnx_types import look_at_types
from freezeflow.tf.onnx_weights import Weight, move_in, move_out, put_back, with_stand_ins
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

# Below what a protobuf message can hold, with room for what the converter adds.
_MESSAGE_BYTES = 1_500_000_000

# With more weights tf2onnx does not get the large ones: it takes ten times their size in memory, or more.
_WHOLE_BYTES = 1 << 26

# Before the names of what stands for weights.
_STAND_IN = "freezeflow_weight/"

# What tf2onnx makes something else of: a mean over areas becomes an interpolation.
_MISTAKEN = frozenset(["ResizeArea"])

_HELPS = {
    "ResizeArea": "Resize pictures by another method, or before they come into the model.",
    "StringSplitV2": "Do the text processing before the model: export a signature that takes ids.",
    "ParseExampleV2": "Export a signature that takes tensors in place of serialised examples.",
}


def to_onnx(
    model: Model,
    nodes: Names,
    names: Names,
    profile: Profile,
    to: Path,
    opset: int,
    external: Literal["auto", "always"],
    runs: bool,
) -> Json:
    """Writes ``to`` and, with external data, ``to.data`` beside it.

    Args:
        model: A frozen model with one signature.
        nodes: Its inputs and outputs.
        names: What they are called in the file.
        profile: What ONNX takes; the ops are those of tf2onnx's table for the opset.
        to: The file.
        opset: Version of ONNX's operator set.
        external: Weights in a file of their own where they are too many for one message, or always.
        runs: ONNX Runtime has to run it.

    Returns:
        Facts: ``opset``, ``onnx_nodes``, ``onnx``, ``external_data``.

    Raises:
        ModelRefused: ONNX or its converter does not take the model.
    """
    import onnx
    import tf2onnx.tfonnx  # brings the handlers that the table is made of

    table = tf2onnx.handler.tf_op.create_mapping(opset, None)
    look(model, dataclasses.replace(profile, ops={*table, *_REWRITTEN} - _MISTAKEN, helps=_HELPS))
    nbytes = _nbytes(model)
    outside = external == "always" or nbytes > _MESSAGE_BYTES
    proto, weights = _first_of(_ways(model, outside or nbytes > _WHOLE_BYTES), nodes, names, opset)
    look_at_types(proto, runs=runs)
    proto.producer_name, proto.producer_version = "freezeflow by tf2onnx", ""
    proto.doc_string = ""
    canonical(proto, {name: weight.key for name, weight in weights.items()})
    if outside:
        move_out(proto, weights, to)
    else:
        move_in(proto, weights)
    to.write_bytes(proto.SerializeToString(deterministic=True))
    used = next(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
    return {
        "opset": used,
        "onnx_nodes": len(proto.graph.node),
        "onnx": onnx.__version__,
        "external_data": outside,
    }


class _Way(NamedTuple):
    """A model as tf2onnx may get it, and the weights that it does not see."""

    model: Model
    weights: Mapping[str, Weight]
    optimised: bool


def _ways(model: Model, apart: bool) -> list[_Way]:
    """In the order in which they are tried; large weights apart first, if asked for.

    Some handlers of tf2onnx want to see a constant's value. Functional control flow is mostly taken as it
    is, and some of it only after Grappler.
    """
    seen: list[tuple[Model, Mapping[str, Weight]]] = []
    if apart:
        seen.append(with_stand_ins(model))
    if not seen or (seen[0][1] and _nbytes(model) <= _MESSAGE_BYTES):
        seen.append((model, {}))
    nbytes = _nbytes(seen[0][0])
    if nbytes > _MESSAGE_BYTES:
        raise ModelRefused(
            f"tf2onnx would have to take {nbytes / 1e9:.1f} GB of constants that cannot be left out"
            " for it: those in bodies of functions, and of element types that ONNX keeps otherwise",
            hint="`freeze` leaves weights outside of bodies; float32, float16 and integers can be left out.",
        )
    return [_Way(*each, optimised) for optimised in (False, True) for each in seen]


def _nbytes(model: Model) -> int:
    return sum(tensor.nbytes for tensor in model_tensors(model))


def _first_of(
    ways: Sequence[_Way], nodes: Names, names: Names, opset: int
) -> tuple[Any, dict[str, Weight]]:
    """What tf2onnx makes of a model in the first of the ways that it takes."""
    for way in ways[:-1]:
        with contextlib.suppress(ModelRefused):
            return _converted(way, nodes, names, opset)
    return _converted(ways[-1], nodes, names, opset)


def _converted(way: _Way, nodes: Names, names: Names, opset: int) -> tuple[Any, dict[str, Weight]]:
    """The ModelProto, and the contents of those of its initializers that lie elsewhere."""
    from tf2onnx import convert, tf_loader

    inputs, outputs = ([f"{node}:0" for node in side.values()] for side in nodes)
    stand_ins = {f"{node}:0": f"{_STAND_IN}{node}" for node in way.weights}
    sides = zip(nodes, names, strict=True)
    keys = {f"{side[key]}:0": called[key] for side, called in sides for key in side}
    with converter("tf2onnx", way.model) as at, _followed(at):
        graph_def = graph_def_of(way.model)
        if way.optimised:
            with tf.Graph().as_default():
                tf.import_graph_def(graph_def, name="")
                graph_def = tf_loader.tf_optimize([*inputs, *stand_ins], outputs, graph_def)
        proto, _ = convert._convert_common(
            graph_def,
            name="freezeflow",
            opset=opset,
            input_names=[*inputs, *stand_ins],
            output_names=outputs,
            tensors_to_rename={**stand_ins, **keys},
        )
    _check_known(proto)
    return proto, put_back(proto, {_STAND_IN + node: w for node, w in way.weights.items()})


@contextlib.contextmanager
def _followed(at: At) -> Iterator[None]:
    """Tells the first node that tf2onnx fails at: it logs that, goes on, and raises at the end."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if str(record.msg).startswith("Failed to convert node") and not at.node:
                told = record.args if isinstance(record.args, tuple) else ()
                op = re.search(r"OP=(\w+)", str(told[-1:]))
                at.op, at.node = op[1] if op else "a node", str(told[0])

    handler = Handler(logging.ERROR)
    logger = logging.getLogger("tf2onnx")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


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
