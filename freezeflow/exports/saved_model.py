"""A SavedModel folder around a graph, written without TensorFlow.

It holds signatures, initializers and assets; weights are constants of its graph, or variables of its
checkpoint. Both TensorFlow 2's loader and the TF1 loader read it. Source of the format: upstream
``core/protobuf/saved_model.proto``, ``meta_graph.proto``, ``python/saved_model/constants.py``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from freezeflow.exports.check import CheckedOnRequest, check_problems
from freezeflow.exports.folders import published_folder
from freezeflow.exports.format import (
    Export,
    ExportedFile,
    ExportFormat,
    ExportRequest,
    GraphForm,
    form_problems,
)
from freezeflow.exports.in_tensorflow import TF1_LOADER, TF2_LOADER, check_facts
from freezeflow.exports.limits import MAX_FILE_BYTES, check_size
from freezeflow.exports.manifest import manifest_bytes, tensor_name
from freezeflow.exports.saver import Saver, with_saver, write_variables
from freezeflow.graph import attrs, ops
from freezeflow.graph.graph import Node, node_of
from freezeflow.graph.model import Asset, Model
from freezeflow.graph.original import WARMUP_REQUESTS
from freezeflow.graph.walk import reached_nodes
from freezeflow.graph.weights import as_variables
from freezeflow.graph.wire import varint
from freezeflow.graph.write import Piece, graph_def_pieces, size_of
from freezeflow.messages import message_class
from freezeflow.params import param
from freezeflow.store.files import Written, whole_file, write_atomically
from freezeflow.values import DType, TensorSpec

MANIFEST = "freezeflow.manifest.json"

# The tag that loaders ask for.
_SERVE = "serve"

_USUAL_SIGNATURE = "serving_default"
_PREDICT = "tensorflow/serving/predict"
_INIT_SIGNATURE = "__saved_model_init_op"
_INIT_COLLECTION = "saved_model_main_op"

# Node that runs the initializers where there are several.
_INIT_NODE = "run_initializers"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Params(GraphForm, CheckedOnRequest):
    """Parameters of the format."""

    weights: Literal["inline", "checkpoint"] | None = param(
        "Where the large weights go: inline, as constants of the graph file, or into the checkpoint,"
        " as variables. By default inline while the file can be read back (2 GB), else into the"
        " checkpoint.",
        default=None,
    )
    serving: int | None = param(
        "TensorFlow Serving's layout: a folder with this version number inside of `to`.",
        default=None,
        minimum=0,
    )


def problems(params: Params) -> list[tuple[str, str]]:
    """Mistakes in the parameters."""
    return [*form_problems(params), *check_problems(params)]


def write(request: ExportRequest) -> Export:
    """Publishes the folder, whole or not at all; a SavedModel that is there is replaced.

    Raises:
        ValidationFailed: A check was asked for, and it fails.
        ModelRefused: The model is too large for its graph file, also without its weights.
        FreezeflowError: The folder cannot be written, or holds something else.
    """
    saver, pieces = _with_weights(with_one_initializer(request.model), request.params.weights)
    model = saver.model
    check_size(model, size_of(pieces), str(request.to))
    version = request.params.serving
    to = request.to if version is None else request.to / str(version)
    with published_folder(to, belongs="saved_model.pb") as folder:
        files = {"saved_model.pb": write_atomically(folder / "saved_model.pb", pieces)}
        files.update(write_variables(saver, folder))
        for asset in model.assets:
            name = f"assets/{asset.name}"
            files[name] = write_atomically(folder / name, [asset.content.location])
        warmup = _fitting_warmup(request)
        if warmup is not None:
            name = WARMUP_REQUESTS.as_posix()
            files[name] = write_atomically(folder / name, [whole_file(warmup)])
        manifest = manifest_bytes(model, files, request.recipe_digest)
        files[MANIFEST] = write_atomically(folder / MANIFEST, [manifest])
        checks = check_facts(request, model, folder / "saved_model.pb", FORMAT.runtimes)
    published = (_published(to, name, written) for name, written in files.items())
    variables = {"variables": len(model.variables)} if model.variables else {}
    return Export(tuple(published), {**variables, **checks})


def _fitting_warmup(request: ExportRequest) -> Path | None:
    """The source's warm-up requests, if the model answers all: a server does not start on others."""
    if request.warmup is None:
        return None
    from freezeflow.proof.requests import read_requests

    for asked in read_requests(request.warmup):
        name = asked.signature or _USUAL_SIGNATURE
        signature = request.model.signatures.get(name)
        if signature is None or set(asked.inputs) != set(signature.inputs):
            request.context.warn(
                f"warm-up requests are left out: one asks {name} for {', '.join(asked.inputs)},"
                " which this model does not answer"
            )
            return None
    return request.warmup


def _with_weights(model: Model, weights: str | None) -> tuple[Saver, list[Piece]]:
    """The model with its weights where `Params.weights` wants them, and its graph file."""
    saver = with_saver(as_variables(model) if weights == "checkpoint" else model)
    pieces = list(saved_model_pieces(saver.model, saver.definition))
    if weights is None and size_of(pieces) > MAX_FILE_BYTES:
        return _with_weights(model, "checkpoint")
    return saver, pieces


def _published(folder: Path, name: str, written: Written) -> ExportedFile:
    return ExportedFile(folder / name, written)


def with_one_initializer(model: Model) -> Model:
    """The model with at most one node to run before use: it runs the others in their order."""
    if len(model.init) < 2:
        return model
    nodes = dict(model.graph.nodes)
    for before, after in zip(model.init, model.init[1:], strict=False):
        if after not in reached_nodes(nodes, [before]):
            waiting = nodes[after]
            inputs = tuple(dict.fromkeys([*waiting.inputs, f"^{before}"]))
            nodes[after] = waiting._replace(inputs=inputs)
    name = _INIT_NODE
    while name in nodes:
        name += "_"
    nodes[name] = Node(name, "NoOp", tuple(f"^{node}" for node in model.init))
    graph = dataclasses.replace(model.graph, nodes=nodes)
    return dataclasses.replace(model, graph=graph, init=(name,))


def saved_model_pieces(model: Model, saver: Any | None) -> Iterator[Piece]:
    """The file ``saved_model.pb``, piece by piece.

    Args:
        model: The model, with at most one initializer.
        saver: The ``SaverDef`` of what restores its variables; None where there are none.
    """
    graph = list(graph_def_pieces(model.graph))
    head = _message(1, _meta_info(model)) + _head(2, size_of(graph))
    tail = _meta_graph_rest(model, saver)
    size = len(head) + size_of(graph) + len(tail)
    yield b"\x08\x01" + _head(2, size) + head  # saved_model_schema_version: 1
    yield from graph
    yield tail


def _head(field: int, size: int) -> bytes:
    """What stands before a length-delimited field."""
    return varint(field << 3 | 2) + varint(size)


def _message(field: int, message: Any) -> bytes:
    data = message.SerializeToString(deterministic=True)
    return _head(field, len(data)) + bytes(data)


def _meta_info(model: Model) -> Any:
    info = message_class("MetaGraphDef.MetaInfoDef")(tags=[_SERVE])
    for name in sorted(model.graph.op_defs):
        info.stripped_op_list.op.add().MergeFrom(ops.to_message(model.graph.op_defs[name]))
    return info


def _meta_graph_rest(model: Model, saver: Any | None) -> bytes:
    """All fields of the MetaGraphDef behind the graph."""
    rest = message_class("MetaGraphDef")(saver_def=saver)
    for name, signature in model.signatures.items():
        target = rest.signature_def[name]
        target.method_name = _PREDICT
        for key, spec in signature.inputs.items():
            _fill_info(target.inputs[key], spec)
            default = _default_of(model, spec)
            if default is not None:
                target.defaults[key].MergeFromString(default.SerializeToString())
        for key, spec in signature.outputs.items():
            _fill_info(target.outputs[key], spec)
    for node in model.init:
        rest.collection_def[_INIT_COLLECTION].node_list.value.append(node)
        info = rest.signature_def[_INIT_SIGNATURE].outputs[_INIT_SIGNATURE]
        info.name = node
        info.tensor_shape.unknown_rank = True
    for asset in model.assets:
        _add_asset(rest, asset)
    data: bytes = rest.SerializeToString(deterministic=True)
    return data


def _default_of(model: Model, spec: TensorSpec) -> Any | None:
    """The value that an input has when nobody feeds it; None where it has none, or a large one."""
    node = model.graph.nodes[node_of(spec.tensor)]
    if node.op != "PlaceholderWithDefault":
        return None
    source = model.graph.nodes[node_of(node.inputs[0])]
    if source.op != "Const" or source.tensor is not None:
        return None
    return attrs.message(source.attrs["value"]).tensor


def _fill_info(target: Any, spec: TensorSpec) -> None:
    target.name = tensor_name(spec.tensor)
    target.dtype = int(spec.dtype)
    attrs.fill_shape(target.tensor_shape, spec.shape)


def _add_asset(rest: Any, asset: Asset) -> None:
    entry = rest.asset_file_def.add(filename=asset.name)
    _fill_info(entry.tensor_info, TensorSpec(asset.tensor, DType.STRING, ()))


FORMAT = ExportFormat(
    name="saved_model",
    summary="A SavedModel folder, for whatever loads SavedModels.",
    write=write,
    params=Params,
    problems=problems,
    runtimes=(TF2_LOADER, TF1_LOADER),
    streams=True,
)
