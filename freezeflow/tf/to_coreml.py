"""From a frozen graph to a Core ML package, by coremltools.

Core ML itself runs on Apple's systems only: elsewhere what can be looked at is the package's structure.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import context

from freezeflow.errors import RuntimeRefused
from freezeflow.graph.graph import node_of
from freezeflow.graph.model import Model
from freezeflow.graph.profile import Profile, look
from freezeflow.runtimes.runtime import Names
from freezeflow.tf.converting import At, converter, graph_def_of
from freezeflow.values import Json, Shape

_HINT = (
    "`batch: N` and `shapes` fix what is open; `fold` leaves fewer ops. The whole report is in the log"
    " of the step."
)

# The model in a package; the weights lie beside it.
_MODEL = "Data/com.apple.CoreML/model.mlmodel"

# Names of entries in a package's manifest, which coremltools draws at random.
_NAMESPACE = uuid.UUID("8ae3e8d4-7d1c-5b0e-9d57-f3c1d9f0a6b1")


def to_coreml(model: Model, profile: Profile, nodes: Names, half: bool, to: Path) -> Json:
    """Writes the package, an ML program.

    Args:
        model: A frozen model with one signature.
        profile: What Core ML takes; the ops are those of coremltools' own registry.
        nodes: Its inputs and outputs, which keep their names.
        half: Compute and keep weights in half precision.
        to: The package, a folder.

    Raises:
        ModelRefused: Core ML or its converter does not take the model.
        RuntimeRefused: The package does not have the structure that it should have.
    """
    import coremltools
    import coremltools.converters.mil.frontend.tensorflow2.ops  # fills the registry
    from coremltools.converters.mil.frontend.tensorflow.tf_op_registry import _TF_OPS_REGISTRY

    look(model, dataclasses.replace(profile, ops={*_TF_OPS_REGISTRY, *model.graph.functions}))
    ((_, signature),) = model.signatures.items()
    graph_def = _with_shapes(graph_def_of(model))
    # The reader looks for the functions of branches among those of the eager context.
    for function in graph_def.library.function:
        context.context().add_function_def(function)
    used = {node_of(tensor) for node in model.graph.nodes.values() for tensor in node.inputs}
    nodes = Names({k: n for k, n in nodes.inputs.items() if n in used}, nodes.outputs)
    precision = coremltools.precision.FLOAT16 if half else coremltools.precision.FLOAT32
    with converter("coremltools", model, _HINT) as at, _followed(_TF_OPS_REGISTRY, at):
        made = coremltools.convert(
            graph_def,
            source="tensorflow",
            convert_to="mlprogram",
            inputs=[
                coremltools.TensorType(
                    name=node, shape=_shape(coremltools, signature.inputs[key].shape)
                )
                for key, node in nodes.inputs.items()
            ],
            outputs=[coremltools.TensorType(name=node) for node in nodes.outputs.values()],
            minimum_deployment_target=coremltools.target.iOS16,
            compute_precision=precision,
            skip_model_load=True,
        )
        made.save(str(to))
    _name_entries(to)
    _order_maps(coremltools, to / _MODEL)
    return {"structure": _structure(coremltools, to, nodes), "inputs": list(nodes.inputs.values())}


def _with_shapes(graph_def: Any) -> Any:
    """A graph with the shapes of what its nodes give, as TensorFlow infers them."""
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(graph_def, name="")
    return graph.as_graph_def(add_shapes=True)


@contextlib.contextmanager
def _followed(registry: dict[str, Callable[..., Any]], at: At) -> Iterator[None]:
    """Has the functions of a registry tell which node they convert."""
    given = dict(registry)

    def follow(convert: Callable[..., Any]) -> Callable[..., Any]:
        def converted(known: Any, node: Any) -> None:
            # A branch or loop is converted within its node: what is within it is told, if that fails.
            around = at.op, at.node
            at.op, at.node = node.op, node.name
            convert(known, node)
            at.op, at.node = around

        return converted

    registry.update({op: follow(convert) for op, convert in given.items()})
    try:
        yield
    finally:
        registry.update(given)


def _shape(coremltools: Any, shape: Shape) -> Any:
    if shape is None:
        return None
    return [coremltools.RangeDim(1, 64) if size is None else size for size in shape]


def _order_maps(coremltools: Any, file: Path) -> None:
    """Writes a message's maps in the order of their keys: they come in any."""
    message = coremltools.proto.Model_pb2.Model.FromString(file.read_bytes())
    file.write_bytes(message.SerializeToString(deterministic=True))


def _name_entries(package: Path) -> None:
    """Gives the package's entries names that follow from their paths.

    A folder for weights in which there are none is not published, and no entry of the package.
    """
    manifest = package / "Manifest.json"
    data = json.loads(manifest.read_text())
    names = {
        old: str(uuid.uuid5(_NAMESPACE, entry["path"])).upper()
        for old, entry in data["itemInfoEntries"].items()
        if any(each.is_file() for each in _below(package / "Data" / entry["path"]))
    }
    data["itemInfoEntries"] = {names[old]: data["itemInfoEntries"][old] for old in names}
    data["rootModelIdentifier"] = names[data["rootModelIdentifier"]]
    manifest.write_text(json.dumps(data, indent=4, sort_keys=True) + "\n")


def _below(path: Path) -> list[Path]:
    return [path, *path.rglob("*")]


def _structure(coremltools: Any, package: Path, nodes: Names) -> Json:
    """Reads the package back: its kind, and inputs and outputs by name."""
    spec = coremltools.utils.load_spec(str(package))
    found = [
        sorted(each.name for each in side)
        for side in (spec.description.input, spec.description.output)
    ]
    wanted = [sorted(side.values()) for side in nodes]
    kind = spec.WhichOneof("Type")
    if kind != "mlProgram" or found != wanted:
        raise RuntimeRefused(f"the package is a {kind} with the ends {found}, not {wanted}")
    return {"kind": kind, "specification": spec.specificationVersion, "functions": ["main"]}
