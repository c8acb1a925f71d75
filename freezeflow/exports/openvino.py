"""OpenVINO's IR (.xml with .bin), read by it from our own file and checked on its CPU runtime."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

from freezeflow.exports.check import Checked, check_problems
from freezeflow.exports.converted import Converted, Converter, OneSignature, Single, graph_file
from freezeflow.exports.format import ExportFormat, ExportRequest
from freezeflow.graph import attrs
from freezeflow.graph.constants import const, value_of
from freezeflow.graph.graph import Node, node_of
from freezeflow.graph.model import Model
from freezeflow.graph.profile import CASES, FUNCTIONAL, LOWERED, Profile
from freezeflow.params import param
from freezeflow.runtimes.openvino_runtime import RUNTIME
from freezeflow.runtimes.runtime import FLOAT16, FLOAT32, Names
from freezeflow.values import DType

TOOLS = ("openvino",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Params(OneSignature, Checked):
    """Parameters of ``format: openvino``."""

    precision: Literal["float32", "float16"] = param(
        "How weights are kept: as they are, or in half precision.", default="float32"
    )


_DTYPES = frozenset(
    (
        DType.FLOAT,
        DType.DOUBLE,
        DType.HALF,
        DType.BFLOAT16,
        DType.INT8,
        DType.INT16,
        DType.INT32,
        DType.INT64,
        DType.UINT8,
        DType.UINT16,
        DType.UINT32,
        DType.UINT64,
        DType.BOOL,
    )
)

PROFILE = Profile(
    target="OpenVINO",
    # Its reader tells; it is asked before anything is written.
    ops=None,
    control_flow=(FUNCTIONAL - CASES) | LOWERED,
    static="ranks",
    wide_integers=False,
    dtypes=_DTYPES,
    # Messages of asserts are strings; its reader leaves both out.
    constants=_DTYPES | {DType.STRING},
)


def convert(request: ExportRequest, made: Single) -> Converted:
    """By OpenVINO's own reader."""
    from freezeflow.tf.to_openvino import to_openvino

    params: Params = request.params
    model = readable(made.model)
    graph = graph_file(request, model)
    half = params.precision == "float16"
    main = request.to.name
    facts = request.context.confined(
        to_openvino, model, graph, made.nodes, made.folder / main, half
    )
    precision = FLOAT16 if half else FLOAT32
    # An input that nothing depends on is none of OpenVINO's.
    names = Names({key: key for key in facts["inputs"]}, made.keys.outputs)
    return Converted(main=main, names=names, precision=precision, facts=facts)


def readable(model: Model) -> Model:
    """The same model in a form that OpenVINO's reader takes.

    It makes constants of inputs that have a default, leaves out outputs that are constants or that another
    output hands on, and reads bfloat16 from raw bytes only.
    """
    ((_, signature),) = model.signatures.items()
    nodes = dict(model.graph.nodes)
    for spec in signature.inputs.values():
        nodes[spec.tensor] = _without_default(nodes[spec.tensor])
    for spec in signature.outputs.values():
        nodes[spec.tensor] = _read_off(nodes[spec.tensor], nodes)
    graph = dataclasses.replace(
        model.graph,
        nodes={name: _with_raw_bytes(node) for name, node in nodes.items()},
        functions={
            name: dataclasses.replace(
                function,
                nodes={key: _with_raw_bytes(node) for key, node in function.nodes.items()},
            )
            for name, function in model.graph.functions.items()
        },
    )
    return dataclasses.replace(model, graph=graph)


def _without_default(node: Node) -> Node:
    if node.op != "PlaceholderWithDefault":
        return node
    return node._replace(op="Placeholder", inputs=())


def _read_off(node: Node, nodes: Mapping[str, Node]) -> Node:
    """An output that hands on, straight from what computes it; of a constant, as a cast to its own type."""
    if node.op != "Identity":
        return node
    tensor = node.inputs[0]
    while (source := nodes[node_of(tensor)]).op == "Identity":
        tensor = source.inputs[0]
    kind = node.attrs["T"]
    read = node._replace(inputs=(tensor,))
    return (
        read
        if source.op != "Const"
        else read._replace(op="Cast", attrs={"SrcT": kind, "DstT": kind})
    )


def _with_raw_bytes(node: Node) -> Node:
    if node.op != "Const" or attrs.to_type(node.attrs["dtype"]) is not DType.BFLOAT16:
        return node
    return const(node.name, *value_of(node))._replace(inputs=node.inputs, device=node.device)


_CONVERTER = Converter(profile=lambda: PROFILE, convert=convert, runtime=RUNTIME, tools=TOOLS)

FORMAT = ExportFormat(
    name="openvino",
    version=3,
    summary="OpenVINO's IR, an .xml file with its weights in a .bin file; needs `freezeflow[openvino]`.",
    write=_CONVERTER.write,
    suffixes=(".xml",),
    params=Params,
    extra="openvino",
    tools=TOOLS,
    runtimes=(RUNTIME,),
    in_tensorflow=True,
    problems=check_problems,
)
