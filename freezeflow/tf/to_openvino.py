"""From a frozen graph to OpenVINO's IR, by its own reader of GraphDef files.

It needs no TensorFlow, and stands here because its process is one in which converters run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from freezeflow.graph.graph import Graph, node_of, split
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
        tensors = [
            (key, tensor)
            for key, node in [*inputs.items(), *nodes.outputs.items()]
            for tensor in _handed_on(model.graph, node)
        ]
        _name([*made.inputs, *made.outputs], tensors)
        for key in list(made.get_rt_info()):
            del made.get_rt_info()[key]
        openvino.save_model(made, str(to), compress_to_fp16=half)
    return {"layers": len(made.get_ops()), "inputs": sorted(inputs)}


def _shape(openvino: Any, shape: Shape) -> Any:
    if shape is None:
        return openvino.PartialShape.dynamic()
    return openvino.PartialShape([-1 if size is None else size for size in shape])


def _name(ports: Sequence[Any], tensors: Sequence[tuple[str, str]]) -> None:
    """Gives ports the signature's keys for names, and no others; several keys may name one port.

    Args:
        ports: Inputs and outputs. An output that is an input handed on is one tensor with it.
        tensors: Keys of all ends, and tensors of the graph that they are.
    """
    named = [
        (port, {key for key, tensor in tensors if tensor in port.get_names()}) for port in ports
    ]
    for port, keys in named:
        port.get_tensor().set_names(keys)


def _handed_on(graph: Graph, name: str) -> Iterator[str]:
    """The tensor that a node gives and, of an Identity, the one that it gets: one name may be lost."""
    tensor = f"{name}:0"
    while True:
        yield tensor
        node = graph.nodes[node_of(tensor)]
        if node.op != "Identity":
            return
        source, index = split(node.inputs[0])
        tensor = f"{source}:{index}"
