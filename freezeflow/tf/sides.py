"""The two sides of a comparison: the original as TensorFlow loads it, and the result."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2
from tensorflow.python.framework import op_def_registry

from freezeflow.errors import ModelRefused, StageFailed, UsageError
from freezeflow.graph.graph import Node, node_of, split
from freezeflow.graph.inline import CALLS
from freezeflow.graph.model import Model, Scalar
from freezeflow.graph.original import Original
from freezeflow.graph.restore import SavedTensor
from freezeflow.graph.write import graph_def_pieces, materialise, read_range, size_of
from freezeflow.proof.judge import Refusal
from freezeflow.tf.sessions import RUN_ERRORS, as_array, exact_config
from freezeflow.tf.weights import Weight, filled, map_constants, mapped_graph, read_mapped
from freezeflow.values import Signature

v1 = tf.compat.v1

# What one protobuf message can hold, and so what TensorFlow can import.
_MOST_BYTES = 2**31 - 1


# The answer to a call behind one that was given up.
_NOT_MADE = "not made behind a call that was given up"

_MESSAGES = {
    "SavedModel": saved_model_pb2.SavedModel,
    "MetaGraphDef": meta_graph_pb2.MetaGraphDef,
    "GraphDef": v1.GraphDef,
}

Arrays = Mapping[str, np.ndarray[Any, Any]]


class Side(NamedTuple):
    """A model in a TensorFlow graph, ready for sessions.

    Args:
        graph: The graph.
        signatures: Name to signature, with this graph's tensors.
        before: What a session runs once before the first call, in order, each with what is fed.
        always: What every call feeds beside its inputs.
    """

    graph: Any
    signatures: Mapping[str, Signature]
    before: tuple[tuple[str, Mapping[str, Any]], ...]
    always: Mapping[str, Any]

    def call(
        self, calls: Sequence[tuple[str, Arrays]], config: Any, seconds: float | None
    ) -> list[dict[str, np.ndarray[Any, Any]] | Refusal]:
        """Answers calls in order, in one fresh session.

        Args:
            calls: Signature name and inputs by key, for each call.
            config: The session's configuration.
            seconds: As for `answers`.

        Raises:
            StageFailed: The model cannot be restored or initialised.
        """
        with self.opened(config) as session:
            return self.answers(session, calls, seconds)

    def opened(self, config: Any) -> Any:
        """A fresh session, restored and initialised.

        Raises:
            StageFailed: The model cannot be restored or initialised.
        """
        session = v1.Session(graph=self.graph, config=config)
        try:
            self._prepare(session)
        except StageFailed:
            session.close()
            raise
        return session

    def answers(
        self, session: Any, calls: Sequence[tuple[str, Arrays]], seconds: float | None
    ) -> list[dict[str, np.ndarray[Any, Any]] | Refusal]:
        """Answers calls in order, in a session of `opened`.

        Args:
            session: The session.
            calls: Signature name and inputs by key, for each call.
            seconds: Each call is given up after so long (None: never), and those that follow are not
                made then: what does not end in one call will mostly not end in the next one either.
        """
        found: list[dict[str, np.ndarray[Any, Any]] | Refusal] = []
        for name, inputs in calls:
            answer = self._answer(session, name, inputs, seconds)
            found.append(answer)
            if isinstance(answer, Refusal) and answer.is_late:
                break
        return found + [Refusal(_NOT_MADE)] * (len(calls) - len(found))

    def _prepare(self, session: Any) -> None:
        for name, feeds in self.before:
            try:
                session.run(name, feeds)
            except RUN_ERRORS as error:
                raise StageFailed(
                    f"TensorFlow cannot restore or initialise it: {first_reason(str(error))}",
                    where=name,
                ) from None

    def _answer(
        self, session: Any, name: str, inputs: Arrays, seconds: float | None
    ) -> dict[str, np.ndarray[Any, Any]] | Refusal:
        signature = self.signatures[name]
        fetches = {key: full_name(spec.tensor) for key, spec in signature.outputs.items()}
        feeds = {full_name(signature.inputs[key].tensor): value for key, value in inputs.items()}
        try:
            results = session.run(fetches, {**self.always, **feeds}, options=ended_after(seconds))
        except tf.errors.DeadlineExceededError:
            return Refusal(f"no answer within {seconds:g} seconds", is_late=True)
        except (tf.errors.OpError, ValueError) as error:
            return Refusal(first_reason(str(error)) + failing_node(str(error)))
        return {key: as_array(value) for key, value in results.items()}


def ended_after(seconds: float | None) -> Any:
    """Options of a session's run that end it after so long; an op that has begun is finished first."""
    return v1.RunOptions(timeout_in_ms=0 if seconds is None else math.ceil(seconds * 1000))


def failing_node(text: str) -> str:
    """The node that TensorFlow's error names, to stand behind the reason; empty where it names none."""
    found = re.search(r"\{\{node ([^}]*)\}\}", text)
    return f" (node {found[1]})" if found else ""


def first_reason(text: str) -> str:
    """What went wrong, out of TensorFlow's error: the line above its list of nodes."""
    lines = [line.strip() for line in text.partition("[[{{")[0].splitlines()]
    told = (line for line in reversed(lines) if line and not line.startswith("[["))
    return next(told, "no reason given")


def full_name(tensor: str) -> str:
    """A tensor's name as TensorFlow says it: always with the output's number."""
    name, index = split(tensor)
    return f"{name}:{index}"


def original_side(
    original: Original,
    bound: Mapping[str, Scalar],
    *,
    exact: bool = False,
    mapped: Path | None = None,
) -> Side:
    """The original, from its own file, pruned to what runs.

    Pruning takes out what a session would not run either (saving, training); the importer would still
    evaluate small constants there.

    Args:
        original: The original.
        bound: Inputs that every call gets, by signature key or tensor name, with their value.
        exact: Its calls, too, run without Grappler. TensorFlow keeps a configuration with each call,
            apart from the session's; else Grappler would turn ``x / sqrt(y)`` in a function into
            ``x * rsqrt(y)``, which has other bytes.
        mapped: Where a folder is made for large constants, as TensorFlow has read them; None to leave
            them in the graph. See `freezeflow.tf.weights`.

    Raises:
        UsageError: The original has no such input.
    """
    pruned, op_list = _pruned_graph_def(original)
    weights: list[Weight] = []
    if mapped is not None:
        map_constants(pruned, mapped)
        weights = read_mapped(pruned)
    if exact:
        configure_calls(pruned)
    graph = _imported(pruned, op_list)
    before: list[tuple[str, Mapping[str, Any]]] = [(name, {}) for name in filled(graph, weights)]
    if original.restore_op:
        before.append((original.restore_op, {original.filename_tensor: original.checkpoint}))
    before += [(name, {}) for name in _assignments(graph, original)]
    feeds = {full_name(tensor): str(path) for tensor, path in original.assets.items()}
    before += [(name, feeds) for name in original.init]
    always = {_bound_tensor(original, name): value for name, value in bound.items()}
    return Side(graph, original.signatures, tuple(before), always)


def _imported(graph_def: Any, op_list: Any = None) -> Any:
    """A graph of TensorFlow's.

    Raises:
        ModelRefused: It has ops that are not registered: those of a library that is not loaded here, or
            of another release.
    """
    graph = tf.Graph()
    try:
        with graph.as_default():
            tf.graph_util.import_graph_def(graph_def, name="", producer_op_list=op_list)
    except tf.errors.NotFoundError:
        functions = {function.signature.name for function in graph_def.library.function}
        bodies = [graph_def.node, *(function.node_def for function in graph_def.library.function)]
        missing: dict[str, str] = {}
        for node in (node for body in bodies for node in body):
            if node.op not in functions and op_def_registry.get(node.op) is None:
                missing.setdefault(node.op, node.name)
        if not missing:
            raise
        raise ModelRefused(
            f"TensorFlow {tf.__version__} does not have the ops of the model that would run:"
            f" {', '.join(sorted(missing))}",
            where=missing[min(missing)],
            hint="They are of a library of their own, which is not loaded here, or of another release. Such a"
            " model can be frozen and exported as a graph or SavedModel, without `validate`.",
        ) from None
    return graph


def _bound_tensor(original: Original, name: str) -> str:
    """The tensor that an input stands for: a signature's key goes before a tensor's name."""
    for signature in original.signatures.values():
        if name in signature.inputs:
            return full_name(signature.inputs[name].tensor)
    if node_of(name) not in original.graph.nodes:
        raise UsageError(
            f"the original has no input {name!r} that could be bound",
            hint="Bind inputs in the first `freeze`, where they have the names of the source.",
        )
    return full_name(name)


def _assignments(graph: Any, original: Original) -> list[str]:
    """Fills what the restore op leaves out; the values are read by TensorFlow's own RestoreV2.

    Returns:
        The op that does it, if there is anything to do.
    """
    with graph.as_default():
        made = [
            _assign(graph.get_operation_by_name(handle), saved, original.checkpoint)
            for handle, saved in original.assigned.items()
        ]
        made += [
            _import(graph.get_operation_by_name(table), pair, original.checkpoint)
            for table, pair in original.tables.items()
        ]
        return [tf.group(*made).name] if made else []


def _assign(variable: Any, saved: SavedTensor, prefix: str) -> Any:
    value = _restored(saved, variable.get_attr("dtype"), prefix)
    (handle,) = variable.outputs
    if handle.dtype == tf.resource:
        return tf.raw_ops.AssignVariableOp(resource=handle, value=value)
    return tf.raw_ops.Assign(ref=handle, value=value, validate_shape=False)


def _import(table: Any, saved: tuple[SavedTensor, SavedTensor], prefix: str) -> Any:
    (handle,) = table.outputs
    keys = _restored(saved[0], table.get_attr("key_dtype"), prefix)
    values = _restored(saved[1], table.get_attr("value_dtype"), prefix)
    if handle.dtype == tf.resource:
        return tf.raw_ops.LookupTableImportV2(table_handle=handle, keys=keys, values=values)
    return tf.raw_ops.LookupTableImport(table_handle=handle, keys=keys, values=values)


def _restored(saved: SavedTensor, dtype: Any, prefix: str) -> Any:
    """A tensor of a checkpoint of either format, as the session runs."""
    (value,) = tf.raw_ops.RestoreV2(
        prefix=prefix,
        tensor_names=[saved.key.encode(errors="surrogateescape")],
        shape_and_slices=[saved.slice_spec],
        dtypes=[dtype],
    )
    return value


def _pruned_graph_def(original: Original) -> tuple[Any, Any]:
    """What the original runs; and the ops as its producer knew them (None where it does not say)."""
    graph_def, op_list = _graph_def(original)
    return _pruned(graph_def, original), op_list


def _graph_def(original: Original) -> tuple[Any, Any]:
    """The original's GraphDef, and the ops as its producer knew them (None where it does not say)."""
    message = _MESSAGES[original.message]()
    data = original.file.read_bytes()
    if original.file.suffix == ".pbtxt":
        text_format.Parse(data, message)
    else:
        message.ParseFromString(data)
    if original.message == "GraphDef":
        return message, None
    if original.message == "SavedModel":
        graphs = message.meta_graphs
        message = next(m for m in graphs if frozenset(m.meta_info_def.tags) == original.tags)
    return message.graph_def, message.meta_info_def.stripped_op_list


def _pruned(graph_def: Any, original: Original) -> Any:
    pruned = v1.GraphDef(versions=graph_def.versions)
    pruned.node.extend(node for node in graph_def.node if node.name in original.graph.nodes)
    pruned.library.function.extend(
        function
        for function in graph_def.library.function
        if function.signature.name in original.graph.functions
    )
    _unplace(pruned)
    for node in pruned.node:
        if node.op != original.graph.nodes[node.name].op:
            _replace(node, original.graph.nodes[node.name])
        # Shapes that were inferred when the model was saved; newer shape functions may differ.
        node.attr.pop("_output_shapes", None)
        # Names nodes to be placed beside, some of which may be gone.
        node.attr.pop("_class", None)
    for node in _all_nodes(pruned):
        if node.op == "ImmutableConst":
            region = node.attr["memory_region_name"]
            file = original.mapped.get(region.s.decode(errors="replace"))
            if file is not None:
                region.s = str(file).encode()
    return pruned


def _replace(message: Any, node: Node) -> None:
    """Makes a node what it is to whoever calls the original: a tensor that is fed, a table that stays."""
    message.op = node.op
    message.ClearField("input")
    message.input.extend(node.inputs)
    message.ClearField("attr")
    for key, data in node.attrs.items():
        message.attr[key].ParseFromString(data)


def _unplace(graph_def: Any) -> None:
    """Forgets where nodes ran when the model was saved; an export does, too, unless told otherwise."""
    for node in _all_nodes(graph_def):
        node.device = ""


def configure_calls(graph_def: Any) -> None:
    """Has calls run as the session of the exact level does; without a word they would run as usual."""
    configuration = exact_config().SerializeToString()
    for node in _all_nodes(graph_def):
        if node.op in CALLS:
            node.attr.pop("config", None)
            node.attr["config_proto"].s = configuration


def _all_nodes(graph_def: Any) -> list[Any]:
    functions = [node for function in graph_def.library.function for node in function.node_def]
    return [*graph_def.node, *functions]


def result_side(
    model: Model, scratch: Path, *, exact: bool = False, mapped: Path | None = None
) -> Side:
    """A model of ours, as the bytes that an export would write.

    Args:
        model: The model, frozen.
        scratch: Where its asset files are put.
        exact, mapped: As for `original_side`.

    Raises:
        StageFailed: It is too large for TensorFlow to import.
        FreezeflowError: There is no space for the files.
    """
    graph = model.graph if mapped is None else mapped_graph(model, mapped)
    pieces = list(graph_def_pieces(graph))
    if size_of(pieces) > _MOST_BYTES:
        raise StageFailed(
            "the graph is larger than 2 GB, which TensorFlow cannot import in one piece",
            hint="Leave `validate` out for this model.",
        )
    graph_def = v1.GraphDef.FromString(materialise(pieces))
    weights = [] if mapped is None else read_mapped(graph_def)
    _unplace(graph_def)
    if exact:
        configure_calls(graph_def)
    imported = _imported(graph_def)
    feeds = {}
    for number, asset in enumerate(model.assets):
        path = scratch / f"asset_{number}"
        path.write_bytes(read_range(asset.content.location))
        feeds[full_name(asset.tensor)] = str(path)
    before: list[tuple[str, Mapping[str, Any]]] = [(name, {}) for name in filled(imported, weights)]
    before += [(node_of(name), feeds) for name in model.init]
    return Side(imported, model.signatures, tuple(before), {})
