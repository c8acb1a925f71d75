"""The two sides of a comparison: the original as TensorFlow loads it, and the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from tensorflow.core.protobuf import saved_model_pb2

from freezeflow.errors import StageFailed
from freezeflow.graph.graph import node_of, split
from freezeflow.graph.model import Model
from freezeflow.graph.original import Original
from freezeflow.graph.write import graph_def_pieces, materialise, read_range, size_of
from freezeflow.values import Signature

v1 = tf.compat.v1

# What one protobuf message can hold, and so what TensorFlow can import.
_MOST_BYTES = 2**31 - 1

Arrays = Mapping[str, np.ndarray[Any, Any]]


class Refusal(NamedTuple):
    """A call that the model answered with an error, by its first line."""

    message: str


class Side(NamedTuple):
    """A model in a TensorFlow graph, ready for sessions.

    Args:
        graph: The graph.
        signatures: Name to signature, with this graph's tensors.
        before: What a session runs once before the first call, in order, each with what is fed.
    """

    graph: Any
    signatures: Mapping[str, Signature]
    before: tuple[tuple[str, Mapping[str, Any]], ...]

    def call(
        self, calls: Sequence[tuple[str, Arrays]], config: Any
    ) -> list[dict[str, np.ndarray[Any, Any]] | Refusal]:
        """Answers calls in order, in one fresh session.

        Args:
            calls: Signature name and inputs by key, for each call.
            config: The session's configuration.
        """
        with v1.Session(graph=self.graph, config=config) as session:
            for name, feeds in self.before:
                session.run(name, feeds)
            return [self._answer(session, name, inputs) for name, inputs in calls]

    def _answer(
        self, session: Any, name: str, inputs: Arrays
    ) -> dict[str, np.ndarray[Any, Any]] | Refusal:
        signature = self.signatures[name]
        fetches = {key: full_name(spec.tensor) for key, spec in signature.outputs.items()}
        feeds = {full_name(signature.inputs[key].tensor): value for key, value in inputs.items()}
        try:
            results = session.run(fetches, feeds)
        except (tf.errors.OpError, ValueError) as error:
            return Refusal(_first_reason(str(error)))
        return {key: np.asarray(value) for key, value in results.items()}


def _first_reason(text: str) -> str:
    """What went wrong, out of TensorFlow's error: the line above its list of nodes."""
    lines = [line.strip() for line in text.partition("[[{{")[0].splitlines()]
    return next((line for line in reversed(lines) if line), "no reason given")


def full_name(tensor: str) -> str:
    """A tensor's name as TensorFlow says it: always with the output's number."""
    name, index = split(tensor)
    return f"{name}:{index}"


def original_side(original: Original) -> Side:
    """The original, from its own file, pruned to what runs.

    Pruning takes out what a session would not run either (saving, training); the importer would still
    evaluate small constants there.
    """
    meta_graph = _meta_graph(original)
    pruned = _pruned(meta_graph.graph_def, original)
    graph = tf.Graph()
    with graph.as_default():
        tf.graph_util.import_graph_def(
            pruned, name="", producer_op_list=meta_graph.meta_info_def.stripped_op_list
        )
    before: list[tuple[str, Mapping[str, Any]]] = []
    if original.restore_op:
        before.append((original.restore_op, {original.filename_tensor: str(original.checkpoint)}))
    before += _assignments(graph, original)
    feeds = {full_name(tensor): str(path) for tensor, path in original.assets.items()}
    before += [(name, feeds) for name in original.init]
    return Side(graph, original.signatures, tuple(before))


def _assignments(graph: Any, original: Original) -> list[tuple[str, Mapping[str, Any]]]:
    """Fills the variables that the restore op leaves out, with values read by TensorFlow."""
    made: list[tuple[str, Mapping[str, Any]]] = []
    if not original.captured:
        return made
    checkpoint = tf.train.load_checkpoint(str(original.checkpoint))
    with graph.as_default():
        for handle, key in original.captured.items():
            value = v1.placeholder(checkpoint.get_variable_to_dtype_map()[key])
            assign = tf.raw_ops.AssignVariableOp(
                resource=graph.get_tensor_by_name(full_name(handle)), value=value
            )
            made.append((assign.name, {value.name: checkpoint.get_tensor(key)}))
    return made


def _meta_graph(original: Original) -> Any:
    message = saved_model_pb2.SavedModel()
    data = original.file.read_bytes()
    if original.file.suffix == ".pbtxt":
        text_format.Parse(data, message)
    else:
        message.ParseFromString(data)
    return next(m for m in message.meta_graphs if frozenset(m.meta_info_def.tags) == original.tags)


def _pruned(graph_def: Any, original: Original) -> Any:
    pruned = v1.GraphDef(versions=graph_def.versions)
    pruned.node.extend(node for node in graph_def.node if node.name in original.graph.nodes)
    pruned.library.function.extend(
        function
        for function in graph_def.library.function
        if function.signature.name in original.graph.functions
    )
    for node in pruned.node:
        # Shapes that were inferred when the model was saved; newer shape functions may differ.
        node.attr.pop("_output_shapes", None)
    return pruned


def result_side(model: Model, scratch: Path) -> Side:
    """A model of ours, as the bytes that an export would write.

    Args:
        model: The model, frozen.
        scratch: Where its asset files are put.

    Raises:
        StageFailed: It is too large for TensorFlow to import.
    """
    pieces = list(graph_def_pieces(model.graph))
    if size_of(pieces) > _MOST_BYTES:
        raise StageFailed(
            "the graph is larger than 2 GB, which TensorFlow cannot import in one piece",
            hint="Leave `validate` out for this model.",
        )
    graph = tf.Graph()
    with graph.as_default():
        tf.graph_util.import_graph_def(v1.GraphDef.FromString(materialise(pieces)), name="")
    feeds = {}
    for number, asset in enumerate(model.assets):
        path = scratch / f"asset_{number}"
        path.write_bytes(read_range(asset.content.location))
        feeds[full_name(asset.tensor)] = str(path)
    before = tuple((node_of(name), feeds) for name in model.init)
    return Side(graph, model.signatures, before)
