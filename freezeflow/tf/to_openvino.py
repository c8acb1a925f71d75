"""From a frozen graph to OpenVINO's IR, by its own reader of GraphDef files.

It needs no TensorFlow, and stands here because its process is one in which converters run.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from freezeflow.graph.model import Model
from freezeflow.runtimes.runtime import Names
from freezeflow.tf.converting import converter
from freezeflow.values import Json, Shape


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
    import openvino

    ((_, signature),) = model.signatures.items()
    with converter("OpenVINO", model):
        made = openvino.convert_model(
            str(graph),
            input=[
                (f"{nodes.inputs[key]}:0", _shape(openvino, spec.shape))
                for key, spec in signature.inputs.items()
            ]
            or None,
            output=[f"{node}:0" for node in nodes.outputs.values()],
        )
        _name(made.outputs, nodes.outputs)
        _name(made.inputs, nodes.inputs)
        for key in list(made.get_rt_info()):
            del made.get_rt_info()[key]
        openvino.save_model(made, str(to), compress_to_fp16=half)
    return {"layers": len(made.get_ops())}


def _shape(openvino: Any, shape: Shape) -> Any:
    if shape is None:
        return openvino.PartialShape.dynamic()
    return openvino.PartialShape([-1 if size is None else size for size in shape])


def _name(ports: Any, nodes: Mapping[str, str]) -> None:
    """Gives ports the signature's keys for names, and no others; two keys may name one port."""
    keys = {f"{node}:0": key for key, node in nodes.items()}
    for port in ports:
        mine = sorted(keys[name] for name in port.get_names() & keys.keys())
        port.get_tensor().set_names(set(mine))
