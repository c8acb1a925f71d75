"""From a frozen graph to OpenVINO's IR, by its own reader of GraphDef files.

It needs no TensorFlow, and stands here because its process is one in which converters run.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from freezeflow.errors import ModelRefused
from freezeflow.graph.model import Model
from freezeflow.graph.walk import reached_nodes
from freezeflow.runtimes.openvino_runtime import without_reports
from freezeflow.runtimes.runtime import Names
from freezeflow.tf.converting import converter
from freezeflow.values import Json, Shape

_HINT = (
    "`fold` before the export, or a signature without them, may leave them out. The whole report is in the"
    " log of the step."
)


def to_openvino(model: Model, graph: Path, nodes: Names, to: Path, half: bool) -> Json:
    """Writes ``to`` (.xml) and the weights beside it (.bin).

    Args:
        model: A frozen model with one signature.
        graph: The same as a GraphDef file.
        nodes: Its inputs and outputs, which get the keys' names.
        to: The file.
        half: Keep weights in half precision.

    Raises:
        ModelRefused: OpenVINO does not take the model.
    """
    openvino = without_reports()
    ((_, signature),) = model.signatures.items()
    # It knows no input that nothing depends on.
    reached = reached_nodes(model.graph.nodes, nodes.outputs.values())
    inputs = {key: node for key, node in nodes.inputs.items() if node in reached}
    with converter("OpenVINO", model, _HINT):
        made = openvino.convert_model(
            str(graph),
            input=[
                (f"{node}:0", _shape(openvino, signature.inputs[key].shape))
                for key, node in inputs.items()
            ]
            or None,
            output=[f"{node}:0" for node in nodes.outputs.values()],
        )
        _name(made, inputs, nodes.outputs)
        for key in list(made.get_rt_info()):
            del made.get_rt_info()[key]
        openvino.save_model(made, str(to), compress_to_fp16=half)
    return {"layers": len(made.get_ops()), "inputs": sorted(inputs)}


def _shape(openvino: Any, shape: Shape) -> Any:
    if shape is None:
        return openvino.PartialShape.dynamic()
    return openvino.PartialShape([-1 if size is None else size for size in shape])


def _name(made: Any, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> None:
    """Gives ports the signature's keys for names, and no others; several keys may name one tensor.

    A result is called as the tensor that it was asked for with, whatever became of this tensor; an output
    that is an input handed on is one tensor with it.

    Args:
        made: OpenVINO's model.
        inputs: Keys to nodes of the graph.
        outputs: The same.

    Raises:
        ModelRefused: It has left out an output.
    """
    keys: dict[tuple[str, int], set[str]] = {}
    for port in made.inputs:
        named = {key for key, node in inputs.items() if f"{node}:0" in port.get_names()}
        keys.setdefault(_tensor(port), set()).update(named)
    results = {port.get_node().get_friendly_name(): port for port in made.outputs}
    for key, node in outputs.items():
        if f"{node}:0" not in results:
            raise ModelRefused(f"OpenVINO leaves out the output {key!r}", where=node, hint=_HINT)
        keys.setdefault(_tensor(_source(results[f"{node}:0"])), set()).add(key)
    for port in made.inputs:
        port.get_tensor().set_names(keys[_tensor(port)])
    for port in made.outputs:
        port.get_tensor().set_names(keys[_tensor(_source(port))])


def _source(port: Any) -> Any:
    """Where a result has its tensor from."""
    return port.get_node().input_value(0)


def _tensor(port: Any) -> tuple[str, int]:
    return port.get_node().get_name(), port.get_index()
